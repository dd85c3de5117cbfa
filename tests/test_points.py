"""Transport, ranks and modes, where the answer is known."""

import numpy as np
import ot
import pytest

from ddgm.datasets import two_d
from ddgm.metrics import points

SHIFT = np.array([3.0, 4.0])


@pytest.fixture
def cloud():
    return np.random.default_rng(0).standard_normal((400, 2))


def test_a_shift_is_as_far_as_it_is_long(cloud):
    shifted = np.random.default_rng(1).permutation(cloud + SHIFT)
    assert points.wasserstein(cloud, shifted) == pytest.approx(5)
    assert points.wasserstein(cloud, cloud) == pytest.approx(0, abs=1e-6)


def test_doubling_a_cloud_moves_each_point_by_its_own_length(cloud):
    """x -> 2x is the gradient of a convex function, and so the cheapest transport (Brenier 1991)."""
    moved = np.sqrt(np.square(cloud).sum(1).mean())
    assert points.wasserstein(cloud, 2 * cloud) == pytest.approx(moved)


def test_transport_between_gaussians_of_sd_1_and_3():
    """W2 of N(0, I) and N(0, 9 I) is 2 √2 in the plane."""
    stream = np.random.default_rng(0)
    x, y = stream.standard_normal((1000, 2)), 3 * stream.standard_normal((1000, 2))
    assert points.wasserstein(x, y) == pytest.approx(2 * np.sqrt(2), rel=0.05)


def test_the_sliced_distance_of_a_shift_is_its_length_over_root_two(cloud):
    sliced = [points.sliced_wasserstein(cloud, cloud + SHIFT, seed) for seed in range(20)]
    assert np.sqrt(np.mean(np.square(sliced))) == pytest.approx(5 / np.sqrt(2), rel=0.03)
    assert points.sliced_wasserstein(cloud, cloud[::-1], 0) == pytest.approx(0, abs=1e-12)


def test_the_sliced_distance_is_pots(cloud):
    angles = np.random.default_rng(5).uniform(0, np.pi, points.DIRECTIONS)
    pots = ot.sliced_wasserstein_distance(cloud, cloud**3, projections=np.stack([np.cos(angles), np.sin(angles)]))
    assert points.sliced_wasserstein(cloud, cloud**3, 5) == pytest.approx(pots)


def test_ranks_see_the_order_alone():
    density = np.random.default_rng(0).random(1000)
    for energy, known in ((-np.log(density), 1), (1 / density, 1), (-np.exp(9 * density) + 7, 1), (density**3, -1)):
        assert points.rank_correlation(energy, density) == pytest.approx(known)
    unrelated = np.random.default_rng(1).permutation(density)
    assert abs(points.rank_correlation(unrelated, density)) < 0.1


def test_all_but_a_hundredth_of_the_data_lie_within_the_edge():
    density = np.random.default_rng(0).random(10_000)
    assert np.mean(density >= points.edge(density)) == pytest.approx(0.99)


def test_a_mode_counts_as_covered_from_a_tenth_of_its_due(parameters):
    """A sampler of four-spin that keeps all of two arms, a fifth of the third and a twentieth of the last."""
    dataset = parameters["datasets"]["four_spin"]
    samples = two_d.sample(dataset, 40_000, np.random.default_rng(0))
    kept = np.array([1.0, 1.0, 0.2, 0.05])
    edge = points.edge(two_d.density(dataset, samples))
    samples = samples[np.random.default_rng(1).random(40_000) < kept[two_d.mode(dataset, samples)]]
    shares = points.shares_of_due_mass(dataset, samples, edge)
    np.testing.assert_allclose(shares, 0.99 * kept / kept.mean(), rtol=0.1)
    assert (shares >= points.COVERED).tolist() == [True, True, True, False]


STRAY = {
    "in the middle": lambda stream: 0.05 * stream.standard_normal((4000, 2)),
    "far off": lambda stream: np.full((4000, 2), 50.0),
}


@pytest.mark.parametrize("place", STRAY)
def test_samples_off_every_mode_cover_none_however_near_they_are_to_one(place, parameters):
    """Four-spin has nothing in the middle, where each place is nearest to some arm."""
    dataset, stream = parameters["datasets"]["four_spin"], np.random.default_rng(0)
    edge = points.edge(two_d.density(dataset, two_d.sample(dataset, 20_000, stream)))
    shares = points.shares_of_due_mass(dataset, STRAY[place](stream), edge)
    assert shares.shape == (4,) and (shares == 0).all()


@pytest.mark.parametrize("name", ["four_spin", "two_spiral"])
def test_of_noise_only_what_falls_on_the_modes_is_counted(name, parameters):
    dataset, stream = parameters["datasets"][name], np.random.default_rng(0)
    edge = points.edge(two_d.density(dataset, two_d.sample(dataset, 50_000, stream)))
    noise = 1.5 * stream.standard_normal((20_000, 2))
    on_modes = two_d.density(dataset, noise) >= edge
    shares = points.shares_of_due_mass(dataset, noise, edge)
    assert shares @ two_d.mode_masses(dataset) == pytest.approx(on_modes.mean()) and on_modes.mean() < 0.5
