"""The 2D sets' exact densities, and the distances measured with them, where the answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ddgm.datasets import two_d
from ddgm.datasets.drawn_points import prepare
from ddgm.errors import UserError
from ddgm.metrics import density
from ddgm.sampling import grid
from ddgm.training import train

SETS = ["four_spin", "two_spiral"]


@pytest.fixture(params=SETS)
def dataset(request, parameters):
    return parameters["datasets"][request.param]


def exact_mass(dataset):
    """The function that gives D's mass at nodes, as `settle` takes it."""
    return lambda half_width, inner: density.mass(lambda x: two_d.density(dataset, x), half_width, inner)


def test_a_sets_density_integrates_to_one(dataset):
    _, points = grid(3.0, 300)
    assert two_d.density(dataset, points).sum() * (6 / 300) ** 2 == pytest.approx(1, abs=1e-4)


def test_a_sets_density_is_that_of_its_points(dataset):
    """χ² of 400,000 points in 40x40 cells against the density's mass there: 1 a cell if they agree."""
    n, cells = 400_000, 40
    points = two_d.sample(dataset, n, np.random.default_rng(0))
    edges = np.linspace(-3, 3, cells + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])
    mass = exact_mass(dataset)(3.0, 2).reshape(cells, 10, cells, 10).sum((1, 3))
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


def test_four_spins_modes_are_its_arms(parameters):
    """The middle of arm k, a = 1 and b = 0, stands at the angle k · 90° + twist · e."""
    dataset = parameters["datasets"]["four_spin"]
    angle = np.arange(4) * np.pi / 2 + dataset["twist"] * np.e
    assert two_d.mode(dataset, np.stack([np.cos(angle), np.sin(angle)], 1)).tolist() == [0, 1, 2, 3]


def test_two_spirals_modes_are_eight_parts_of_each(parameters):
    dataset = parameters["datasets"]["two_spiral"]
    found = two_d.mode(dataset, two_d.spiral_centres(dataset) / dataset["scale"])
    assert (np.diff(found) >= 0).all(), "along a spiral parts follow each other"
    np.testing.assert_allclose(np.bincount(found) / 200, two_d.mode_masses(dataset), atol=0.01)


def test_modes_share_the_density_and_the_data(dataset):
    points = two_d.sample(dataset, 100_000, np.random.default_rng(0))
    masses = two_d.mode_masses(dataset)
    assert masses.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(two_d.mode(dataset, points)) / 100_000, masses, rtol=0.06)
    assert two_d.mode(dataset, np.full((1, 2), 100.0)).tolist() == [-1], "far away there is no mode"


def test_splits_are_different_points_of_one_set(dataset, tmp_path):
    for split in ("train", "test"):
        prepare(dataset, tmp_path, split, tmp_path / f"{split}.npy")
    train, test = np.load(tmp_path / "train.npy"), np.load(tmp_path / "test.npy")
    assert train.shape == test.shape == (10000, 2) and train.dtype == np.float32
    assert not (train == test).any()
    with pytest.raises(UserError, match="has no split 'val': allowed are train, test"):
        prepare(dataset, tmp_path, "val", tmp_path / "val.npy")


def test_points_that_would_lie_outside_what_is_measured_are_refused(dataset, tmp_path):
    sentence = rf"^with the scale 0\.25 \d+\.\d% of {dataset['kind']}'s points lie outside .*: write a larger scale"
    with pytest.raises(UserError, match=sentence):
        prepare({**dataset, "scale": 0.25}, tmp_path, "train", tmp_path / "train.npy")
    assert not (tmp_path / "train.npy").exists()


class Gaussian(nn.Module):
    """E(x) of N(0, sd² I)."""

    def __init__(self, sd):
        super().__init__()
        self.sd = sd

    def forward(self, x):
        return x.square().sum(1) / (2 * self.sd**2)


def gaussian(sd, mean=(0.0, 0.0)):
    return lambda x: two_d.normal(x - np.array(mean), sd).prod(1)


def gaussian_mass(sd, half_width=6.0):
    return density.mass(gaussian(sd), half_width, 1)


def test_log_partition_of_a_gaussian():
    """sd 20 stands for a box that must grow thirtyfold."""
    for sd in (0.3, 1.0, 3.0, 20.0):
        assert density.model_on(Gaussian(sd), 3.0, 1e-4).log_z == pytest.approx(math.log(2 * math.pi * sd**2), abs=1e-3)


def test_a_gaussian_of_the_datas_variance_scores_what_the_docs_say(dataset):
    """docs/claims.md and docs/method.md have this yardstick: an energy that knows nothing but where the data lie."""
    points = two_d.sample(dataset, 200_000, np.random.default_rng(0))
    energy = Gaussian(float(np.sqrt(points.var(0).mean())))
    square = density.settle(energy, exact_mass(dataset), 3.0, 1e-4, 1e-3)
    ranks = density.ranks(energy, density.ranked_places(points[:20_000], dataset, 0))
    divergence, far = {"four_spin": (1.81, 0.87), "two_spiral": (0.78, 0.91)}[dataset["kind"]]
    assert density.kl_divergence(square.data, square.log_model) == pytest.approx(divergence, abs=0.01)
    assert ranks["rank_correlation_far"] == pytest.approx(far, abs=0.01)


def test_what_is_added_to_an_energy_is_taken_from_log_z():
    class Shifted(Gaussian):
        def forward(self, x):
            return super().forward(x) + 500

    assert density.model_on(Shifted(1.0), 3.0, 1e-3).log_z == pytest.approx(math.log(2 * math.pi) - 500, abs=2e-3)


def test_a_model_beside_the_box_is_found():
    class Aside(Gaussian):
        def forward(self, x):
            return super().forward(x - torch.tensor([9.0, 0.0]))

    assert density.model_on(Aside(0.5), 3.0, 1e-3).log_z == pytest.approx(math.log(2 * math.pi * 0.25), abs=2e-3)


def test_distances_between_gaussians_are_the_known_ones():
    p, q = gaussian_mass(1.0), gaussian_mass(1.5)
    known = 2 * (math.log(1.5) + 1 / (2 * 1.5**2) - 0.5)
    assert density.kl_divergence(p, np.log(q)) == pytest.approx(known, abs=1e-3)
    # TV of two centred Gaussians in the plane: the mass that each has inside the circle where they are equal.
    r2 = 2 * 2 * math.log(1.5) / (1 - 1 / 1.5**2)
    assert density.total_variation(p, q) == pytest.approx(math.exp(-r2 / 4.5) - math.exp(-r2 / 2), abs=1e-3)
    assert density.kl_divergence(p, np.log(p)) == 0 and density.total_variation(p, p) == 0


def test_total_variation_counts_mass_outside_the_grid():
    p = np.full((4, 4), 1 / 16)
    assert density.total_variation(p, p / 2) == pytest.approx(0.5)


def settle(energy, data_density, half_width=3.0):
    """KL(D‖T) of Gaussians, and the nodes a cell at which it stood still."""
    square = density.settle(energy, lambda w, inner: density.mass(data_density, w, inner), half_width, 1e-3, 1e-2)
    return density.kl_divergence(square.data, square.log_model), square.inner


def kl_of_gaussians(p, q):
    """KL(N(0, p² I) ‖ N(0, q² I)) in the plane."""
    return 2 * math.log(q / p) + (p / q) ** 2 - 1


def test_a_smooth_energy_needs_one_doubling():
    kl, inner = settle(Gaussian(0.7), gaussian(0.5))
    assert kl == pytest.approx(kl_of_gaussians(0.5, 0.7), abs=1e-3) and inner == 2


def test_a_wide_model_is_measured_beyond_the_box():
    kl, _ = settle(Gaussian(10.0), gaussian(0.5))
    assert kl == pytest.approx(kl_of_gaussians(0.5, 10.0), abs=2e-3)


def test_nodes_are_doubled_for_an_energy_that_slips_between_the_first_ones():
    """sd 0.01 between nodes 0.03 apart: the first Z, and so KL, is wrong by more than a tenth of a nat."""
    kl, inner = settle(Gaussian(0.01), gaussian(0.5))
    assert inner == 4
    assert kl == pytest.approx(kl_of_gaussians(0.5, 0.01), abs=1e-2)


def test_an_energy_too_sharp_to_integrate_says_what_is_left_to_change(monkeypatch):
    monkeypatch.setattr(density, "FINEST", 800)
    data = lambda w, inner: density.mass(gaussian(0.5), w, inner)  # noqa: E731
    assert density.settle(Gaussian(1e-3), data, 3.0, 1e-3, 1e-2).change > 0.01
    assert density.settle(Gaussian(0.5), data, 3.0, 1e-3, 1e-2).change < 0.01


def test_a_model_without_an_integral_is_infinitely_far_from_the_data():
    class Flat(nn.Module):
        def forward(self, x):
            return 0 * x.sum(1)

    data = density.mass(gaussian(0.5), 3.0, 1)
    square = density.settle(Flat(), lambda w, inner: density.mass(gaussian(0.5), w, inner), 3.0, 1e-3, 1e-2)
    found = density.distances(square, data / data.sum())
    assert found["kl_data_model"] == found["kl_generator_model"] == found["log_partition"] == math.inf
    assert found["tv_data_model"] == pytest.approx(1, abs=1e-3)
    # log Z grows with the square's area and nothing else: each is 1.5 times as wide as the one before.
    parts, _ = density.log_parts(Flat(), density.log_masses(Flat(), 3.0, 1), 3.0, 1e-3)
    within = np.logaddexp.accumulate(list(parts.values()))
    np.testing.assert_allclose(np.diff(within), 2 * math.log(1.5), atol=0.01)
    assert 1.5 * max(parts) > density.FARTHEST


def test_an_energy_is_integrable_within_the_square_that_holds_its_mass():
    """N(0, sd²) has less than a thousandth outside [-4 sd, 4 sd]²: squares have half sides 3, 4.5, 6.75, ..."""
    assert [density.integrable_within(Gaussian(sd), 1e-3) for sd in (0.5, 1.0, 1.5)] == [3.0, 4.5, 6.75]
    assert density.integrable_within(lambda x: 0 * x.sum(1), 1e-3) == math.inf


def test_an_energy_that_rises_at_first_and_is_flat_beyond_is_not_integrable():
    """12 nats above its lowest place, the plane outside holds more than the well from half a side of 126 on."""

    def plateau(x):
        return (8 * x.square().sum(1)).clamp(max=12.0)

    assert density.integrable_within(plateau, 1e-3) == math.inf
    assert density.model_on(plateau, 3.0, 1e-3).log_z == math.inf


def kl_with_a_share_inside(energy, half_width, inside, n=200_000, sd=0.5):
    """KL(G‖T) where a share `inside` of G is T's own samples and the rest far outside the square."""
    samples = sd * np.random.default_rng(0).standard_normal((n, 2))
    samples[round(inside * n) :] = 20.0
    square = density.settle(energy, lambda w, inner: density.mass(gaussian(sd), w, inner), half_width, 1e-3, 1e-2)
    counts = density.cell_counts(samples, half_width)
    return density.distances(square, density.smoothed(counts, n))["kl_generator_model"]


def test_no_generator_comes_closer_to_the_model_by_leaving_the_square():
    """A half of G where T has e^-72 of its mass or less costs some 36 nats."""
    near, half, none = (kl_with_a_share_inside(Gaussian(0.5), 6.0, share) for share in (1.0, 0.5, 0.0))
    assert 0 <= near < 0.02 and half > 30 and none > 60


def test_the_histogram_of_a_mixture_has_the_known_divergence():
    """Two Gaussians far apart, in shares ½ and ½ in D and ¼ and ¾ in G: KL = ½ log 2 + ½ log ⅔, TV = ¼."""
    n, stream = 400_000, np.random.default_rng(0)
    right = np.where(stream.random(n) < 0.75, 1.5, -1.5)
    samples = 0.3 * stream.standard_normal((n, 2)) + np.stack([right, np.zeros(n)], 1)

    def halves(x):
        return (gaussian(0.3, (1.5, 0.0))(x) + gaussian(0.3, (-1.5, 0.0))(x)) / 2

    estimated = density.smoothed(density.cell_counts(samples, 3.0), n)
    data = density.mass(halves, 3.0, 1)
    known = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert density.kl_divergence(data, np.log(estimated)) == pytest.approx(known, abs=0.01)
    assert density.total_variation(data, estimated) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("branch", "bound"), [("paper", 0.005), ("toy", 0.02)])
def test_an_exact_sampler_scores_near_nothing(branch, bound, dataset, parameters):
    n = parameters["branches"][branch]["evaluation"]["samples"]
    counts = density.cell_counts(two_d.sample(dataset, n, np.random.default_rng(3)), 3.0)
    data = exact_mass(dataset)(3.0, 2).reshape(200, 2, 200, 2).sum((1, 3))
    estimated = density.smoothed(counts, n)
    assert 0 < density.kl_divergence(data, np.log(estimated)) < bound
    assert density.total_variation(data, estimated) < math.sqrt(2 * bound) / 2


def test_the_square_grows_to_hold_samples_and_has_an_end():
    inside = np.ones((100, 2))
    assert [density.square_around(inside * reach) for reach in (1.0, 2.99, 4.0, 6.0, 1e9)] == [3, 3, 4.5, 6.75, 10.125]
    assert density.square_around(inside, 4 * inside) == 4.5


SETTINGS = {"seed": 1, "samples": 200_000, "tolerance": 1e-3, "resolution": 1e-2, "points": 20_000, "transport": 500}


def measured(energy, samples, dataset):
    """All metrics of given samples, as though a generator had drawn them in parts."""
    data = two_d.sample(dataset, SETTINGS["points"], np.random.default_rng(8))
    parts = iter(np.array_split(samples, 10))
    return density.measure(energy, parts, data, dataset, SETTINGS, exact_mass(dataset))


class Exact(nn.Module):
    """-log p_D, with a faint bowl where D has nothing."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def forward(self, x):
        tail = x.square().sum(1).double() * 1e-3
        return torch.from_numpy(-np.log(two_d.density(self.dataset, x.detach().numpy()) + 1e-12)) + tail


def test_a_pair_that_is_exact_and_one_that_is_not_are_told_apart(parameters):
    """The data's own density as the energy, and its own points as samples, then a Gaussian for both."""
    dataset = parameters["datasets"]["two_spiral"]
    exact = measured(Exact(dataset), two_d.sample(dataset, 200_000, np.random.default_rng(3)), dataset)
    wrong = measured(Gaussian(1.0), np.random.default_rng(4).standard_normal((200_000, 2)), dataset)
    for metric in ("kl_data_model", "kl_data_generator", "kl_generator_model"):
        assert exact[metric] < 0.03, metric
    assert wrong["kl_data_model"] > 0.3 and wrong["kl_data_generator"] > 0.3 and wrong["kl_generator_model"] < 0.03
    assert exact["modes_covered"] == 1 and exact["mode_share_smallest"] > 0.9
    assert exact["inside_99"] == pytest.approx(0.99, abs=0.005) and wrong["inside_99"] < 0.9
    assert exact["rank_correlation"] > 0.99 and exact["rank_correlation_near"] > 0.99
    assert wrong["rank_correlation"] < 0.7
    assert exact["wasserstein2"] == pytest.approx(exact["wasserstein2_floor"], abs=0.1)
    assert exact["sliced_wasserstein2"] < 0.03 < wrong["sliced_wasserstein2"]


def test_a_generator_that_fell_into_one_arm_covers_a_quarter_of_the_modes(parameters):
    dataset = parameters["datasets"]["four_spin"]
    samples = two_d.sample(dataset, 200_000, np.random.default_rng(3))
    one_arm = samples[two_d.mode(dataset, samples) == 2]
    found = measured(Gaussian(1.0), one_arm, dataset)
    assert (found["modes_covered"], found["mode_share_smallest"]) == (0.25, 0)
    assert found["inside_99"] == pytest.approx(0.99, abs=0.005), "and still all samples look like data"
    assert found["tv_data_generator"] == pytest.approx(0.75, abs=0.02)
    assert found["wasserstein2"] > 1 > found["wasserstein2_floor"]


def test_every_metric_of_every_seed_is_a_row(planar_row, planar_data, parameters, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    train("points", planar_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "points.pt")
    settings = {**SETTINGS, "samples": 4000, "points": 1000, "transport": 50}
    dataset = parameters["datasets"]["two_spiral"]
    for table in ("once.csv", "again.csv"):
        density.evaluate("points", tmp_path / "model", settings, dataset, tmp_path / table)
    rows = pd.read_csv(tmp_path / "once.csv")
    assert rows["value"].notna().all() and (rows.groupby("metric")["seed"].nunique() == 2).all()
    assert {"kl_data_model", "integrable_within", "rank_correlation_far"} <= set(rows["metric"])
    assert (tmp_path / "once.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
