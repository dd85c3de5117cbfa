"""The 2D sets of Figure 2, four-spin and two-spiral: their points, and their densities as functions.

The paper names the sets and does not define them; the constants are those of the first author's lab's later code
(CEGAN), written out in params.yaml. A row's `scale` divides the coordinates.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddgm.datasets import prepared
from ddgm.errors import UserError

Points = NDArray[np.float64]


def sample(row: dict, n: int, stream: np.random.Generator) -> Points:
    """n points of a data set, (n, 2)."""
    return {"four_spin": sample_four_spin, "two_spiral": sample_two_spiral}[row["kind"]](row, n, stream)


def density(row: dict, x: Points) -> NDArray[np.float64]:
    """The exact density of a data set at x, (n, 2) -> (n,), per unit area."""
    return {"four_spin": density_four_spin, "two_spiral": density_two_spiral}[row["kind"]](row, x)


def sample_four_spin(row: dict, n: int, stream: np.random.Generator) -> Points:
    """(a, b) ~ N((1, 0), diag(radial_sd², tangential_sd²)), rotated by its arm's angle plus twist · exp(a)."""
    a = 1 + row["radial_sd"] * stream.standard_normal(n)
    b = row["tangential_sd"] * stream.standard_normal(n)
    arm = stream.integers(row["arms"], size=n)
    angle = arm * 2 * np.pi / row["arms"] + row["twist"] * np.exp(a)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * a - sin * b, sin * a + cos * b], 1) / row["scale"]


def density_four_spin(row: dict, x: Points, cells: int = 160, chunk: int = 16384) -> NDArray[np.float64]:
    """Sum over every (a, b) that the twist brings to x of its Gaussian density over the Jacobian |1 - b · d angle/da|.

    The twist keeps the radius r, so that the preimages of x are the angles ψ, a = r cos ψ and b = r sin ψ, at which
    ψ + twist · exp(r cos ψ) equals x's angle modulo an arm's angle: bracketed on `cells` intervals of ψ, then Newton.
    Two roots in one interval are missed; with 160 that costs less than 1e-4 of the mass, far from the arms.
    """
    if len(x) > chunk:
        return np.concatenate(
            [density_four_spin(row, part, cells, chunk) for part in np.array_split(x, -(-len(x) // chunk))]
        )
    y = np.asarray(x, np.float64) * row["scale"]
    r, angle = np.hypot(y[:, 0], y[:, 1])[:, None], np.arctan2(y[:, 1], y[:, 0])[:, None]
    arm = 2 * np.pi / row["arms"]

    def excess(psi: Points, r: Points, angle: Points) -> Points:
        return psi + row["twist"] * np.exp(r * np.cos(psi)) - angle

    edges = np.linspace(-np.pi, np.pi, cells + 1)[None]
    turns = np.floor(excess(edges, r, angle) / arm)
    point, cell = np.nonzero(np.diff(turns, axis=1))
    r, angle = r[point, 0], angle[point, 0]
    target = np.maximum(turns[point, cell], turns[point, cell + 1]) * arm
    low, high = edges[0, cell], edges[0, cell + 1]
    psi = (low + high) / 2
    for _ in range(6):
        slope = 1 - row["twist"] * np.exp(r * np.cos(psi)) * r * np.sin(psi)
        step = (excess(psi, r, angle) - target) / np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        psi = np.clip(psi - step, low, high)
    a, b = r * np.cos(psi), r * np.sin(psi)
    gauss = normal(a - 1, row["radial_sd"]) * normal(b, row["tangential_sd"])
    jacobian = np.abs(1 - row["twist"] * np.exp(a) * b)
    share = gauss / np.maximum(jacobian, 1e-9) / row["arms"] * row["scale"] ** 2
    return np.bincount(point, share, minlength=len(y))


def spiral_centres(row: dict) -> Points:
    """The centres of both spirals: (-t cos t, t sin t) and its negative, t from start over sweep, (2 centres, 2)."""
    t = np.deg2rad(row["start"] + np.linspace(0, 1, row["centres"]) * row["sweep"])
    arm = np.stack([-np.cos(t) * t, np.sin(t) * t], 1)
    return np.concatenate([arm, -arm])


def sample_two_spiral(row: dict, n: int, stream: np.random.Generator) -> Points:
    """A centre of either spiral at random, plus N(0, sd²) on each coordinate."""
    centres = spiral_centres(row)
    centre = centres[stream.integers(len(centres), size=n)]
    return (centre + row["sd"] * stream.standard_normal((n, 2))) / row["scale"]


def density_two_spiral(row: dict, x: Points, chunk: int = 20000) -> NDArray[np.float64]:
    """The equal mixture of a Gaussian about each centre."""
    centres, y = spiral_centres(row), np.asarray(x, np.float64) * row["scale"]
    parts = np.array_split(y, max(1, -(-len(y) // chunk)))
    one = [normal(part[:, None] - centres, row["sd"]).prod(2).mean(1) for part in parts]
    return np.concatenate(one) * row["scale"] ** 2


def normal(x: Points, sd: float) -> Points:
    """The density of N(0, sd²) at x."""
    return np.exp(-0.5 * (x / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def prepare(row: dict, raw: Path, split: str, target: Path, workers: int = 1) -> None:
    """Write the split `target` (prepared.py): row["points"] points, float32; each split has its own random stream.

    There is nothing raw, and nothing to share among workers: neither is used.
    """
    splits = ("train", "test")
    if split not in splits:
        raise UserError(f"{row['kind']} has no split '{split}': allowed are {', '.join(splits)}")
    stream = np.random.default_rng([row["seed"], splits.index(split)])
    prepared.write(row, target, sample(row, row["points"], stream).astype(np.float32))
