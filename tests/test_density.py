"""The 2D sets' exact densities, and the distances measured with them, where the answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddgm.datasets import two_d
from ddgm.errors import UserError
from ddgm.metrics import density
from ddgm.sampling import grid

SETS = ["four_spin", "two_spiral"]


@pytest.fixture(params=SETS)
def dataset(request, parameters):
    return parameters["datasets"][request.param]


def test_a_sets_density_integrates_to_one(dataset):
    _, points = grid(3.0, 300)
    assert two_d.density(dataset, points).sum() * (6 / 300) ** 2 == pytest.approx(1, abs=1e-4)


def test_a_sets_density_is_that_of_its_points(dataset):
    """χ² of 400,000 points in 40x40 cells against the density's mass there: 1 a cell if they agree."""
    n, cells = 400_000, 40
    points = two_d.sample(dataset, n, np.random.default_rng(0))
    edges = np.linspace(-3, 3, cells + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])
    mass = density.cell_mass(lambda x: two_d.density(dataset, x), 3.0, cells, inner=9)
    enough = mass * n > 10
    chi_squared = ((counts - mass * n) ** 2 / (mass * n))[enough].mean()
    assert enough.sum() > 200
    assert chi_squared == pytest.approx(1, abs=5 * math.sqrt(2 / enough.sum()))


def test_four_spin_has_its_arms_a_quarter_turn_apart(parameters):
    dataset = parameters["datasets"]["four_spin"]
    points = two_d.sample(dataset, 100, np.random.default_rng(0))
    turned = points @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(two_d.density(dataset, points), two_d.density(dataset, turned), rtol=1e-6)


def test_the_spirals_mirror_each_other(parameters):
    dataset = parameters["datasets"]["two_spiral"]
    points = two_d.sample(dataset, 100, np.random.default_rng(0))
    np.testing.assert_allclose(two_d.density(dataset, points), two_d.density(dataset, -points), rtol=1e-9)


def test_the_scale_divides_coordinates_and_keeps_the_mass(dataset):
    points = two_d.sample(dataset, 50, np.random.default_rng(0))
    doubled = {**dataset, "scale": 2 * dataset["scale"]}
    np.testing.assert_allclose(two_d.density(doubled, points / 2), 4 * two_d.density(dataset, points), rtol=1e-6)


def test_splits_are_different_points_of_one_set(dataset, tmp_path):
    for split in ("train", "test"):
        two_d.prepare(dataset, tmp_path, split, tmp_path / f"{split}.npy")
    train, test = np.load(tmp_path / "train.npy"), np.load(tmp_path / "test.npy")
    assert train.shape == test.shape == (10000, 2) and train.dtype == np.float32
    assert not (train == test).any()
    with pytest.raises(UserError, match="has no split 'val': allowed are train, test"):
        two_d.prepare(dataset, tmp_path, "val", tmp_path / "val.npy")


class Gaussian(nn.Module):
    """E(x) of N(0, sd² I)."""

    def __init__(self, sd):
        super().__init__()
        self.sd = sd

    def forward(self, x):
        return x.square().sum(1) / (2 * self.sd**2)


def gaussian_mass(sd, half_width=6.0, cells=200):
    return density.cell_mass(lambda x: two_d.normal(x, sd).prod(1), half_width, cells)


def test_log_partition_of_a_gaussian():
    for sd in (0.3, 1.0, 3.0):
        assert density.log_partition(Gaussian(sd), 3.0, 1e-4) == pytest.approx(math.log(2 * math.pi * sd**2), abs=1e-3)


def test_distances_between_gaussians_are_the_known_ones():
    p, q = gaussian_mass(1.0), gaussian_mass(1.5)
    known = 2 * (math.log(1.5) + 1 / (2 * 1.5**2) - 0.5)
    assert density.kl_divergence(p, q) == pytest.approx(known, abs=1e-3)
    # TV of two centred Gaussians in the plane: the mass that each has inside the circle where they are equal.
    r2 = 2 * 2 * math.log(1.5) / (1 - 1 / 1.5**2)
    assert density.total_variation(p, q) == pytest.approx(math.exp(-r2 / 4.5) - math.exp(-r2 / 2), abs=1e-3)
    assert density.kl_divergence(p, p) == 0 and density.total_variation(p, p) == 0


def test_total_variation_counts_mass_outside_the_grid():
    p = np.full((4, 4), 1 / 16)
    assert density.total_variation(p, p / 2) == pytest.approx(0.5)


@pytest.mark.parametrize("branch", ["paper", "toy"])
def test_an_exact_sampler_scores_near_nothing(branch, dataset, parameters):
    n = parameters["branches"][branch]["evaluation"]["samples"]
    samples = two_d.sample(dataset, n, np.random.default_rng(3))
    cells = round(6 / density.CELL)
    data = density.cell_mass(lambda x: two_d.density(dataset, x), 3.0, cells)
    estimated = density.histogram_density(samples, 3.0, cells)
    assert 0 < density.kl_divergence(data, estimated) < 0.02
    assert density.total_variation(data, estimated) < 0.08


def test_a_pair_that_is_exact_and_one_that_is_not_are_told_apart():
    """The data's own density as the energy, and its own points as samples, then a Gaussian for both."""
    dataset = {"kind": "two_spiral", "start": 120.0, "sweep": 360.0, "centres": 40, "sd": 0.45, "scale": 4.0}

    class Exact(nn.Module):
        def forward(self, x):
            tail = x.square().sum(1).double() * 1e-3
            return torch.from_numpy(-np.log(two_d.density(dataset, x.numpy()) + 1e-12)) + tail

    points = two_d.sample(dataset, 200_000, np.random.default_rng(3))
    exact = density.measure(Exact(), points, dataset, 1e-3)
    wrong = density.measure(Gaussian(1.0), np.random.default_rng(4).standard_normal((200_000, 2)), dataset, 1e-3)
    for metric in ("kl_data_model", "kl_data_generator", "kl_generator_model"):
        assert exact[metric] < 0.03, metric
    assert wrong["kl_data_model"] > 0.3 and wrong["kl_data_generator"] > 0.3 and wrong["kl_generator_model"] < 0.03
