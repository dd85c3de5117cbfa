"""How likely held-out data are under a trained energy, by annealed importance sampling; in 2D beside quadrature."""

import math
from pathlib import Path
from typing import Any

import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from ddgm.datasets.prepared import read
from ddgm.datasets.two_d import BOX
from ddgm.experiment import describe, load, refuse_other_shape, scale_pixels
from ddgm.metrics import density
from ddgm.metrics.likelihood import annealed_log_partition, log_likelihood
from ddgm.metrics.table import write
from ddgm.sampling import energies


def by_quadrature(energy: nn.Module) -> float:
    """log Z on the square of BOX, by the sum that density.py takes."""
    return float(logsumexp(density.log_masses(energy, BOX, 2)))


def measure(
    energy: nn.Module, data: Tensor, limits: tuple[float, float], settings: dict[str, Any], seed: int
) -> dict[str, float]:
    """log Z in the box `limits`, annealed from both ends, and what follows for held-out data x (N, *shape).

    `log_partition` is too low on average and `log_partition_from_samples` too high, so that the first likelihood is
    optimistic. The chains that go back start where the first ended, and not from exact samples.
    """
    stream = torch.Generator().manual_seed(seed)
    there = annealed_log_partition(energy, tuple(data.shape[1:]), limits, settings, stream)
    back = annealed_log_partition(energy, tuple(data.shape[1:]), limits, settings, stream, there.samples)
    found = energies(energy, data, 1000)
    nats = log_likelihood(found, there.log_partition)
    return {
        "log_partition": there.log_partition,
        "log_partition_error": there.error,
        "log_partition_from_samples": back.log_partition,
        "effective_sample_size": there.effective_sample_size,
        "acceptance": there.acceptance,
        "log_likelihood": nats,
        "log_likelihood_from_samples": log_likelihood(found, back.log_partition),
        # What the uniform density on the box would give.
        "log_likelihood_uniform": data[0].numel() * math.log(1 / (limits[1] - limits[0])),
    }


def evaluate(experiment: str, directory: Path, settings: dict[str, Any], target: Path, test: Path) -> None:
    """Measure every seed into one tidy table; `test` is the prepared array of held-out data."""
    row = describe(directory)["row"]
    refuse_other_shape(directory, test)
    stored = torch.from_numpy(read(test)[: settings["data"]])
    planar = row["range"] is None
    data, limits = (stored, (-BOX, BOX)) if planar else (scale_pixels(stored, row["range"]), row["range"])
    rows = []
    for seed in row["seeds"]:
        energy, _ = load(directory, seed)
        values = measure(energy, data, limits, settings, settings["seed"])
        if planar:
            values["log_partition_quadrature"] = by_quadrature(energy)
        rows += [(experiment, seed, *item) for item in values.items()]
    write(rows, target)
