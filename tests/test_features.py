"""Distances, overlap, neighbours, sharpness and balance, where the answer is known."""

import math

import pytest
import torch
from torch.nn import functional as F

from ddgm.errors import UserError
from ddgm.metrics import features

OVERLAP = ("precision", "recall", "density", "coverage")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whitened(n, d, seed=0):
    """Points (n, d) whose mean is 0 and whose covariance is the identity, exactly."""
    x = normal(n, d, seed=seed).double()
    x -= x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T


def test_the_frechet_distance_of_a_shift_is_its_squared_length():
    x = normal(500, 8)
    shift = torch.zeros(8)
    shift[:2] = torch.tensor([3.0, 4.0])
    assert features.frechet_distance(x, x + shift) == pytest.approx(25, rel=1e-5)
    assert features.frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_covariances_that_commute_is_that_of_their_roots():
    """Σ (s - t)² for standard deviations s and t along the same axes."""
    s, t = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 2, 0.5])
    x, y = whitened(100, 3) * s, whitened(200, 3, seed=1) * t
    assert features.frechet_distance(x, y) == pytest.approx(float((s - t).square().sum()))


def test_the_frechet_distance_of_covariances_that_do_not_commute():
    """In two dimensions tr (Cx Cy)^½ = √(tr Cx Cy + 2 √det Cx Cy), by Cayley and Hamilton."""
    a, b = torch.tensor([[2.0, 0], [1, 1]]).double(), torch.tensor([[1.0, -1], [0, 3]]).double()
    x, y = whitened(100, 2) @ a.T, whitened(100, 2, seed=1) @ b.T
    cov_x, cov_y = a @ a.T, b @ b.T
    product = cov_x @ cov_y
    shared = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    known = float(cov_x.trace() + cov_y.trace()) - 2 * shared
    assert features.frechet_distance(x, y) == pytest.approx(known)
    assert features.frechet_distance(y, x) == pytest.approx(known)


def test_the_frechet_distance_of_singular_covariances():
    """Orthogonal planes share nothing, a plane and itself all; a single point has no variance at all."""
    x = whitened(200, 4)
    first, last = x * torch.tensor([1.0, 1, 0, 0]), x * torch.tensor([0.0, 0, 1, 1])
    assert features.frechet_distance(first, last) == pytest.approx(4)
    assert features.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert features.frechet_distance(x, torch.zeros(5, 4)) == pytest.approx(4)


@pytest.mark.parametrize("sizes", [(8, 100), (100, 8)])
def test_the_frechet_distance_wants_more_points_than_dimensions(sizes):
    with pytest.raises(UserError, match="in 8 dimensions was given a set of 8 points: draw 9 or more"):
        features.frechet_distance(*(normal(n, 8) for n in sizes))
    features.frechet_distance(normal(9, 8), normal(9, 8, seed=1))


@pytest.mark.parametrize("block", [2**24, 40])
def test_the_kernel_distance_is_that_of_a_double_loop(monkeypatch, block):
    monkeypatch.setattr(features, "BLOCK", block)
    x, y = normal(13, 3), 2 * normal(17, 3, seed=1) + 1

    def mean(a, b, same):
        values = [
            (float(p.double() @ q.double()) / 3 + 1) ** 3
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not same or i != j
        ]
        return sum(values) / len(values)

    known = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert features.kernel_distance(x, y) == pytest.approx(known, rel=1e-10)


def test_the_kernel_distance_is_unbiased():
    """Of one distribution it is 0 on average, and below 0 about as often as not."""
    found = torch.tensor(
        [features.kernel_distance(normal(50, 4, seed=i), normal(50, 4, seed=1000 + i)) for i in range(400)]
    )
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(found))
    assert 0.3 < (found < 0).double().mean() < 0.8


def test_the_kernel_distance_of_means_apart():
    """Points at 0 and points at 1 in one dimension: k(0, 0) + k(1, 1) - 2 k(0, 1) = 1 + 8 - 2."""
    assert features.kernel_distance(torch.zeros(5, 1), torch.ones(7, 1)) == pytest.approx(7)


def test_identical_sets_overlap_fully():
    x = normal(300, 16)
    found = features.manifold_overlap(x, x.flip(0), 5)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_sets_far_apart_do_not_overlap():
    found = features.manifold_overlap(normal(300, 16), normal(300, 16, seed=1) + 100, 5)
    assert found == dict.fromkeys(OVERLAP, 0)


def test_two_sets_of_one_distribution_have_density_1_and_coverage_of_all_but_2_to_the_minus_k():
    found = features.manifold_overlap(normal(3000, 2), normal(3000, 2, seed=1), 3)
    assert found["density"] == pytest.approx(1, abs=0.05)
    assert found["coverage"] == pytest.approx(1 - 2**-3, abs=0.02)


def test_a_generator_of_one_cluster_of_two_is_precise_and_recalls_half():
    """Its cluster is twice as dense as the real one: half of the real balls hold 2 k points each, so density is 1."""
    real = torch.cat([normal(500, 2), normal(500, 2, seed=1) + 100])
    found = features.manifold_overlap(real, normal(1000, 2, seed=2), 5)
    assert found["precision"] == pytest.approx(1, abs=0.05)
    assert found["recall"] == pytest.approx(0.5, abs=0.05)
    assert found["density"] == pytest.approx(1, abs=0.1)
    assert found["coverage"] == pytest.approx(0.5, abs=0.02)


def test_the_overlap_is_that_of_the_definitions_in_any_number_of_blocks(monkeypatch):
    real, generated, k = normal(40, 3), normal(30, 3, seed=1) + 0.5, 4
    between = torch.cdist(generated.double(), real.double(), compute_mode="donot_use_mm_for_euclid_dist")

    def radii(x):
        return torch.stack([(x - point).double().norm(dim=1).sort().values[k] for point in x])

    in_real, in_generated = between <= radii(real), between <= radii(generated)[:, None]
    known = {
        "precision": in_real.any(1).double().mean(),
        "recall": in_generated.any(0).double().mean(),
        "density": in_real.sum() / (k * 30),
        "coverage": in_real.any(0).double().mean(),
    }
    for block in (2**24, 7 * 40, 1):
        monkeypatch.setattr(features, "BLOCK", block)
        assert features.manifold_overlap(real, generated, k) == pytest.approx({n: float(v) for n, v in known.items()})


@pytest.mark.parametrize("neighbours", [0, 6])
def test_as_many_neighbours_as_points_are_a_users_mistake(neighbours):
    with pytest.raises(UserError, match=f"among 6 has no neighbour number {neighbours}: allowed are 1 to 5"):
        features.manifold_overlap(normal(9, 2), normal(6, 2), neighbours)


@pytest.mark.parametrize("block", [2**24, 7 * 500, 1])
def test_the_nearest_is_that_of_brute_force_in_any_number_of_blocks(monkeypatch, block):
    monkeypatch.setattr(features, "BLOCK", block)
    x, pool = normal(60, 20), normal(500, 20, seed=1)
    known = torch.stack([(pool - point).norm(dim=1) for point in x]).min(1)
    distances, rows = features.nearest(x, pool)
    torch.testing.assert_close(distances, known.values)
    assert rows.tolist() == known.indices.tolist()


def test_a_copy_is_at_distance_0_and_is_found_far_from_the_origin():
    pool = normal(500, 20) + 10_000
    distances, rows = features.nearest(pool[100:200], pool)
    assert (distances == 0).all() and rows.tolist() == list(range(100, 200))


def test_sharpness_falls_with_blur_and_ignores_brightness():
    images = normal(20, 1, 28, 28)
    once = F.avg_pool2d(images, 3, 1, 1)
    sharp = [features.sharpness(x) for x in (images, once, F.avg_pool2d(once, 3, 1, 1))]
    assert sharp[0] > sharp[1] > sharp[2] > 0
    assert features.sharpness(images + 5) == pytest.approx(sharp[0], rel=1e-4)
    assert features.sharpness(2 * images) == pytest.approx(4 * sharp[0])


def test_sharpness_is_0_without_curvature_and_20_for_white_noise():
    """The Laplacian adds 4² + 4 · 1² = 20 independent variances; of a ramp it is 0."""
    ramp = torch.arange(28.0).expand(3, 1, 28, 28)
    assert features.sharpness(ramp) == 0
    assert features.sharpness(normal(500, 1, 28, 28)) == pytest.approx(20, rel=0.03)


def test_even_classes_are_0_nats_from_uniform_and_one_class_log_n():
    even = features.class_balance(torch.arange(10).repeat(7), 10)
    assert even == pytest.approx({"kl_to_uniform": 0, "classes_found": 10})
    one = features.class_balance(torch.full((50,), 3), 10)
    assert one == pytest.approx({"kl_to_uniform": math.log(10), "classes_found": 1})


def test_half_of_the_classes_are_log_2_from_uniform():
    half = features.class_balance(torch.arange(5).repeat(4), 10)
    assert half == pytest.approx({"kl_to_uniform": math.log(2), "classes_found": 5})


def test_a_class_is_found_from_a_tenth_of_its_share():
    """Of 1000 images in 10 classes one is due 100: 10 suffice, 9 do not."""
    counts = torch.tensor([10, 9, 0, 141, 140, 140, 140, 140, 140, 140])
    assert counts.sum() == 1000
    assert features.class_balance(torch.arange(10).repeat_interleave(counts), 10)["classes_found"] == 8
