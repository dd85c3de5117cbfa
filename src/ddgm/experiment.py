"""A row of params.yaml becomes nets; a saved directory becomes nets again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ddgm import distributed
from ddgm.datasets.prepared import read
from ddgm.energy import build_energy
from ddgm.ensemble import Ensemble
from ddgm.errors import UserError
from ddgm.generator import Generator, build_generator, fix_statistics
from ddgm.whole_file import whole_file

WEIGHTS, SNAPSHOTS, HISTORY, PROGRESS, EXPERIMENT, PROVENANCE = (
    "weights.safetensors", "snapshots.safetensors", "history.csv", "progress.npz", "experiment.json", "provenance.json",
)  # fmt: skip


def build(row: dict[str, Any], shape: tuple[int, ...], seed: int) -> tuple[nn.Module, Generator]:
    """The energy and the generator of one seed, for data of `shape`, with the starting weights of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_energy(row["energy"], shape), build_generator(row["generator"], shape)


def build_ensembles(row: dict[str, Any], shape: tuple[int, ...], seeds: list[int]) -> tuple[Ensemble, Ensemble]:
    """The energies and the generators of several seeds, each as one ensemble."""
    pairs = [build(row, shape, seed) for seed in seeds]
    # Several seeds' convolutions at once would be one of many groups, which is slow; batch norm over several processes
    # is no operation that vmap knows.
    kinds = (row["energy"].get("features"), row["generator"]["kind"])
    return tuple(
        Ensemble(list(nets), row["precision"], kind == "convolutional" or distributed.processes() > 1)
        for kind, nets in zip(kinds, zip(*pairs, strict=True), strict=True)
    )


def scale_pixels(x: Tensor, limits: tuple[float, float]) -> Tensor:
    """uint8 pixels 0..255 to floats from low to high."""
    low, high = limits
    return x.float() * ((high - low) / 255) + low


def to_pixels(x: Tensor, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Floats from low to high to uint8 pixels, rounded, with what lies outside cut off."""
    low, high = limits
    return ((x - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8).numpy()


def save_weights(directory: Path, weights: dict[int, dict[str, dict[str, Tensor]]]) -> None:
    """Write {seed: {net: state dictionary}} as one safetensors file, tensors named seed.net.parameter."""
    # Copies: a net and its average share their buffers, and safetensors refuses memory that is shared.
    flat = {
        f"{seed}.{net}.{name}": value.detach().to("cpu", copy=True).contiguous()
        for seed, nets in weights.items()
        for net, state in nets.items()
        for name, value in state.items()
    }
    with whole_file(directory / WEIGHTS) as path:
        path.write_bytes(save(flat))


def save_snapshots(directory: Path, snapshots: dict[int, dict[str, Tensor]]) -> None:
    """Write {step: {net: weights of all seeds (S, P)}} as one safetensors file, tensors named step.net."""
    flat = {f"{step}.{net}": value for step, nets in snapshots.items() for net, value in nets.items()}
    with whole_file(directory / SNAPSHOTS) as path:
        path.write_bytes(save(flat))


def load_snapshots(directory: Path) -> Iterator[tuple[int, int, nn.Module, Generator]]:
    """(seed, step, energy, generator) along a training, seed by seed, as measured. Raises UserError without any."""
    about = describe(directory)
    row, shape = about["row"], tuple(about["shape"])
    tensors = read_tensors(directory / SNAPSHOTS)
    if not tensors:
        raise UserError(f"{directory} has no weights along training: write schedule.snapshots above 0 and train again")
    steps = sorted({int(name.split(".")[0]) for name in tensors})
    ensembles = dict(zip(("energy", "generator"), build_ensembles(row, shape, row["seeds"]), strict=True))
    for index, seed in enumerate(row["seeds"]):
        for step in steps:
            nets = build(row, shape, seed)
            for net, (name, ensemble) in zip(nets, ensembles.items(), strict=True):
                with weights_that_fit(directory):
                    net.load_state_dict(ensemble.weights(index, tensors[f"{step}.{name}"]))
                net.eval()
            # A snapshot is of weights alone. Nothing is done where a batch has its own statistics.
            fix_statistics(nets[1], row["schedule"]["batch"], torch.Generator().manual_seed(seed))
            yield seed, step, *nets


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a model's file, or UserError."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError):
        raise UserError(f"{path} is missing or damaged: delete {path.parent} and train again") from None


@contextmanager
def weights_that_fit(directory: Path) -> Iterator[None]:
    """UserError where what was read from a directory does not fit the nets of the row beside it."""
    try:
        yield
    except (RuntimeError, KeyError) as fault:
        raise UserError(
            f"the weights in {directory} are not those of the row beside them: delete {directory} and train again"
        ) from fault


def describe(directory: Path) -> dict[str, Any]:
    """The experiment's name, row and data shape that a model directory was trained with."""
    try:
        about = json.loads((directory / EXPERIMENT).read_text())
        return about | {key: about[key] for key in ("row", "shape")}
    except FileNotFoundError:
        raise UserError(
            f"{directory} holds no trained model ({EXPERIMENT} is missing): one of a branch is "
            f"trained with 'snakemake {directory / WEIGHTS}'"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{directory / EXPERIMENT} is damaged: delete {directory} and train again") from None


def refuse_other_shape(directory: Path, array: Path) -> None:
    """UserError where the prepared data that nets are to be measured on have another shape than they learned from."""
    trained, given = ("x".join(map(str, shape)) for shape in (describe(directory)["shape"], read(array, "r").shape[1:]))
    if trained != given:
        raise UserError(
            f"{directory} was trained on {trained}, and {array} holds {given}: train it again with 'snakemake "
            f"{directory / WEIGHTS}', or prepare the data as they were"
        )


def provenance(directory: Path) -> dict[str, Any]:
    """Where a trained model comes from: code, libraries, device, data."""
    try:
        return json.loads((directory / PROVENANCE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        raise UserError(f"{directory / PROVENANCE} is missing or damaged: delete {directory} and train again") from None


def load(directory: str | Path, seed: int | None = None, averaged: bool = True) -> tuple[nn.Module, Generator]:
    """The trained energy and generator of one seed (the first by default), ready to evaluate, on the CPU.

    `averaged` takes the exponentially averaged weights where the experiment kept any. Raises UserError for a
    directory without a model and for a seed that was not trained.
    """
    directory = Path(directory)
    about = describe(directory)
    row, shape = about["row"], tuple(about["shape"])
    seed = row["seeds"][0] if seed is None else seed
    if seed not in row["seeds"]:
        raise UserError(f"{directory} has no seed {seed}: allowed are {', '.join(map(str, row['seeds']))}")
    tensors = read_tensors(directory / WEIGHTS)
    energy, generator = build(row, shape, seed)
    for net, module in (("energy", energy), ("generator", generator)):
        kept = averaged and row["average"][net] > 0
        prefix = f"{seed}.{net}_average." if kept else f"{seed}.{net}."
        state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        with weights_that_fit(directory):
            module.load_state_dict(state)
        module.eval()
    return energy, generator
