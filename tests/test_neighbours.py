"""Nearest neighbours: the same by trees as by all distances, on points that are hard for either."""

import itertools
import math

import pytest
import torch

from ddgm import neighbours as search
from ddgm.neighbours import log_distances, neighbours


def by_definition(points, pool, numbers):
    exact = (points.double().unsqueeze(2) - pool.double().unsqueeze(1)).norm(dim=3)
    return exact.sort(2).indices[:, :, numbers]


BY_DISTANCES, BY_TREES = search.MANY - 1, search.MANY


# Not by distances on a line, where less than the rounding of a square lies between points.
@pytest.mark.parametrize(
    ("points", "dimensions"), [(BY_TREES, 1), *itertools.product([BY_DISTANCES, BY_TREES], [2, 3, 10])]
)
def test_they_are_those_that_the_definition_finds(points, dimensions):
    torch.manual_seed(0)
    pool = torch.randn(3, points, dimensions)
    found = neighbours(pool[:, :40], pool, [0, 2, 5])
    assert torch.equal(found, by_definition(pool[:, :40], pool, [0, 2, 5]))
    assert torch.equal(found[:, :, 0], torch.arange(40).expand(3, -1)), "a point in the pool is its own neighbour 0"


def test_each_seed_has_its_own_pool():
    pool = torch.tensor([[[0.0, 0], [1, 0], [5, 0]], [[0, 0], [5, 0], [1, 0]]])
    assert neighbours(pool[:, :1], pool, [1, 2]).tolist() == [[[1, 2]], [[2, 1]]]


def test_a_compiled_program_finds_the_same():
    from ddgm.compiled import compiled

    torch.manual_seed(0)
    x, y = torch.randn(2, BY_TREES, 2), torch.randn(2, BY_TREES, 2)
    program = compiled(lambda points: log_distances(points, points, [1, 3]).mean((1, 2)), x)
    torch.testing.assert_close(program(y), log_distances(y, y, [1, 3]).mean((1, 2)))


@pytest.mark.parametrize("points", [50, BY_TREES])
def test_the_gradient_is_that_of_all_distances(points):
    torch.manual_seed(0)
    x = torch.randn(2, points, 2, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(log_distances(x, x, [3]).sum(), x)
    # No gradient of a point's distance to itself, which is 0 whatever it does.
    apart = (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(3) + torch.eye(points) * 1e-30
    (all_distances,) = torch.autograd.grad(0.5 * apart.sort(2).values[:, :, 3].log().sum(), x)
    torch.testing.assert_close(ours, all_distances)


@pytest.mark.parametrize("points", [8, BY_TREES])
def test_points_in_one_place_are_a_millionth_apart(points):
    x = torch.ones(1, points, 2)
    assert log_distances(x, x, [3]).exp().allclose(torch.tensor(1e-6))


@pytest.mark.parametrize("points", [8, BY_TREES])
def test_points_that_are_no_numbers_stop_no_search(points):
    """A training that has run off is to be stopped by what watches it, which says why."""
    x = torch.full((1, points, 2), math.nan)
    assert log_distances(x, x, [2]).isnan().all()
    x = torch.full((1, points, 2), math.inf)
    assert neighbours(x, x, [2]).max() < points


def test_trees_search_many_points_of_few_dimensions(monkeypatch):
    searched = []
    monkeypatch.setattr(search, "by_trees", lambda points, pool, numbers: searched.append(tuple(pool.shape[1:])))
    for points in (BY_DISTANCES, BY_TREES):
        for dimensions in (2, 3, 4, 784):
            search.neighbours(torch.randn(1, 9, dimensions), torch.randn(1, points, dimensions), [1])
    assert searched == [(BY_TREES, 2), (BY_TREES, 3)]
