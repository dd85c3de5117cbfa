"""A prepared split of points, drawn from the densities of two_d.py."""

from pathlib import Path

import numpy as np

from ddgm.datasets import registry
from ddgm.datasets.two_d import BOX, sample
from ddgm.datasets.writing import write
from ddgm.errors import UserError

OUTSIDE = 1e-3  # of the points, at most, may lie around BOX


def prepare(row: dict, raw: Path, split: str, target: Path, workers: int = 1) -> None:
    """Write the split `target` (prepared.py): row["points"] points, float32; each split has its own random stream.

    There is nothing raw, and nothing to share among workers: neither is used. Raises UserError where `scale` leaves
    points outside BOX.
    """
    splits = registry.splits(row)
    if split not in splits:
        raise UserError(f"{row['kind']} has no split '{split}': allowed are {', '.join(splits)}")
    stream = np.random.default_rng([row["seed"], splits.index(split)])
    points = sample(row, row["points"], stream).astype(np.float32)
    beyond = float(np.mean(np.abs(points).max(1) > BOX))
    if beyond > OUTSIDE:
        raise UserError(
            f"with the scale {row['scale']:g} {beyond:.1%} of {row['kind']}'s points lie outside [-{BOX:g}, {BOX:g}]², "
            f"on which densities are drawn and trainings traced: write a larger scale, which divides the coordinates"
        )
    write(row, target, points)
