"""Evidence along training, in two dimensions: divergences, ranks, entropies, and Eq. 8's gradient beside Eq. 7's."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import xlogy
from torch import Tensor, nn

from ddgm.datasets import two_d
from ddgm.datasets.two_d import BOX
from ddgm.entropy import gaussian_entropy
from ddgm.experiment import describe, load_snapshots
from ddgm.metrics import density
from ddgm.metrics.table import write
from ddgm.objectives import classifier, dual
from ddgm.sampling import draw_samples, energies

Array = density.Array
COLUMNS = ["experiment", "seed", "step", "metric", "value"]


def best_offset(energy_data: Tensor, energy_samples: Tensor) -> float:
    """The constant c for which E + c classifies best: data as σ(-E - c), samples as the rest.

    Eq. 7 does not see a constant in E, and Eq. 8 does. At the best one, data are taken for samples as often as
    samples for data: ∂/∂c of Eq. 8's loss is 0.
    """

    def excess(c: float) -> float:
        return float(torch.sigmoid(energy_data + c).mean() - torch.sigmoid(-energy_samples - c).mean())

    reach = float(torch.cat([energy_data, energy_samples]).abs().max()) + 50
    return float(brentq(excess, -reach, reach))


def gradients(energy: nn.Module, data: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 8's gradient by the weights, unapproximated and at the best offset, and Eq. 7's: (P,) each."""
    offset = best_offset(energies(energy, data).double(), energies(energy, samples).double())
    found = []
    for loss, c in ((classifier.energy_loss, offset), (dual.energy_loss, 0.0)):
        parts = torch.autograd.grad(
            loss(energy(data)[None] + c, energy(samples)[None] + c).sum(), list(energy.parameters())
        )
        found.append(torch.cat([part.flatten() for part in parts]))
    return found[0], found[1]


def agreement(energy: nn.Module, data: Tensor, samples: Tensor) -> dict[str, float]:
    """Of Eq. 8's gradient with Eq. 7's: their cosine, and their lengths' ratio, 1/4 where P(y|x) is ½ everywhere."""
    eq_8, eq_7 = gradients(energy, data, samples)
    return {
        "gradient_cosine": float(torch.cosine_similarity(eq_8.double(), eq_7.double(), dim=0)),
        "gradient_ratio": float(eq_8.norm() / eq_7.norm()),
    }


def entropy(mass: Array) -> float:
    """H(G) in nats of samples in two dimensions: their mass per cell of the square of BOX, (cells, cells)."""
    cell = (2 * BOX) ** 2 / mass.size
    return float(-xlogy(mass, mass / cell).sum())


def entropy_by_eq_15(generator: nn.Module) -> float:
    """What Eq. 15 says of H(G), in nats: the sum over all batch-norm scales, by whatever the generator was trained."""
    scales = [weight.detach().double() for name, weight in generator.named_parameters() if name.endswith(".scale")]
    return sum(float(gaussian_entropy(scale).sum()) for scale in scales)


def divergences(energy: nn.Module, generator_mass: Array, data_mass: Array) -> dict[str, float]:
    """KL between D, T and G on the square of BOX, with one node a cell: coarser than density.py's, to be fast."""
    square = density.Square(data_mass, *density.model_on(energy, BOX, 1e-2), 1, 0.0)
    found = density.distances(square, generator_mass)
    return {name: found[name] for name in ("kl_data_model", "kl_data_generator", "kl_generator_model")}


def measure(
    energy: nn.Module, samples: Tensor, places: dict[str, tuple[Array, Array]], data_mass: Array
) -> dict[str, float]:
    """Every metric of one pair at one step: E, samples of G (n, 2), and the ranked_places of at most n data."""
    mass = density.smoothed(density.cell_counts(samples.double().numpy(), BOX), len(samples))
    points = torch.from_numpy(places["rank_correlation"][0]).float()
    return {
        **divergences(energy, mass, data_mass),
        **density.ranks(energy, places),
        **agreement(energy, points, samples[: len(points)]),
        "energy_sd": float(energies(energy, points).std()),
        "entropy": entropy(mass),
    }


def evaluate(experiment: str, directory: Path, settings: dict[str, Any], dataset: dict[str, Any], target: Path) -> None:
    """Measure every seed at every step whose weights were kept, into one tidy table.

    entropy_error is by how many nats Eq. 15's value has moved otherwise than H(G) since the first of these steps.
    """
    batch = describe(directory)["row"]["schedule"]["batch"]
    data_mass = density.mass(lambda x: two_d.density(dataset, x), BOX, 1)

    @cache
    def places(seed: int) -> dict[str, tuple[Array, Array]]:
        data = two_d.sample(dataset, settings["points"], np.random.default_rng([settings["seed"], seed]))
        return density.ranked_places(data, dataset, settings["seed"])

    rows: list[tuple[Any, ...]] = []
    apart: dict[int, float] = {}
    for seed, step, energy, generator in load_snapshots(directory):
        stream = torch.Generator().manual_seed(settings["seed"])
        samples = draw_samples(generator, settings["samples"], batch, stream)
        found = measure(energy, samples, places(seed), data_mass)
        found["entropy_eq_15"] = entropy_by_eq_15(generator)
        gap = found["entropy_eq_15"] - found["entropy"]
        if seed in apart:
            found["entropy_error"] = abs(gap - apart[seed])
        apart.setdefault(seed, gap)
        rows += [(experiment, seed, step, metric, value) for metric, value in found.items()]
    write(rows, target, COLUMNS)
