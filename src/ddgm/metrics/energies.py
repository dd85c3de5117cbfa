"""Evidence where the density of the data is not known: what the energy says of other inputs, how the samples vary.

An energy that models the data is low on held-out examples as on training ones, about as low on samples, and higher on
inputs of other kinds; samples that have not collapsed vary as much as the data.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ddgm.datasets.letters import draw_letters
from ddgm.experiment import scale_pixels


def other_kinds(x: Tensor, limits: tuple[float, float], stream: torch.Generator) -> dict[str, Tensor]:
    """Inputs that are no data, as many as examples x (N, C, H, W): inverted, pixels shuffled, noise, and letters.

    The first two are made from x, the noise is uniform; letters have one channel and are left out where x has more.
    """
    low, high = limits
    flat = x.flatten(2)
    # A pixel keeps its colour: the same places for all its channels.
    order = torch.rand(len(x), 1, flat.shape[2], generator=stream).argsort(2).expand_as(flat)
    others = {
        "inverted": low + high - x,
        "shuffled": flat.gather(2, order).view_as(x),
        "noise": torch.rand(x.shape, generator=stream) * (high - low) + low,
    }
    if x.shape[1] == 1:
        # By the stream's seed: nothing is taken from the stream, whatever is drawn from it next.
        letters = draw_letters(len(x), x.shape[-1], stream.initial_seed())
        others["letters"] = scale_pixels(torch.from_numpy(letters), limits)
    return others


def kinds_of_input(
    train: Tensor, test: Tensor, samples: Tensor, limits: tuple[float, float], stream: torch.Generator
) -> dict[str, Tensor]:
    """What energies are compared at, each (N, C, H, W): data that were trained on, held-out data, samples, the rest."""
    return {"train": train, "test": test, "samples": samples, **other_kinds(test, limits, stream)}


def energy_values(found: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Mean energy of each kind, and how well it tells held-out data from each other kind; E (n,) of each kind."""
    values = {f"energy_{kind}": float(value.mean()) for kind, value in found.items()}
    return values | {f"auroc_{kind}": separation(found["test"], found[kind]) for kind in found if kind != "test"}


def separation(energy_data: NDArray[Any], energy_other: NDArray[Any]) -> float:
    """AUROC of the energy as a detector of the other kind: 1 if all of it lies higher than the data, ½ if alike."""
    kind = np.r_[np.zeros(len(energy_data)), np.ones(len(energy_other))]
    return float(roc_auc_score(kind, np.r_[energy_data, energy_other]))


def spread(samples: Tensor, data: Tensor) -> float:
    """The samples' total variance over the data's: near 0 once they all look alike, 1 where they vary as the data."""
    return float(samples.flatten(1).var(0).sum() / data.flatten(1).var(0).sum())
