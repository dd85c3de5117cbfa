"""The generator's entropy: Eq. 15 and its stand-ins."""

import math

import pytest
import torch

from ddgm.ensemble import Ensemble
from ddgm.entropy import ENTROPIES, batch_norm_mean, batch_norm_sum, nearest_neighbour, none
from ddgm.generator import build_generator

GENERATOR = {
    "kind": "dense", "latent": 4, "hidden": [16, 8], "activation": "relu", "output": "none", "noise": 0.0,
    "shift": 0.0, "start": None,
}  # fmt: skip


def test_eq_15_by_hand():
    scales = torch.tensor([[1.0, 2.0], [0.5, -3.0]])
    by_hand = [sum(0.5 * math.log(2 * math.e * math.pi * s * s) for s in row) for row in scales.tolist()]
    torch.testing.assert_close(batch_norm_sum(scales, torch.zeros(2, 1, 1), {}), torch.tensor(by_hand))
    torch.testing.assert_close(batch_norm_mean(scales, torch.zeros(2, 1, 1), {}), torch.tensor(by_hand) / 2)


@pytest.mark.parametrize("estimator", [batch_norm_sum, batch_norm_mean])
def test_eq_15_reaches_every_batch_norm_scale(estimator):
    generators = Ensemble([build_generator(GENERATOR, (2,)) for _ in range(3)])
    entropy = estimator(generators.scales(), torch.zeros(3, 1, 2), {})
    names = [name for name in generators.parameters if name.endswith(".scale")]
    gradients = torch.autograd.grad(entropy.sum(), [generators.parameters[name] for name in names])
    assert [g.shape for g in gradients] == [(3, 16), (3, 8)]
    assert all((g > 0).all() for g in gradients), "raising a scale raises the entropy"


def test_nearest_neighbour_entropy_of_known_distributions():
    torch.manual_seed(0)
    row = {"neighbours": 3, "dimensions": 2}
    gauss, square = torch.randn(1, 4000, 2), torch.rand(1, 4000, 2) * 3
    entropy = nearest_neighbour(torch.zeros(1, 0), torch.cat([gauss, square]), row)
    assert entropy[0].item() == pytest.approx(math.log(2 * math.pi * math.e), abs=0.06)
    assert entropy[1].item() == pytest.approx(math.log(9), abs=0.06)


def test_nearest_neighbour_entropy_pushes_samples_apart():
    torch.manual_seed(0)
    x = torch.randn(1, 64, 2, requires_grad=True)
    entropy = nearest_neighbour(torch.zeros(1, 0), x, {"neighbours": 1, "dimensions": 2})
    (gradient,) = torch.autograd.grad(entropy.sum(), x)
    further = nearest_neighbour(torch.zeros(1, 0), x + 0.01 * gradient, {"neighbours": 1, "dimensions": 2})
    assert further > entropy


def test_equal_samples_have_a_finite_entropy():
    x = torch.ones(1, 16, 2, requires_grad=True)
    entropy = nearest_neighbour(torch.zeros(1, 0), x, {"neighbours": 3, "dimensions": 2})
    (gradient,) = torch.autograd.grad(entropy.sum(), x)
    assert torch.isfinite(entropy).all() and torch.isfinite(gradient).all()


def test_no_entropy_is_zero_and_every_estimator_has_the_name_of_params_yaml():
    assert none(torch.zeros(2, 3), torch.randn(2, 4, 2), {}).tolist() == [0.0, 0.0]
    assert set(ENTROPIES) == {"batch_norm_sum", "batch_norm_mean", "nearest_neighbour", "none"}
