"""What is measured along a training, where the answer is known."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch

from ddgm.datasets import two_d
from ddgm.generator import build_generator
from ddgm.metrics import density, trace
from ddgm.sampling import BOX
from ddgm.training import train
from test_density import Gaussian, gaussian, kl_of_gaussians
from test_objectives import Level, energy, points  # noqa: F401


class Shifted(torch.nn.Module):
    """An energy plus a constant."""

    def __init__(self, inner, constant):
        super().__init__()
        self.inner, self.constant = inner, constant

    def forward(self, x):
        return self.inner(x) + self.constant


def test_eq_8_is_a_quarter_of_eq_7_where_both_answers_are_as_likely(energy, points):  # noqa: F811
    found = trace.agreement(Level(energy, 0.0), *points)
    assert found == pytest.approx({"gradient_cosine": 1.0, "gradient_ratio": 0.25}, abs=1e-9)


def test_eq_8_leaves_eq_7_where_the_classifier_is_sure_of_some_points(energy, points):  # noqa: F811
    steep = copy.deepcopy(energy)
    with torch.no_grad():
        for parameter in steep.parameters():
            parameter.mul_(4)
    found = trace.agreement(steep, *points)
    assert found["gradient_cosine"] < 0.98 and found["gradient_ratio"] < 0.25


def test_the_best_offset_makes_both_errors_as_frequent(energy, points):  # noqa: F811
    """And so ∂/∂c of Eq. 8's loss, taken by difference, is 0 there and of either sign beside it."""
    data, samples = (energy(x).detach() for x in points)
    c = trace.best_offset(data, samples)

    def loss(c):
        return float(trace.classifier.energy_loss(data[None] + c, samples[None] + c))

    assert float(torch.sigmoid(data + c).mean()) == pytest.approx(float(torch.sigmoid(-samples - c).mean()), abs=1e-9)
    assert (loss(c + 1e-4) - loss(c - 1e-4)) / 2e-4 == pytest.approx(0, abs=1e-7)
    assert loss(c) < min(loss(c - 0.1), loss(c + 0.1))


def test_the_best_offset_of_energies_a_known_distance_apart():
    """Data at -3 and samples at 1, each at one point: the border lies in the middle."""
    assert trace.best_offset(torch.full((5,), -3.0), torch.full((7,), 1.0)) == pytest.approx(1.0, abs=1e-6)
    assert trace.best_offset(torch.full((5,), 1e4), torch.full((5,), 1e4)) == pytest.approx(-1e4, abs=1e-3)


def test_a_constant_in_the_energy_changes_nothing(energy, points):  # noqa: F811
    plain, shifted = trace.agreement(energy, *points), trace.agreement(Shifted(energy, 30.0), *points)
    assert plain == pytest.approx(shifted, rel=1e-6)
    eq_8, eq_7 = trace.gradients(Shifted(energy, 30.0), *points)
    for found, known in zip((eq_8, eq_7), trace.gradients(energy, *points), strict=True):
        torch.testing.assert_close(found, known, rtol=1e-6, atol=1e-9)


def test_divergences_of_gaussians_are_the_known_ones():
    data, generator = (density.mass(gaussian(sd), BOX, 1) for sd in (0.5, 0.6))
    found = trace.divergences(Gaussian(0.7), generator, data)
    assert found["kl_data_model"] == pytest.approx(kl_of_gaussians(0.5, 0.7), abs=2e-3)
    assert found["kl_data_generator"] == pytest.approx(kl_of_gaussians(0.5, 0.6), abs=2e-3)
    assert found["kl_generator_model"] == pytest.approx(kl_of_gaussians(0.6, 0.7), abs=2e-3)


class Flat(torch.nn.Module):
    """The same energy everywhere, with a weight to learn a slope by."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x @ self.slope


@pytest.mark.parametrize("sd", [0.3, 0.7])
def test_the_entropy_of_gaussian_samples_is_known(sd):
    samples = sd * np.random.default_rng(0).standard_normal((100_000, 2))
    mass = density.smoothed(density.cell_counts(samples, BOX), len(samples))
    assert trace.entropy(mass) == pytest.approx(math.log(2 * math.pi * math.e * sd**2), abs=0.02)


def test_what_eq_15_says_is_the_sum_over_the_scales_of_batch_norm(planar_row):
    generator = build_generator(planar_row["generator"], (2,))
    with torch.no_grad():
        for name, weight in generator.named_parameters():
            if name.endswith(".scale"):
                weight.fill_(-0.5)  # a scale's sign is no matter
    scales = sum(planar_row["generator"]["hidden"])
    expected = scales * 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert trace.entropy_by_eq_15(generator) == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_flat_energy_is_infinitely_far_and_in_doubt_everywhere(parameters):
    """exp(-E) has no integral; P(y|x) is ½ at every point, where Eq. 8 is a quarter of Eq. 7."""
    dataset = parameters["datasets"]["two_spiral"]
    data_mass = density.mass(lambda x: two_d.density(dataset, x), BOX, 1)
    samples = torch.from_numpy(two_d.sample(dataset, 50_000, np.random.default_rng(0))).float()
    data = two_d.sample(dataset, 1000, np.random.default_rng(1))
    found = trace.measure(Flat(), samples, density.ranked_places(data, dataset, 0), data_mass)
    assert found["kl_data_model"] == found["kl_generator_model"] == math.inf and found["energy_sd"] == 0
    assert found["kl_data_generator"] < 0.05, "the data's own points"
    assert found["gradient_cosine"] == pytest.approx(1, abs=1e-6)
    assert found["gradient_ratio"] == pytest.approx(0.25, abs=1e-6)


def test_every_metric_of_every_kept_step_of_every_seed_is_a_row(planar_row, planar_data, parameters, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    planar_row["schedule"].update(steps=12, snapshots=2)
    train("points", planar_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "points.pt")
    settings, dataset = {"seed": 1, "samples": 2000, "points": 300}, parameters["datasets"]["two_spiral"]
    for table in ("once.csv", "again.csv"):
        trace.evaluate("points", tmp_path / "model", settings, dataset, tmp_path / table)
    rows = pd.read_csv(tmp_path / "once.csv")
    assert list(rows.columns) == trace.COLUMNS and (rows["experiment"] == "points").all()
    assert sorted(rows["step"].unique()) == [1, 12] and rows["value"].notna().all()
    # At the first step nothing has moved.
    assert rows.groupby(["seed", "step"])["metric"].nunique().tolist() == [11, 12] * 2 and len(rows) == 2 * (11 + 12)
    assert {"kl_data_model", "rank_correlation_far", "gradient_cosine", "energy_sd"} <= set(rows["metric"])
    # How far Eq. 15 moved, less how far the entropy did.
    of_seed = rows[rows["seed"] == 1].pivot(index="step", columns="metric", values="value")
    moved = (of_seed["entropy_eq_15"] - of_seed["entropy"]).diff().abs()
    assert of_seed.loc[12, "entropy_error"] == pytest.approx(moved[12], abs=2e-3) and moved[12] > 0.01
    assert (tmp_path / "once.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
