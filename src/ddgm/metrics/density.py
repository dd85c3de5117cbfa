"""Evidence in two dimensions, where nothing needs to be judged by eye: D the data, T the energy model, G the generator.

D's density is known, T's needs a partition function that quadrature gives, and G's is a smoothed histogram of many
samples. All distances are in nats, or shares of mass (total variation).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from torch import nn

from ddgm.datasets import two_d
from ddgm.errors import UserError
from ddgm.experiment import describe, load
from ddgm.metrics.table import write
from ddgm.sampling import draw_samples, energies, grid

Array = NDArray[np.float64]
CELL = 0.03
SMOOTHING_CELLS = 0.7
FLOOR = 1e-6


def log_partition(energy: nn.Module, half_width: float, tolerance: float, largest: float = 200.0) -> float:
    """log Z = log ∫ exp(-E(x)) dx by quadrature on a square that grows until Z changes by less than `tolerance`.

    Cells are CELL wide on the first square and double in width with it once it holds 2000 a side. Raises UserError
    when the square reaches `largest` and Z still grows: then exp(-E) has no finite integral that one could see.
    """
    before, side = None, 2 * half_width
    while side / 2 <= largest:
        cells = min(2000, round(side / CELL))
        _, points = grid(side / 2, cells)
        log_z = float(logsumexp(-energies(energy, torch.from_numpy(points).float()).double().numpy()))
        log_z += 2 * np.log(side / cells)
        if before is not None and abs(np.expm1(before - log_z)) < tolerance:
            return log_z
        before, side = log_z, side * 1.5
    raise UserError(
        f"Z of this energy still changes at a box of {largest:g} a side's half: exp(-E) has no finite integral "
        f"(energy.quadratic none, or features without a bound)"
    )


def histogram_density(samples: Array, half_width: float, cells: int) -> Array:
    """A smoothed histogram as mass per cell, (n, 2) -> (cells, cells) indexed [y, x], with a floor of FLOOR in all."""
    edges = np.linspace(-half_width, half_width, cells + 1)
    counts, _, _ = np.histogram2d(samples[:, 1], samples[:, 0], bins=[edges, edges])
    mass = gaussian_filter(counts / len(samples), SMOOTHING_CELLS, mode="constant")
    return (1 - FLOOR) * mass + FLOOR / cells**2


def cell_mass(density_at: Any, half_width: float, cells: int, inner: int = 3) -> Array:
    """A density's mass in each cell, from inner x inner points a cell: (cells, cells)."""
    _, points = grid(half_width, cells * inner)
    values = density_at(points).reshape(cells, inner, cells, inner).mean((1, 3))
    return values * (2 * half_width / cells) ** 2


def kl_divergence(p: Array, q: Array) -> float:
    """Σ p log(p/q) over cells, in nats; cells without p count nothing."""
    inside = p > 0
    return float(np.sum(p[inside] * (np.log(p[inside]) - np.log(q[inside]))))


def total_variation(p: Array, q: Array) -> float:
    """Half the sum of |p - q|, with the mass that either has outside the cells: 0 alike, 1 apart."""
    return float(0.5 * (np.abs(p - q).sum() + abs(p.sum() - q.sum())))


def distances(data: Array, model: Array, generator: Array) -> dict[str, float]:
    """KL and total variation between D, T and G, all as mass per cell of one grid."""
    return {
        "kl_data_model": kl_divergence(data, model),
        "kl_data_generator": kl_divergence(data, generator),
        "kl_generator_model": kl_divergence(generator, model),
        "tv_data_model": total_variation(data, model),
        "tv_data_generator": total_variation(data, generator),
        "tv_generator_model": total_variation(generator, model),
    }


def measure(energy: nn.Module, samples: Array, dataset: dict[str, Any], tolerance: float) -> dict[str, float]:
    """All distances for one trained pair, and log Z; samples (n, 2) of the generator."""
    reach = np.quantile(np.abs(samples), 0.99999)
    half_width = CELL * np.ceil(min(max(3.0, 1.1 * float(reach)), 12.0) / CELL)
    cells = round(2 * half_width / CELL)
    log_z = log_partition(energy, half_width, tolerance)

    def model_density(x: Array) -> Array:
        return np.exp(-energies(energy, torch.from_numpy(x).float()).double().numpy() - log_z)

    data = cell_mass(lambda x: two_d.density(dataset, x), half_width, cells)
    model = np.maximum(cell_mass(model_density, half_width, cells), 1e-300)
    found = distances(data, model, histogram_density(samples, half_width, cells))
    return {**found, "log_partition": log_z}


def evaluate(experiment: str, directory: Path, settings: dict[str, Any], dataset: dict[str, Any], target: Path) -> None:
    """Measure every seed of a two-dimensional experiment into one tidy table."""
    row = describe(directory)["row"]
    rows = []
    for seed in row["seeds"]:
        energy, generator = load(directory, seed)
        stream = torch.Generator().manual_seed(settings["seed"])
        samples = draw_samples(generator, settings["samples"], row["schedule"]["batch"], stream).double().numpy()
        found = measure(energy, samples, dataset, settings["tolerance"])
        rows += [(experiment, seed, metric, value) for metric, value in found.items()]
    write(rows, target)
