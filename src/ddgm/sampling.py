"""What a trained pair gives a figure: samples, interpolations in z and, in two dimensions, the energy on a grid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddgm.datasets import two_d
from ddgm.datasets.two_d import BOX
from ddgm.experiment import describe, load, provenance, to_pixels
from ddgm.generator import Generator, prior
from ddgm.whole_file import whole_file


@torch.no_grad()
def draw_samples(generator: Generator, n: int, batch: int, stream: torch.Generator) -> Tensor:
    """n samples (n, *shape), computed `batch` at a time, since batch norm sees the batch: the last one is whole too."""
    count = -(-n // batch)
    samples = [generator(prior(batch, generator.latent, stream)) for _ in range(count)]
    return torch.cat(samples)[:n]


def draw_in_parts(generator: Generator, n: int, batch: int, stream: torch.Generator, part: int) -> Iterator[Tensor]:
    """What draw_samples gives, in parts of at most `part` samples (one batch at least): n may exceed the memory."""
    whole_batches = max(1, part // batch) * batch
    for start in range(0, n, whole_batches):
        yield draw_samples(generator, min(whole_batches, n - start), batch, stream)


@torch.no_grad()
def interpolate(generator: Generator, rows: int, steps: int, batch: int, stream: torch.Generator) -> Tensor:
    """G along straight lines in z between random end points, (rows, steps, *shape).

    The lines' points are computed within one batch that fresh z fill up, so that batch norm has the statistics it was
    trained with: those of the prior, which is wider than a line's middle.
    """
    z = prior(max(batch, 2 * rows), generator.latent, stream)
    start, end = z[:rows], z[rows : 2 * rows]
    columns = []
    for weight in torch.linspace(0, 1, steps):
        columns.append(generator(torch.cat([torch.lerp(start, end, weight), z[rows:]]))[:rows])
    return torch.stack(columns, 1)


def grid(half_width: float, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centres of side x side cells over a square: one axis (side,), and all points (side², 2), y slower than x."""
    axis = (np.arange(side) + 0.5) / side * 2 * half_width - half_width
    x, y = np.meshgrid(axis, axis)
    return axis, np.stack([x.ravel(), y.ravel()], 1)


@torch.no_grad()
def energies(energy: nn.Module, x: Tensor, batch: int = 65536) -> Tensor:
    """E(x) in parts of `batch` rows, (N, *shape) -> (N,)."""
    return torch.cat([energy(part) for part in x.split(batch)])


@torch.enable_grad()
def energies_and_slopes(energy: nn.Module, x: Tensor, batch: int = 65536) -> tuple[Tensor, Tensor]:
    """E(x) and ∂E/∂x in parts of `batch` rows, one pass forward and one backward: (N, *shape) -> (N,), (N, *shape)."""
    values, slopes = [], []
    for part in x.detach().split(batch):
        value = energy(part.requires_grad_())
        slopes.append(torch.autograd.grad(value.sum(), part)[0])
        values.append(value.detach())
    return torch.cat(values), torch.cat(slopes)


def cell_counts(samples: NDArray[Any], half_width: float, side: int) -> NDArray[np.float64]:
    """How many samples (n, 2) lie in each of the side x side cells of `grid`, (side, side) indexed [y, x]."""
    limits = [[-half_width, half_width]] * 2
    return np.histogram2d(samples[:, 1], samples[:, 0], bins=side, range=limits)[0]


def histogram(generator: Generator, n: int, batch: int, stream: torch.Generator, side: int) -> NDArray[np.float32]:
    """The density of n samples in the cells of `grid`, per unit area, (side, side) indexed [y, x]."""
    parts = draw_in_parts(generator, n, batch, stream, 100_000)
    counts = sum(cell_counts(part.numpy(), BOX, side) for part in parts)
    return (counts / n / (2 * BOX / side) ** 2).astype(np.float32)


def sample(directory: Path, settings: dict[str, Any], dataset: dict[str, Any], target: Path) -> None:
    """Write the npz that an experiment's figures are drawn from; the arrays of samples and nets have seeds first.

    source, what the pair was trained on, in words. samples (S, n, *shape), float32 points or uint8 pixels. Images:
    interpolations (S, rows, steps, C, H, W). In two dimensions: axis (g,), energy (S, g, g) and data_density (g, g) at
    the cells' centres, and generator_density (S, g, g), a histogram in the cells of `histogram` samples; [y, x].
    """
    row = describe(directory)["row"]
    planar = row["range"] is None
    batch = row["schedule"]["batch"]
    arrays: dict[str, list[NDArray[Any]]] = {"samples": []}
    arrays |= {"energy": [], "generator_density": []} if planar else {"interpolations": []}
    axis, points = grid(BOX, settings["grid"])
    for seed in row["seeds"]:
        energy, generator = load(directory, seed)
        stream = torch.Generator().manual_seed(settings["seed"])
        drawn = draw_samples(generator, settings["samples" if planar else "images"], batch, stream)
        if planar:
            arrays["samples"].append(drawn.numpy())
            surface = energies(energy, torch.from_numpy(points).float())
            arrays["energy"].append(surface.numpy().reshape(len(axis), -1))
            arrays["generator_density"].append(histogram(generator, settings["histogram"], batch, stream, len(axis)))
        else:
            lines = interpolate(generator, settings["rows"], settings["steps"], batch, stream)
            arrays["samples"].append(to_pixels(drawn, row["range"]))
            arrays["interpolations"].append(to_pixels(lines, row["range"]))
    stacked = {name: np.stack(values) for name, values in arrays.items()}
    stacked["source"] = np.array(provenance(directory)["data_source"])
    if planar:
        density = two_d.density(dataset, points).reshape(len(axis), -1)
        stacked |= {"axis": axis.astype(np.float32), "data_density": density.astype(np.float32)}
    with whole_file(target) as path:
        np.savez_compressed(path, **stacked)
