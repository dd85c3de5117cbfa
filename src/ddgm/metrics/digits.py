"""Evidence on digits: how good and how varied the samples are, what the energy knows, and what lies between two digits.

All by a classifier that the pipeline trains itself (classifier.py): its classes, its confidence, and its features as
the space in which samples are compared with digits that nobody trained on.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ddgm import classifier
from ddgm.classifier import CLASSES, Classifier
from ddgm.datasets import prepared
from ddgm.experiment import describe, load, provenance, refuse_other_shape, scale_pixels
from ddgm.generator import Generator
from ddgm.metrics import features, interpolation
from ddgm.metrics.energies import energy_values, kinds_of_input, spread
from ddgm.metrics.table import COLUMNS, write
from ddgm.reading import read_arrays
from ddgm.sampling import draw_samples, energies, to_pixels
from ddgm.whole_file import all_or_none, whole_file

Arrays = dict[str, np.ndarray]
PATHS = ["experiment", "seed", "path", "step", "metric", "value"]
CROSSINGS = ["experiment", "seed", "from", "to", "between", "share", "paths"]
SHOWN, INPUTS = 30, 3  # samples that are shown with their neighbours, and inputs of a kind with their slopes
SHOWN_KINDS = ("test", "samples", "letters", "inverted", "noise")


class Seen(NamedTuple):
    """Digits and what the classifier sees in them."""

    pixels: Tensor  # (n, 1, H, W), uint8
    features: Tensor  # (n, features)
    probabilities: Tensor  # (n, 10)


class Digits(NamedTuple):
    """The data that samples are compared with, and how far held-out digits are from training digits."""

    train: Seen
    test: Seen
    pool: Tensor  # every training digit, (N, pixels), from 0 to 1
    heldout_distance: Tensor  # of each test digit to its nearest training digit, (n,)
    floor: dict[str, float]  # what the training digits score in the samples' place, by metric


def seen(pixels: Tensor, judge: Classifier) -> Seen:
    return Seen(pixels, *judge.judge(pixels))


def flat(pixels: Tensor) -> Tensor:
    """(n, 1, H, W) uint8 -> (n, pixels) from 0 to 1."""
    return pixels.flatten(1).float() / 255


def data(train: Path, test: Path, judge: Classifier, settings: dict[str, Any]) -> Digits:
    """`samples` digits of the training and of the test array, drawn at random, and all training digits' pixels."""
    stream = np.random.default_rng(settings["seed"])
    arrays = [torch.from_numpy(prepared.read(array)) for array in (train, test)]
    chosen = [array[torch.from_numpy(stream.permutation(len(array))[: settings["samples"]])] for array in arrays]
    pool = flat(arrays[0])
    distance, _ = features.nearest(flat(chosen[1]), pool)
    known, held_out = (seen(pixels, judge) for pixels in chosen)
    floor = likeness(known, held_out, settings["neighbours"])
    return Digits(known, held_out, pool, distance, {f"{name}_floor": value for name, value in floor.items()})


def likeness(some: Seen, test: Seen, neighbours: int) -> dict[str, float]:
    """Classes, confidence and sharpness of digits, and their distances from held-out digits in feature space."""
    confidence, digit = some.probabilities.max(1)
    n = min(len(some.features), len(test.features))
    return {
        **features.class_balance(digit, CLASSES),
        "confidence": float(confidence.mean()),
        "frechet": features.frechet_distance(some.features, test.features),
        "kernel_distance": features.kernel_distance(some.features, test.features),
        **features.manifold_overlap(test.features[:n], some.features[:n], neighbours),
        "sharpness": features.sharpness_ratio(some.pixels, test.pixels),
    }


def quality(samples: Seen, digits: Digits, neighbours: int) -> dict[str, float]:
    """The samples' `likeness` and each class's share, beside what training digits score in their place (`*_floor`)."""
    shares = torch.bincount(samples.probabilities.argmax(1), minlength=CLASSES) / len(samples.probabilities)
    by_class = {f"share_{digit}": float(share) for digit, share in enumerate(shares)}
    return likeness(samples, digits.test, neighbours) | digits.floor | by_class


class Measured(NamedTuple):
    """One trained pair: every number, and what figures show of it."""

    values: dict[str, float]
    generated: Seen
    neighbour_distance: Tensor  # of each sample to its nearest training digit, (n,)
    neighbour: Tensor  # that digit's place in the pool, (n,)
    inputs: dict[str, Tensor]  # x (n, 1, H, W) of each kind, in the experiment's range
    energies: dict[str, np.ndarray]  # E of them, (n,), less the mean of the held-out digits'
    energy_data: float  # that mean
    paths: dict[str, interpolation.Path]


def measure(
    energy: nn.Module,
    generator: Generator,
    judge: Classifier,
    digits: Digits,
    settings: dict[str, Any],
    row: dict[str, Any],
) -> Measured:
    """Every number of one trained pair; `row` is its experiment's."""
    limits, batch = row["range"], row["schedule"]["batch"]
    stream = torch.Generator().manual_seed(settings["seed"])
    drawn = draw_samples(generator, settings["samples"], batch, stream)
    generated = seen(torch.from_numpy(to_pixels(drawn, limits)), judge)
    distance, index = features.nearest(flat(generated.pixels), digits.pool)
    data = [scale_pixels(some.pixels[: settings["compared"]], limits) for some in (digits.train, digits.test)]
    inputs = kinds_of_input(*data, drawn[: settings["compared"]], limits, stream)
    found = {kind: energies(energy, x, 1000).numpy() for kind, x in inputs.items()}
    energy_data = float(found["test"].mean())
    paths = interpolation.measure(energy, generator, judge, settings, batch, limits, stream)
    values = (
        quality(generated, digits, settings["neighbours"])
        | features.memorisation(distance, digits.heldout_distance)
        | energy_values(found)
        | {"spread": spread(inputs["samples"], inputs["test"])}
        | interpolation.summary(paths, energy_data)
    )
    relative = {kind: value - energy_data for kind, value in found.items()}
    return Measured(values, generated, distance, index, inputs, relative, energy_data, paths)


def arrays_of(
    measured: Measured, energy: nn.Module, judge: Classifier, lines: Tensor, pool: Tensor, limits: Any
) -> Arrays:
    """What the figures show of one seed; lines (rows, steps, 1, H, W), uint8, are Figure 3's."""
    path = interpolation.look(lines, energy, judge, limits)
    shown = measured.generated.pixels[:SHOWN]
    return {
        "interpolations": lines.numpy(),
        "step_class": path.digit.numpy(),
        "step_confidence": path.confidence.numpy(),
        "step_energy": (path.energy - measured.energy_data).numpy(),
        "samples": shown.numpy(),
        "neighbours": (pool[measured.neighbour[:SHOWN]] * 255).round().to(torch.uint8).view_as(shown).numpy(),
        "neighbour_distance": measured.neighbour_distance.numpy(),
        **{f"energy_{kind}": value.astype(np.float32) for kind, value in measured.energies.items()},
        **{name: np.float32(v) for name, v in measured.values.items() if name.startswith("auroc_")},
    }


def slopes_at_inputs(energy: nn.Module, inputs: dict[str, Tensor], limits: Any) -> Arrays:
    """Inputs of each kind, uint8 (kinds, INPUTS, 1, H, W), and ∂E/∂x at them, per unit of x."""
    chosen = torch.stack([torch.from_numpy(to_pixels(inputs[kind][:INPUTS], limits)) for kind in SHOWN_KINDS])
    x = scale_pixels(chosen, limits).requires_grad_()
    (slopes,) = torch.autograd.grad(energy(x.flatten(0, 1)).sum(), x)
    return {"inputs": chosen.numpy(), "input_kinds": np.array(SHOWN_KINDS), "gradients": slopes.numpy()}


def evaluate(
    experiment: str,
    directory: Path,
    settings: dict[str, Any],
    targets: dict[str, Path],
    samples: Path,
    train: Path,
    test: Path,
    judge_directory: Path,
) -> None:
    """Measure every seed of a digit experiment; `samples` is the npz that Figure 3 is drawn from.

    targets: `metrics`, `interpolations` and `crossings`, tidy tables, and `evidence`, the npz that figures are drawn
    from. Its arrays have the seeds first, but for `source` and `heldout_distance`, and for those of the first seed
    alone: `inputs`, `input_kinds`, `gradients` and the lines that the paper names (`named*`).
    """
    row = describe(directory)["row"]
    refuse_other_shape(directory, test)
    judge = classifier.load(judge_directory)
    digits = data(train, test, judge, settings)
    wanted = {"interpolations": (len(row["seeds"]), "rows", "steps", "C", "H", "W")}
    all_lines = torch.from_numpy(read_arrays(samples, wanted)["interpolations"])
    tables: dict[str, list[tuple[Any, ...]]] = {"metrics": [], "interpolations": [], "crossings": []}
    arrays: list[Arrays] = []
    of_first: Arrays = {}
    for seed, lines in zip(row["seeds"], all_lines, strict=True):
        energy, generator = load(directory, seed)
        found = measure(energy, generator, judge, digits, settings, row)
        tables["metrics"] += [(experiment, seed, *item) for item in found.values.items()]
        along = interpolation.along(found.paths, found.energy_data)
        tables["interpolations"] += [(experiment, seed, *line) for line in along]
        passed = interpolation.crossing_rows(*interpolation.crossings_of(found.paths))
        tables["crossings"] += [(experiment, seed, *line) for line in passed]
        arrays.append(arrays_of(found, energy, judge, lines, digits.pool, row["range"]))
        if not of_first:
            of_line = (settings["steps"], *lines.shape[2:])
            of_first = slopes_at_inputs(energy, found.inputs, row["range"])
            of_first |= interpolation.named_lines(found.paths.get(interpolation.Z), found.energy_data, of_line)
    stacked = {name: np.stack([some[name] for some in arrays]) for name in arrays[0]} | of_first
    stacked["source"] = np.array(provenance(directory)["data_source"])
    stacked["heldout_distance"] = digits.heldout_distance.numpy()
    with all_or_none(targets.values()):
        for name, columns in (("metrics", COLUMNS), ("interpolations", PATHS), ("crossings", CROSSINGS)):
            write(tables[name], targets[name], columns)
        with whole_file(targets["evidence"]) as path:
            np.savez_compressed(path, **stacked)


def evaluate_metrics(
    experiment: str,
    directory: Path,
    settings: dict[str, Any],
    target: Path,
    train: Path,
    test: Path,
    judge_directory: Path,
) -> None:
    """The tidy table alone, as for a trial of a search."""
    row = describe(directory)["row"]
    refuse_other_shape(directory, test)
    judge = classifier.load(judge_directory)
    digits = data(train, test, judge, settings)
    rows = []
    for seed in row["seeds"]:
        found = measure(*load(directory, seed), judge, digits, settings, row)
        rows += [(experiment, seed, *item) for item in found.values.items()]
    write(rows, target)
