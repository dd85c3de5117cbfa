"""Langevin chains and the generator on one energy: exact where the answer is known, slow where there is a barrier."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ddgm.datasets import two_d
from ddgm.generator import build_generator
from ddgm.metrics import mixing
from ddgm.metrics.mixing import EXACT, GENERATOR, NOISE, ONE_MODE, Chains, occupancy_error
from ddgm.sampling import energies_and_slopes
from ddgm.training import train

MEAN, SD = torch.tensor([0.5, -1.0]), 0.6


class Gaussian(nn.Module):
    """E of N(MEAN, SD² I)."""

    def forward(self, x):
        return (x - MEAN).square().sum(1) / (2 * SD**2)


class Arms(nn.Module):
    """An equal mixture of Gaussians about four-spin's arms: narrow ones are wells with barriers between them."""

    def __init__(self, centres, sd):
        super().__init__()
        self.centres, self.sd = torch.from_numpy(centres).float(), sd

    def forward(self, x):
        return -torch.logsumexp(-(x[:, None] - self.centres).square().sum(2) / (2 * self.sd**2), 1)


@pytest.fixture
def dataset(parameters):
    return parameters["datasets"]["four_spin"]


@pytest.fixture
def modes(dataset):
    return mixing.modes_of(dataset, 5)


@pytest.fixture
def centres(dataset):
    """Where an arm has a = 1, b = 0: at the angles k · 90° + twist · e."""
    angle = np.arange(4) * np.pi / 2 + dataset["twist"] * np.e
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def chains(x, rate, steps, energy=None):
    one = Chains(energy or Gaussian(), x, rate, torch.Generator().manual_seed(0))
    one.run(steps)
    return one


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_chains_leave_a_gaussian_as_it_is(rate):
    """Whatever the rate: at 0.5 an unadjusted chain would be 1.8 times as wide, sd²/(1 - rate/(2 sd²))."""
    torch.manual_seed(0)
    after = chains(MEAN + SD * torch.randn(4000, 2), rate, 60)
    torch.testing.assert_close(after.x.mean(0), MEAN, atol=0.04, rtol=0)
    torch.testing.assert_close(after.x.std(0), torch.full((2,), SD), atol=0.03, rtol=0)


def test_chains_reach_a_gaussian_from_elsewhere():
    after = chains(torch.full((3000, 2), 3.0), 0.1, 150)
    torch.testing.assert_close(after.x.mean(0), MEAN, atol=0.05, rtol=0)
    torch.testing.assert_close(after.x.std(0), torch.full((2,), SD), atol=0.04, rtol=0)


def test_nearly_every_tiny_step_is_accepted_and_few_giant_ones():
    torch.manual_seed(0)
    start = MEAN + SD * torch.randn(1000, 2)
    tiny, giant = chains(start, 1e-4, 20), chains(start, 2.0, 20)
    assert tiny.accepted / tiny.steps > 0.99 > 0.5 > giant.accepted / giant.steps
    assert 0 < tiny.accepted / tiny.steps <= 1 and tiny.steps == 20 and tiny.seconds > 0


def test_what_is_rejected_stays_where_it_was():
    """The value and the slope that are kept are those of the place that is kept."""
    after = chains(torch.full((500, 2), 1.0), 2.0, 7)
    value, slope = energies_and_slopes(after.energy, after.x)
    torch.testing.assert_close(after.value, value)
    torch.testing.assert_close(after.slope, slope)
    assert (after.x == 1.0).all(1).any(), "a place that no proposal left"


def test_shares_are_those_of_the_arms_and_of_what_lies_between_them(dataset, modes):
    data = two_d.sample(dataset, 5000, np.random.default_rng(0))
    np.testing.assert_allclose(modes.shares(data), [*4 * [0.2475], 0.01], atol=0.02)
    alone = modes.shares(data[two_d.mode(dataset, data) == 2])
    np.testing.assert_allclose(alone, [0, 0, 0.99, 0, 0.01], atol=0.01)
    for elsewhere in (50.0, 0.0):
        assert modes.shares(np.full((100, 2), elsewhere)).tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("shares", "error"),
    [([0.25, 0.25, 0.25, 0.25, 0], 0), ([1, 0, 0, 0, 0], 0.75), ([0, 0, 0, 0, 1], 1), ([0.2, 0.2, 0.2, 0.2, 0.2], 0.2)],
)
def test_the_occupancys_error_is_the_share_that_is_misplaced(shares, error):
    assert occupancy_error(np.array(shares), np.array([0.25, 0.25, 0.25, 0.25, 0])) == pytest.approx(error)


def test_exact_samples_of_a_gaussian_are_its_own():
    one, other = mixing.exact_samples(Gaussian(), 20_000, 2, 0)
    assert not (one == other).any()
    for x in (one, other):
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.02)
        np.testing.assert_allclose(np.cov(x, rowvar=False), SD**2 * np.eye(2), atol=0.01)


def test_chains_start_in_the_first_mode_or_at_noise(dataset):
    start = mixing.starts(dataset, 500, 1.5, 3)
    assert (two_d.mode(dataset, start[ONE_MODE]) == 0).all() and start[ONE_MODE].shape == (500, 2)
    assert start[NOISE].std() == pytest.approx(1.5, rel=0.1) and start[NOISE].shape == (500, 2)


@pytest.fixture
def measured(dataset, centres, parameters):
    """The rows of a pair whose energy has wells of some width, and any generator."""

    def measure(sd, rate, steps):
        row = {**parameters["experiments"]["four_spin"]["generator"], "hidden": [8]}
        generator = build_generator(row, (2,))
        settings = {"seed": 1, "chains": 300, "steps": steps, "looks": 8, "rate": rate, "spread": 1.5}
        rows = mixing.measure(Arms(centres, sd), generator, settings, dataset, 64, 0)
        return pd.DataFrame(rows, columns=mixing.COLUMNS[2:])

    return measure


def value(rows, sampler, metric, step=None):
    chosen = rows[(rows["sampler"] == sampler) & (rows["metric"] == metric)]
    return (chosen if step is None else chosen[chosen["step"] == step])["value"].iloc[-1]


def test_chains_from_one_mode_stay_there_where_the_wells_are_narrow(measured):
    rows = measured(sd=0.1, rate=1e-3, steps=150)
    assert value(rows, ONE_MODE, "slowdown") == math.inf
    assert value(rows, ONE_MODE, "occupancy_error", 150) > 0.6, "but for the arm's end, which is nearer to another well"
    assert value(rows, NOISE, "occupancy_error", 0) > 0.7, "most noise is off the wells"
    assert value(rows, NOISE, "occupancy_error", 150) < 0.3, "from noise chains fall into every well"


def test_chains_arrive_where_there_is_no_barrier(measured):
    rows = measured(sd=1.0, rate=0.1, steps=150)
    assert 0 < value(rows, ONE_MODE, "slowdown") < math.inf
    assert value(rows, ONE_MODE, "occupancy_error", 0) > 0.7, "where they began"
    assert value(rows, ONE_MODE, "occupancy_error", 150) < 0.1
    assert value(rows, EXACT, "occupancy_error") < 0.03, "as many exact samples: 300"


def test_the_slowdown_is_the_chains_time_over_the_generators(measured):
    rows = measured(sd=1.0, rate=0.1, steps=150)
    generator = rows[rows["sampler"] == GENERATOR]
    assert set(generator["metric"]) == {"occupancy_error"} and (generator["seconds"] > 0).all()
    floor = value(rows, EXACT, "occupancy_error")
    along = rows[(rows["sampler"] == ONE_MODE) & (rows["metric"] == "occupancy_error")]
    arrived = along[along["value"] <= floor + mixing.CLOSE]["seconds"].min()
    assert value(rows, ONE_MODE, "slowdown") == pytest.approx(arrived / generator["seconds"].iloc[0])
    assert along["step"].tolist() == sorted(along["step"]) and along["seconds"].is_monotonic_increasing


def test_one_look_is_at_the_end():
    looks = mixing.along_chains(Chains(Gaussian(), torch.zeros(5, 2), 0.1, torch.Generator()), 20, 1)
    assert [steps for steps, *_ in looks] == [0, 20]


def test_every_sampler_of_every_seed_is_in_the_table(planar_row, planar_data, parameters, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    planar_row["schedule"]["steps"] = 3
    train("points", planar_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "points.pt")
    settings = {"seed": 1, "chains": 100, "steps": 20, "looks": 4, "rate": 5e-3, "spread": 1.5}
    mixing.evaluate("points", tmp_path / "model", settings, parameters["datasets"]["two_spiral"], tmp_path / "mix.csv")
    rows = pd.read_csv(tmp_path / "mix.csv")
    assert list(rows.columns) == mixing.COLUMNS
    for _, part in rows.groupby("seed"):
        assert set(part["sampler"]) == {GENERATOR, EXACT, ONE_MODE, NOISE}
        steps = part[(part["sampler"] == ONE_MODE) & (part["metric"] == "occupancy_error")]["step"]
        assert steps.tolist() == [0, 1, 3, 7, 20]
    assert rows[rows["metric"] == "acceptance"]["value"].between(0, 1).all()
