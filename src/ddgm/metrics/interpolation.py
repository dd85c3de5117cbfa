"""Evidence on lines in z between digits of different classes: what they pass through, beside blending the pixels."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddgm.classifier import CLASSES, Classifier
from ddgm.experiment import scale_pixels
from ddgm.generator import Generator
from ddgm.metrics.cutoffs import SURE
from ddgm.paper import DIGITS_BETWEEN
from ddgm.sampling import energies, interpolate, to_pixels

Z, PIXELS = "z", "pixels"
SHOWN = 3  # lines that a figure shows of each two digits that the paper names
LINES_A_BATCH = 10  # few beside the fresh z that batch norm takes its statistics from, as in Figure 3


class Path(NamedTuple):
    """Images along lines (pairs, steps, C, H, W), uint8, and what is seen at each of them, (pairs, steps)."""

    images: Tensor
    digit: Tensor  # the classifier's
    confidence: Tensor  # its probability, 0 to 1
    energy: Tensor  # nats
    pixel_step: Tensor  # Euclidean distance from the image before, pixels from 0 to 1; 0 at the first
    feature_step: Tensor  # the same in the classifier's features


def look(images: Tensor, energy: nn.Module, judge: Classifier, limits: tuple[float, float]) -> Path:
    """What classifier and energy say of images along lines (pairs, steps, C, H, W), uint8."""
    shape = images.shape[:2]
    flat = images.flatten(0, 1)
    features, probabilities = judge.judge(flat)
    confidence, digit = probabilities.max(1)

    def steps(points: Tensor) -> Tensor:
        """(pairs·steps, d) -> distances from the point before, (pairs, steps)."""
        along = points.view(*shape, -1)
        return torch.cat([torch.zeros(shape[0], 1), (along[:, 1:] - along[:, :-1]).norm(dim=2)], 1)

    return Path(
        images,
        digit.view(shape),
        confidence.view(shape),
        energies(energy, scale_pixels(flat, limits), 1000).view(shape),
        steps(flat.flatten(1).float() / 255),
        steps(features),
    )


def lines_in_z(
    generator: Generator, steps: int, batch: int, limits: tuple[float, float], stream: torch.Generator
) -> Iterator[Tensor]:
    """Lines between random z without an end, LINES_A_BATCH at a time: (lines, steps, C, H, W), uint8."""
    while True:
        x = interpolate(generator, LINES_A_BATCH, steps, batch, stream)
        yield torch.from_numpy(to_pixels(x, limits))


def between_classes(lines: Iterator[Tensor], judge: Classifier, pairs: int) -> Tensor:
    """The first `pairs` lines whose two ends are digits of different classes, (pairs, steps, C, H, W).

    Of a generator that draws one class alone there may be fewer: as many are taken as 20 times the pairs hold.
    """
    kept: list[Tensor] = []
    for number, some in enumerate(lines):
        ends = [judge.judge(some[:, at])[1].argmax(1) for at in (0, -1)]
        kept.append(some[ends[0] != ends[1]])
        if sum(map(len, kept)) >= pairs or number * LINES_A_BATCH > 20 * pairs:
            break
    return torch.cat(kept)[:pairs]


def blend(images: Tensor) -> Tensor:
    """The baseline: straight lines in pixel space between the ends of lines (pairs, steps, C, H, W), uint8."""
    weights = torch.linspace(0, 1, images.shape[1]).view(1, -1, 1, 1, 1)
    return torch.lerp(images[:, :1].float(), images[:, -1:].float(), weights).round().to(torch.uint8)


def crossings(digit: NDArray[np.int64], sure: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many paths (pairs, steps) join two classes, (10, 10), and how many of these pass each digit, (10, 10, 10).

    Indexed [one end, other end, between]; a path counts both ways, so that both are symmetric in the ends. A digit is
    between if the classifier says it, and is `sure`, at one step or more, and it is neither end's.
    """
    joined = np.zeros((CLASSES, CLASSES), np.int64)
    passed = np.zeros((CLASSES, CLASSES, CLASSES), np.int64)
    for path, certain in zip(digit, sure, strict=True):
        a, b = path[0], path[-1]
        seen = np.setdiff1d(path[certain], [a, b])
        for one, other in ((a, b), (b, a)):
            joined[one, other] += 1
            passed[one, other, seen] += 1
    return joined, passed


def crossings_of(paths: dict[str, Path], kind: str = Z) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The crossings of one kind of path, if there are any."""
    if not paths:
        return crossings(np.empty((0, 2), np.int64), np.empty((0, 2), np.bool_))
    return crossings(paths[kind].digit.numpy(), paths[kind].confidence.numpy() >= SURE)


def crossing_rows(joined: NDArray[np.int64], passed: NDArray[np.int64]) -> Iterator[tuple[int, int, int, float, int]]:
    """(from, to, between, share of the paths that pass it, paths) of every two classes that a path joins."""
    for one, other in np.argwhere(joined).tolist():
        for between in sorted({*range(CLASSES)} - {one, other}):
            share = passed[one, other, between] / joined[one, other]
            yield one, other, between, float(share), int(joined[one, other])


def along(paths: dict[str, Path], energy_data: float) -> Iterator[tuple[str, int, str, float]]:
    """(path, step, metric, mean over pairs) of each kind of path; energies less the data's mean `energy_data`."""
    for name, path in paths.items():
        for metric in ("confidence", "energy", "pixel_step", "feature_step"):
            means = getattr(path, metric).double().mean(0)
            for step, value in enumerate(means.tolist()):
                if step or not metric.endswith("_step"):
                    yield name, step, metric, value - (energy_data if metric == "energy" else 0.0)


def summary(paths: dict[str, Path], energy_data: float) -> dict[str, float]:
    """The numbers that claims test: the worst step's mean confidence and energy, the longest step, the paper's three.

    Of the paths between A and B, `lines_A_B` in all, `crossed_A_B_by_C` is the share that passes C, with `_pixels` of
    the blended ones, and `between_A_B` the digit that most of them pass. What there is no path for is not a number.
    """
    values: dict[str, float] = {}
    for kind in (Z, PIXELS):
        seen: dict[str, Any] = {"confidence": np.nan, "energy": np.nan, "pixel_step": np.nan, "feature_step": np.nan}
        if path := paths.get(kind):
            means = {name: getattr(path, name).double().mean(0) for name in seen}
            seen = {name: float(mean.min() if name == "confidence" else mean.max()) for name, mean in means.items()}
        values |= {
            f"path_confidence_{kind}": seen["confidence"],
            f"path_energy_{kind}": seen["energy"] - energy_data,
            f"path_pixel_step_longest_{kind}": seen["pixel_step"],
            f"path_feature_step_longest_{kind}": seen["feature_step"],
        }
        joined, passed = crossings_of(paths, kind)
        end = "" if kind == Z else f"_{kind}"
        for a, b, between in DIGITS_BETWEEN:
            lines = joined[a, b]
            values[f"crossed_{a}_{b}_by_{between}{end}"] = float(passed[a, b, between] / lines) if lines else np.nan
            if kind == Z:
                values[f"lines_{a}_{b}"] = float(lines)
                values[f"between_{a}_{b}"] = float(passed[a, b].argmax()) if passed[a, b].any() else np.nan
    return values


def named_lines(path: Path | None, energy_data: float, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The first SHOWN lines between each two digits that the paper names, from its first to its second.

    `shape` (steps, C, H, W) is that of a line. Where there are fewer lines `named_lines` (3, SHOWN, steps, C, H, W) and
    what is seen on them, (3, SHOWN, steps), is 0; `named_counts` (3,) says how many there are, `named` (3, 3) what the
    paper names: one end, the other, the digit between.
    """
    block = (len(DIGITS_BETWEEN), SHOWN)
    images, digit = torch.zeros(*block, *shape, dtype=torch.uint8), torch.zeros(*block, shape[0], dtype=torch.int64)
    confidence, energy = torch.zeros(*block, shape[0]), torch.zeros(*block, shape[0])
    counts = np.zeros(len(DIGITS_BETWEEN), np.int64)
    if path:
        start, end = path.digit[:, 0], path.digit[:, -1]
        kept, seen = (images, digit, confidence, energy), (*path[:3], path.energy - energy_data)
        for pair, (a, b, _) in enumerate(DIGITS_BETWEEN):
            found = torch.nonzero((start == a) & (end == b) | (start == b) & (end == a)).flatten()[:SHOWN].tolist()
            counts[pair] = len(found)
            for line, at in enumerate(found):
                for block, of_paths in zip(kept, seen, strict=True):
                    block[pair, line] = of_paths[at] if start[at] == a else of_paths[at].flip(0)
    return {
        "named": np.array(DIGITS_BETWEEN),
        "named_counts": counts,
        "named_lines": images.numpy(),
        "named_class": digit.numpy(),
        "named_confidence": confidence.numpy(),
        "named_energy": energy.numpy(),
    }


def measure(
    energy: nn.Module,
    generator: Generator,
    judge: Classifier,
    settings: dict[str, Any],
    batch: int,
    limits: tuple[float, float],
    stream: torch.Generator,
) -> dict[str, Path]:
    """`pairs` lines of `steps` images between different classes, in z and blended: as `seen_along`."""
    lines = lines_in_z(generator, settings["steps"], batch, limits, stream)
    return seen_along(between_classes(lines, judge, settings["pairs"]), energy, judge, limits)


def seen_along(images: Tensor, energy: nn.Module, judge: Classifier, limits: tuple[float, float]) -> dict[str, Path]:
    """Lines (pairs, steps, C, H, W), uint8, as they are and blended from their ends; neither where there is no pair."""
    kinds = ((Z, images), (PIXELS, blend(images))) if len(images) else ()
    return {name: look(x, energy, judge, limits) for name, x in kinds}
