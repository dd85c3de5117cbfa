"""The generator's entropy: Eq. 15 and its stand-ins."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import xlogy

from ddgm.ensemble import Ensemble
from ddgm.entropy import ENTROPIES, Draw, batch_norm_mean, batch_norm_sum, nearest_neighbour, none, variational
from ddgm.generator import BatchNorm, build_generator

GENERATOR = {
    "kind": "dense", "latent": 4, "hidden": [16, 8], "activation": "relu", "output": "none", "noise": 0.0,
    "shift": 0.0, "statistics": "batch", "start": None,
}  # fmt: skip


def drawn(samples=None, scales=None):
    """What a generator has drawn, of which a test needs a part."""
    samples = torch.zeros(2, 1, 1) if samples is None else samples
    scales = torch.zeros(len(samples), 0) if scales is None else scales
    return Draw(scales, samples, torch.zeros(0), lambda z: z)


def test_eq_15_by_hand():
    scales = torch.tensor([[1.0, 2.0], [0.5, -3.0]])
    by_hand = [sum(0.5 * math.log(2 * math.e * math.pi * s * s) for s in row) for row in scales.tolist()]
    torch.testing.assert_close(batch_norm_sum(drawn(scales=scales), {}), torch.tensor(by_hand))
    torch.testing.assert_close(batch_norm_mean(drawn(scales=scales), {}), torch.tensor(by_hand) / 2)


@pytest.mark.parametrize("estimator", [batch_norm_sum, batch_norm_mean])
def test_eq_15_reaches_every_batch_norm_scale(estimator):
    generators = Ensemble([build_generator(GENERATOR, (2,)) for _ in range(3)])
    entropy = estimator(drawn(scales=generators.scales()), {})
    names = [name for name in generators.parameters if name.endswith(".scale")]
    gradients = torch.autograd.grad(entropy.sum(), [generators.parameters[name] for name in names])
    assert [g.shape for g in gradients] == [(3, 16), (3, 8)]
    assert all((g > 0).all() for g in gradients), "raising a scale raises the entropy"


def test_with_batch_norm_on_the_outputs_eq_15_knows_what_their_scale_does_to_the_entropy():
    torch.manual_seed(0)
    generator = build_generator({**GENERATOR, "output": "batch_norm"}, (2,))
    z = 2 * torch.rand(2000, 4) - 1

    def entropies():
        scales = torch.cat([value for name, value in generator.named_parameters() if name.endswith(".scale")])
        samples = generator(z).detach().unsqueeze(0)
        measured = nearest_neighbour(drawn(samples), {"neighbours": 3, "dimensions": 2})
        return batch_norm_sum(drawn(scales=scales.unsqueeze(0)), {}).item(), measured.item()

    before = entropies()
    hidden, outputs = [layer for layer in generator.net if isinstance(layer, BatchNorm)][1:]
    assert len(outputs.scale) == 2
    with torch.no_grad():
        outputs.scale *= 3
    said, measured = (after - start for after, start in zip(entropies(), before, strict=True))
    assert said == pytest.approx(2 * math.log(3), abs=1e-4) and measured == pytest.approx(2 * math.log(3), abs=1e-3)
    with torch.no_grad():
        outputs.scale /= 3
        hidden.scale *= 3
    said, measured = (after - start for after, start in zip(entropies(), before, strict=True))
    assert said == pytest.approx(8 * math.log(3), abs=1e-4), "of the hidden scales Eq. 15 is mistaken"
    assert measured == pytest.approx(0, abs=1e-3)


def test_nearest_neighbour_entropy_of_known_distributions():
    torch.manual_seed(0)
    row = {"neighbours": 3, "dimensions": 2}
    gauss, square = torch.randn(1, 4000, 2), torch.rand(1, 4000, 2) * 3
    entropy = nearest_neighbour(drawn(torch.cat([gauss, square])), row)
    assert entropy[0].item() == pytest.approx(math.log(2 * math.pi * math.e), abs=0.06)
    assert entropy[1].item() == pytest.approx(math.log(9), abs=0.06)


def test_nearest_neighbour_entropy_pushes_samples_apart():
    torch.manual_seed(0)
    x = torch.randn(1, 64, 2, requires_grad=True)
    entropy = nearest_neighbour(drawn(x), {"neighbours": 1, "dimensions": 2})
    (gradient,) = torch.autograd.grad(entropy.sum(), x)
    further = nearest_neighbour(drawn(x + 0.01 * gradient), {"neighbours": 1, "dimensions": 2})
    assert further > entropy


def test_of_several_neighbours_it_is_the_mean_and_its_gradient_is_steadier():
    torch.manual_seed(0)
    batches = torch.randn(40, 256, 2)
    # The same 20 points among others in every batch.
    batches[:, :20] = batches[0, :20]

    def measured(numbers):
        x = batches.clone().requires_grad_()
        entropy = nearest_neighbour(drawn(x), {"neighbours": numbers, "dimensions": 2})
        return entropy.detach(), torch.autograd.grad(entropy.sum(), x)[0][:, :20]

    single = torch.stack([measured(k)[0] for k in (2, 3, 4, 5, 6)])
    several, steady = measured([2, 3, 4, 5, 6])
    torch.testing.assert_close(several, single.mean(0))
    torch.testing.assert_close(measured([4])[0], measured(4)[0])
    assert steady.std(0).norm() < 0.7 * measured(4)[1].std(0).norm()


def test_neighbours_are_found_in_a_batch_that_has_drawn_together_far_from_the_middle():
    """A scale of 1e-3 takes 2 log 1e-3 from the entropy in two dimensions, wherever the batch lies."""
    torch.manual_seed(0)
    x = torch.randn(1, 256, 2)
    row = {"dimensions": 2, "neighbours": 3}
    wide, narrow = (nearest_neighbour(drawn(samples=s), row).item() for s in (x, 2 + 1e-3 * x))
    assert narrow == pytest.approx(wide + 2 * math.log(1e-3), abs=0.01)


def test_equal_samples_have_a_finite_entropy():
    x = torch.ones(1, 16, 2, requires_grad=True)
    entropy = nearest_neighbour(drawn(x), {"neighbours": 3, "dimensions": 2})
    (gradient,) = torch.autograd.grad(entropy.sum(), x)
    assert torch.isfinite(entropy).all() and torch.isfinite(gradient).all()


def test_no_entropy_is_zero_and_every_estimator_has_the_name_of_params_yaml():
    assert none(drawn(torch.randn(2, 4, 2)), {}).tolist() == [0.0, 0.0]
    assert set(ENTROPIES) == {"batch_norm_sum", "batch_norm_mean", "nearest_neighbour", "variational", "none"}


class Stretch:
    """x = A z in two dimensions: a uniform density over a parallelogram, whose entropy is known."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, z):
        return z @ self.matrix.T


def stretched(matrix, n=20000):
    z = torch.rand(1, n, 2) * 2 - 1
    generate = Stretch(matrix)
    return Draw(torch.zeros(1, 0), generate(z), z, generate)


VARIATIONAL = {"sd": 0.05, "width": 0.1, "proposals": 50}


def test_variational_entropy_of_a_known_distribution():
    torch.manual_seed(0)
    matrix = torch.tensor([[1.0, 0.5], [0.0, 1.5]])
    entropy = variational(stretched(matrix), VARIATIONAL)
    side, cells = 0.01, 800
    axis = (np.arange(cells) + 0.5) * side - 4
    x = np.stack(np.meshgrid(axis, axis), 2)
    inside = (np.abs(x @ np.linalg.inv(matrix.numpy()).T) <= 1).all(2) / 6
    blurred = gaussian_filter(inside, VARIATIONAL["sd"] / side)
    assert entropy.item() == pytest.approx(-np.sum(xlogy(blurred, blurred)) * side**2, abs=0.03)


def test_variational_entropys_gradient_is_that_of_log_det():
    """∂H/∂A = A^-T for the uniform density over a parallelogram, whatever the estimate itself."""
    torch.manual_seed(0)
    matrix = torch.tensor([[1.0, 0.5], [0.0, 1.5]], requires_grad=True)
    entropy = variational(stretched(matrix, 60000), VARIATIONAL)
    (gradient,) = torch.autograd.grad(entropy.sum(), matrix)
    torch.testing.assert_close(gradient, torch.linalg.inv(matrix.detach()).T, atol=0.1, rtol=0.1)
