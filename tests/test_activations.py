"""How far activations are from normal, where the answer is known."""

import math

import numpy as np
import pytest
import torch

from ddgm.generator import BatchNorm, build_generator
from ddgm.metrics.activations import COUNT, batch_norm_activations, negentropy, normality

GENERATOR = {
    "kind": "dense", "latent": 4, "hidden": [64, 32], "activation": "relu", "output": "none", "noise": 0.0,
    "shift": 0.0, "statistics": "batch", "start": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("draw", "known"),
    [
        ("normal", 0.0),
        ("uniform", 0.5 * math.log(math.pi * math.e / 6)),
        ("laplace", 0.5 * math.log(math.pi / math.e)),
    ],
)
def test_the_negentropy_of_a_known_distribution_whatever_its_mean_and_scale(draw, known):
    values = getattr(np.random.default_rng(0), draw)(size=(COUNT, 4))
    moved = values * [1e-3, 1.0, 7.0, -50.0] + [0.0, 3.0, -90.0, 1.0]
    assert negentropy(moved) == pytest.approx(known, abs=0.015)


def test_activations_are_those_of_every_batch_norm_the_outputs_too():
    generator = build_generator({**GENERATOR, "output": "batch_norm"}, (2,))
    with torch.no_grad():
        for layer in (layer for layer in generator.modules() if isinstance(layer, BatchNorm)):
            layer.scale.fill_(3.0)
            layer.shift.fill_(-1.0)
    values = batch_norm_activations(generator, 100, torch.Generator().manual_seed(0))
    assert values.shape == (COUNT, 64 + 32 + 2)
    assert values.mean(0) == pytest.approx(-1, abs=1e-4) and values.std(0) == pytest.approx(3, rel=1e-3)
    assert not any(layer._forward_hooks for layer in generator.modules()), "nothing is left behind"


def test_sums_of_latents_are_nearly_normal_before_training_and_one_latent_alone_is_uniform():
    torch.manual_seed(0)
    generator = build_generator(GENERATOR, (2,))
    before = normality(generator, 1000, torch.Generator().manual_seed(0))
    assert 0 < before["negentropy"] < 0.05 and before["negentropy"] < before["negentropy_largest"]
    first = next(layer for layer in generator.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        first.weight[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    values = batch_norm_activations(generator, 1000, torch.Generator().manual_seed(0))
    assert negentropy(values[:, :1]) == pytest.approx(0.5 * math.log(math.pi * math.e / 6), abs=0.03)
