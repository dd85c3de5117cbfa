"""Evidence on colour images: how close samples are to the data, whether they are copies, and what the energy knows.

Distances need no trained weights (pyramid.py) or pytorch-fid's Inception (inception.py), which is left out, in one
sentence, where its weights cannot be had. What a data set scores against itself is computed once, as the reference.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ddgm.datasets.prepared import read, source_of
from ddgm.errors import UserError
from ddgm.experiment import describe, load, provenance, refuse_other_shape, scale_pixels
from ddgm.metrics import features, pyramid
from ddgm.metrics.energies import energy_values, kinds_of_input, spread
from ddgm.metrics.table import write
from ddgm.progress import log
from ddgm.reading import read_arrays
from ddgm.sampling import draw_in_parts, draw_samples, energies, energies_and_slopes, to_pixels
from ddgm.whole_file import all_or_none, whole_file

Arrays = dict[str, NDArray[Any]]
PART = 2048  # images that are held at once
POOLED = 4  # pixels a side that are averaged before neighbours are looked for
SHOWN, SHOWN_STEPS, STARTS = 30, 8, 2  # neighbours, steps of a descent, and starts of a kind, that figures show
FEWEST = 4  # images of a split: halves of two, whose variance there is
ABSENT = "inception_absent"
MORE_SAMPLES = "write more at branches.*.images.samples (50000 is usual)"


def chosen(array: NDArray[Any], n: int, stream: np.random.Generator) -> Tensor:
    """n images of a stored array (N, C, H, W), or all, at random and in the file's order."""
    return torch.from_numpy(array[np.sort(stream.permutation(len(array))[:n])])


def in_parts(array: NDArray[Any], rows: NDArray[Any]) -> Iterator[Tensor]:
    """Images of these rows, PART at a time, each part in the file's order."""
    for start in range(0, len(rows), PART):
        yield torch.from_numpy(array[np.sort(rows[start : start + PART])])


def small(pixels: Tensor) -> Tensor:
    """uint8 (n, C, H, W) -> (n, pixels) from 0 to 1, at a quarter of the width: what neighbours are compared by."""
    return F.avg_pool2d(pixels.float() / 255, POOLED).flatten(1)


def nearest(pixels: Tensor, stored: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """The distance from each image (n, C, H, W) to its nearest stored one (N, C, H, W), and its row: (n,), (n,).

    Of the images as `small` has them. The stored ones are read in parts, for all of LSUN's exceed a memory of 8 GB.
    """
    points = small(pixels)
    distance, rows = torch.full((len(points),), torch.inf), torch.zeros(len(points), dtype=torch.long)
    for number, part in enumerate(in_parts(stored, np.arange(len(stored)))):
        here, row = features.nearest(points, small(part))
        closer = here < distance
        distance, rows = torch.where(closer, here, distance), torch.where(closer, row + number * PART, rows)
    return distance, rows


def enough(path: Path) -> NDArray[np.uint8]:
    """A split's images, memory-mapped; raises UserError for fewer than FEWEST."""
    stored = read(path, "r")
    if len(stored) < FEWEST:
        raise UserError(
            f"{path} holds {len(stored)} images, and at least {FEWEST} are needed to measure by: write a larger "
            f"datasets.*.max_images, or draw.images"
        )
    return stored


def reference(train: Path, settings: dict[str, Any], target: Path, weights: Path | None, absent: str) -> None:
    """Write the npz of what the data score against themselves, and Inception's statistics of all of them.

    Floors (`*_floor`) are those of one part of the training images against the rest: of as many as there will be
    `samples`, for a Fréchet distance grows with fewer, and at most of half. weights: Inception's, or None, and then
    `absent` says why.
    """
    stored = enough(train)
    order = np.random.default_rng(settings["seed"]).permutation(len(stored))
    parts = np.split(order, [min(settings["samples"], len(order) // 2)])
    if weights is not None:
        from ddgm.metrics import inception

        needed = 2 * inception.FEWEST
        advice = f"write branches.*.images.inception: false, or prepare {needed} or more (datasets.*.max_images)"
        inception.require_enough(len(order) // 2, f"images, a half of those in {train},", advice)
        inception.require_enough(settings["samples"], "samples", MORE_SAMPLES)
    n = min(settings["compared"], *map(len, parts))
    some = [torch.from_numpy(stored[np.sort(rows[:n])]) for rows in parts]
    floors = pyramid.distances(*some, settings, 0)
    floors |= {"spread": spread(*(pixels.float() for pixels in some)), "sharpness": sharpness(*some)}
    arrays: Arrays = {f"{name}_floor": np.float64(value) for name, value in floors.items()}
    arrays |= {"count": np.array(len(stored)), "source": np.array(source_of(train)), ABSENT: np.array(absent)}
    if weights is not None:
        net = inception.Inception(weights)
        statistics = [net.statistics(in_parts(stored, rows), len(rows), f"part of {train}") for rows in parts]
        whole = inception.merged(*statistics)
        floors = inception.distances(*statistics, settings["neighbours"], settings["seed"])
        arrays |= {f"{name}_floor": np.float64(value) for name, value in floors.items()}
        arrays |= {f"inception_{name}": value for name, value in inception.as_arrays(whole).items()}
    with whole_file(target) as path:
        np.savez(path, **arrays)


def known_by_inception(known: Path) -> bool:
    """Whether the reference `known` has Inception's statistics."""
    return not str(read_arrays(known, {ABSENT: ()})[ABSENT])


def by_inception(
    generator: nn.Module, known: Any, net: Any, settings: dict[str, Any], batch: int, limits: tuple[float, float]
) -> dict[str, float]:
    """What needs Inception: `samples` fresh samples against the statistics in the reference `known`."""
    from ddgm.metrics import inception

    inception.require_enough(settings["samples"], "samples", MORE_SAMPLES)
    stream = torch.Generator().manual_seed(settings["seed"])
    drawn = draw_in_parts(generator, settings["samples"], batch, stream, PART)
    pixels = (torch.from_numpy(to_pixels(x, limits)) for x in drawn)
    found = net.statistics(pixels, settings["samples"], "samples")
    data = inception.from_arrays({name: known[f"inception_{name}"] for name in inception.Statistics._fields})
    return inception.distances(found, data, settings["neighbours"], settings["seed"])


def plane(energy: nn.Module, corners: Tensor, side: int) -> Arrays:
    """E on the plane through three images (3, C, H, W), at side x side places, and where in it the three lie.

    The first is at the origin, the second on the axis a; units are RMS distances a pixel.
    """
    flat = corners.flatten(1).double()
    scale = flat.shape[1] ** 0.5
    a = flat[1] - flat[0]
    length = a.norm()
    a = a / length
    rest = flat[2] - flat[0]
    along = rest @ a
    b = rest - along * a
    height = b.norm()
    b = b / height
    places = torch.tensor([[0.0, 0.0], [float(length), 0.0], [float(along), float(height)]]) / scale
    low, high = places.amin(0), places.amax(0)
    margin = 0.25 * (high - low)
    axes = [torch.linspace(float(s), float(e), side) for s, e in zip(low - margin, high + margin, strict=True)]
    rows = []
    for y in axes[1].double():
        points = flat[0] + scale * (axes[0].double()[:, None] * a + y * b)
        rows.append(energies(energy, points.float().view(-1, *corners.shape[1:]), 256))
    return {
        "slice_axis_a": axes[0].numpy(), "slice_axis_b": axes[1].numpy(), "slice_places": places.numpy(),
        "slice_energy": torch.stack(rows).numpy(),
    }  # fmt: skip


def descend(
    energy: nn.Module, x: Tensor, steps: int, rate: float, limits: tuple[float, float]
) -> tuple[Tensor, NDArray[Any], list[int]]:
    """What gradient descent on E does to images x (k, C, H, W) within the range of pixels.

    A step has the length `rate`, RMS a pixel, whatever the slope's. Gives the images at SHOWN_STEPS steps (k, t, C, H,
    W), E at every one (k, steps + 1), and which steps are shown.
    """
    shown = np.unique(np.linspace(0, steps, SHOWN_STEPS).round().astype(int)).tolist()
    kept, found = [], []
    for step in range(steps + 1):
        value, slope = energies_and_slopes(energy, x)
        found.append(value)
        if step in shown:
            kept.append(x)
        length = slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1) / x[0].numel() ** 0.5
        x = (x - rate * slope / length).clamp(*limits)
    return torch.stack(kept, 1), torch.stack(found, 1).numpy(), shown


def landscape(
    energy: nn.Module, inputs: dict[str, Tensor], middle: float, settings: dict[str, Any], limits: Any
) -> Arrays:
    """The energy in image space: a plane through a held-out image, a sample and noise, and descents from such.

    It is told less `middle`, its mean over held-out images.
    """
    kinds = [kind for kind in ("test", "samples", "noise") for _ in range(STARTS)]
    corners = torch.stack([inputs[kind][0] for kind in ("test", "samples", "noise")])
    starts = torch.cat([inputs[kind][:STARTS] for kind in ("test", "samples", "noise")])
    with torch.no_grad():
        found = plane(energy, corners, settings["grid"])
    images, values, shown = descend(energy, starts, settings["descent_steps"], settings["descent_rate"], limits)
    found["slice_energy"] = found["slice_energy"] - middle
    return found | {
        "slice_corners": to_pixels(corners, limits), "descent": to_pixels(images, limits),
        "descent_energy": values - middle, "descent_kinds": np.array(kinds), "descent_steps": np.array(shown),
    }  # fmt: skip


class Yardstick(NamedTuple):
    """What the samples of every seed are measured by."""

    stored: NDArray[np.uint8]  # all training images, memory-mapped
    train: Tensor  # some of them, uint8 (n, C, H, W)
    test: Tensor  # and held-out ones
    other: Tensor | None  # and of another domain
    held_out: Tensor  # how far each of `test` is from its nearest training image, (n,)
    reference: Arrays  # of the training images
    inception: Any  # the net, or None


def measured(
    energy: nn.Module,
    generator: nn.Module,
    yardstick: Yardstick,
    settings: dict[str, Any],
    batch: int,
    limits: tuple[float, float],
) -> tuple[dict[str, float], Arrays, dict[str, Tensor], float]:
    """One seed's numbers, in the table's order, what figures show of it, and the images (n, C, H, W) of each kind.

    `batch` is how many are drawn at once, as in training; `limits` the floats of black and white. Energies in the
    arrays are told less the mean over held-out images, which comes last.
    """
    stream = torch.Generator().manual_seed(settings["seed"])
    drawn = draw_samples(generator, settings["compared"], batch, stream)
    generated = torch.from_numpy(to_pixels(drawn, limits))
    real = (scale_pixels(some, limits) for some in (yardstick.train, yardstick.test))
    inputs = kinds_of_input(*real, drawn, limits, stream)
    if yardstick.other is not None:
        inputs["other_domain"] = scale_pixels(yardstick.other, limits)
    found = {kind: energies(energy, x, 256).numpy() for kind, x in inputs.items()}
    distance, index = nearest(generated, yardstick.stored)
    n = min(len(generated), len(yardstick.train))
    values = pyramid.distances(generated[:n], yardstick.train[:n], settings, settings["seed"])
    if yardstick.inception:
        values |= by_inception(generator, yardstick.reference, yardstick.inception, settings, batch, limits)
    values |= (
        {name: float(value) for name, value in yardstick.reference.items() if name.endswith("_floor")}
        | energy_values(found)
        | features.memorisation(distance, yardstick.held_out)
        | {"spread": spread(inputs["samples"], inputs["train"]), "sharpness": sharpness(generated, yardstick.train)}
    )
    middle = found["test"].mean()
    shown = {
        "samples": generated.numpy(),
        "sample_energy": found["samples"] - middle,
        "neighbours": yardstick.stored[index[:SHOWN].numpy()],
        "neighbour_distance": distance.numpy(),
        **{f"energy_{kind}": (value - middle).astype(np.float32) for kind, value in found.items()},
        **{name: np.float32(value) for name, value in values.items() if name.startswith("auroc_")},
    }
    return values, shown, inputs, float(middle)


def evaluate(
    experiment: str,
    directory: Path,
    settings: dict[str, Any],
    targets: dict[str, Path],
    known: Path,
    weights: Path | None,
    absent: str,
    train: Path,
    test: Path,
    other: Path | None,
) -> None:
    """Measure every seed of an image experiment; `known` is the reference of its training images.

    targets: `metrics`, a tidy table, and `evidence`, the npz that figures are drawn from, whose arrays have the seeds
    first, but for the plane and the descents, of the first seed, and what is of none: `heldout_distance`, `source` and
    `inception_absent`. `other` is an array of another domain, if there is one. weights and absent: as of `reference`.
    """
    row = describe(directory)["row"]
    refuse_other_shape(directory, test)
    limits, batch = row["range"], row["schedule"]["batch"]
    stored = [enough(array) for array in (train, test)]
    of_train = read_arrays(known, {ABSENT: ()}, others=True)
    if weights is not None and str(of_train[ABSENT]):
        absent = f"{known} was made without Inception's weights, which are here now: delete it and run this again"
    net = None
    if absent:
        log.info(f"{experiment}: no FID, KID, precision and recall: {absent}")
    else:
        from ddgm.metrics.inception import Inception

        net = Inception(weights)
    choice = np.random.default_rng(settings["seed"])
    pixels = [chosen(array, settings["compared"], choice) for array in stored]
    elsewhere = None if other is None else chosen(read(other, "r"), settings["compared"], choice)
    held_out, _ = nearest(pixels[1], stored[0])
    yardstick = Yardstick(stored[0], *pixels, elsewhere, held_out, of_train, net)
    rows: list[tuple[Any, ...]] = []
    per_seed: list[Arrays] = []
    of_first: Arrays = {}
    for seed in row["seeds"]:
        energy, generator = load(directory, seed)
        values, shown, inputs, middle = measured(energy, generator, yardstick, settings, batch, limits)
        rows += [(experiment, seed, *item) for item in values.items()]
        per_seed.append(shown)
        if not of_first:
            of_first = landscape(energy, inputs, middle, settings, limits) | {"heldout_distance": held_out.numpy()}
    arrays = {name: np.stack([some[name] for some in per_seed]) for name in per_seed[0]} | of_first
    arrays |= {"source": np.array(provenance(directory)["data_source"]), ABSENT: np.array(absent)}
    with all_or_none(targets[name] for name in ("metrics", "evidence")):
        write(rows, targets["metrics"])
        with whole_file(targets["evidence"]) as path:
            np.savez_compressed(path, **arrays)


def sharpness(samples: Tensor, data: Tensor) -> float:
    """Sharpness of the samples' brightness over that of the data: uint8 (n, C, H, W)."""
    grey = [x.float().mean(1, keepdim=True) for x in (samples, data)]
    return features.sharpness_ratio(*grey)
