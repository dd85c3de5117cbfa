"""The 2D sets of Figure 2, four-spin and two-spiral: their points, and their densities as functions.

The paper names the sets and does not define them; the constants are those of the first author's lab's later code
(CEGAN), written out in params.yaml. A row's `scale` divides the coordinates.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]
BOX = 3.0  # half the side of the square that nets are drawn, traced and annealed on, and of the smallest measured on
SPIRAL_PARTS = 8  # modes of one spiral: equal parts of its sweep, each about as long as four of its sd


def sample(row: dict, n: int, stream: np.random.Generator) -> Points:
    """n points of a data set, (n, 2)."""
    return {"four_spin": sample_four_spin, "two_spiral": sample_two_spiral}[row["kind"]](row, n, stream)


def density(row: dict, x: Points) -> NDArray[np.float64]:
    """The exact density of a data set at x, (n, 2) -> (n,), per unit area."""
    return mode_densities(row, x).sum(1)


def mode_densities(row: dict, x: Points) -> NDArray[np.float64]:
    """What each mode adds to the density at x, (n, 2) -> (n, modes): arms of four-spin, parts of the two spirals."""
    of_kind, chunk = {"four_spin": (arm_densities, 16384), "two_spiral": (part_densities, 20000)}[row["kind"]]
    pieces = np.array_split(np.asarray(x, np.float64) * row["scale"], max(1, -(-len(x) // chunk)))
    return np.concatenate([of_kind(row, piece) for piece in pieces]) * row["scale"] ** 2


def mode_masses(row: dict) -> NDArray[np.float64]:
    """The share of the data that each mode is due, (modes,), in mode_densities' order."""
    if row["kind"] == "four_spin":
        return np.full(row["arms"], 1 / row["arms"])
    starts = spiral_parts(row)
    return np.diff(starts, append=2 * row["centres"]) / (2 * row["centres"])


def mode(row: dict, x: Points, least: float = 0.0) -> NDArray[np.int64]:
    """The mode of highest posterior at x, (n, 2) -> (n,); -1 where the density is zero, or below `least`."""
    densities = mode_densities(row, x)
    return np.where(densities.any(1) & (densities.sum(1) >= least), densities.argmax(1), -1)


def sample_four_spin(row: dict, n: int, stream: np.random.Generator) -> Points:
    """(a, b) ~ N((1, 0), diag(radial_sd², tangential_sd²)), rotated by its arm's angle plus twist · exp(a)."""
    a = 1 + row["radial_sd"] * stream.standard_normal(n)
    b = row["tangential_sd"] * stream.standard_normal(n)
    arm = stream.integers(row["arms"], size=n)
    angle = arm * 2 * np.pi / row["arms"] + row["twist"] * np.exp(a)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * a - sin * b, sin * a + cos * b], 1) / row["scale"]


def arm_densities(row: dict, y: Points, cells: int = 160) -> NDArray[np.float64]:
    """For each arm the sum over the (a, b) that its twist brings to y of their Gaussian density over the Jacobian
    |1 - b · d angle/da|: (n, 2) in units before scaling -> (n, arms).

    The twist keeps the radius r, so that the preimages of y are the angles ψ, a = r cos ψ and b = r sin ψ, at which
    ψ + twist · exp(r cos ψ) equals y's angle modulo an arm's angle: bracketed on `cells` intervals of ψ, then Newton.
    Two roots in one interval are missed; with 160 that costs less than 1e-4 of the mass, far from the arms.
    """
    r, angle = np.hypot(y[:, 0], y[:, 1])[:, None], np.arctan2(y[:, 1], y[:, 0])[:, None]
    arm = 2 * np.pi / row["arms"]

    def excess(psi: Points, r: Points, angle: Points) -> Points:
        return psi + row["twist"] * np.exp(r * np.cos(psi)) - angle

    edges = np.linspace(-np.pi, np.pi, cells + 1)[None]
    turns = np.floor(excess(edges, r, angle) / arm)
    point, cell = np.nonzero(np.diff(turns, axis=1))
    r, angle = r[point, 0], angle[point, 0]
    turn = np.maximum(turns[point, cell], turns[point, cell + 1])
    low, high = edges[0, cell], edges[0, cell + 1]
    psi = (low + high) / 2
    for _ in range(6):
        slope = 1 - row["twist"] * np.exp(r * np.cos(psi)) * r * np.sin(psi)
        step = (excess(psi, r, angle) - turn * arm) / np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        psi = np.clip(psi - step, low, high)
    a, b = r * np.cos(psi), r * np.sin(psi)
    gauss = normal(a - 1, row["radial_sd"]) * normal(b, row["tangential_sd"])
    jacobian = np.abs(1 - row["twist"] * np.exp(a) * b)
    share = gauss / np.maximum(jacobian, 1e-9) / row["arms"]
    # y's angle is that of its arm, plus ψ, plus the twist: excess counts the arm with a minus.
    of_arm = np.mod(-turn, row["arms"]).astype(np.int64)
    summed = np.bincount(point * row["arms"] + of_arm, share, minlength=len(y) * row["arms"])
    return summed.reshape(len(y), row["arms"])


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


def spiral_parts(row: dict) -> NDArray[np.int64]:
    """The first centre of every part of both spirals, (2 SPIRAL_PARTS,): equal parts, as far as centres divide."""
    parts = min(SPIRAL_PARTS, row["centres"])
    return np.arange(2 * parts) * row["centres"] // parts


def part_densities(row: dict, y: Points) -> NDArray[np.float64]:
    """The equal mixture of a Gaussian about each centre, summed over each part: (n, 2) before scaling -> (n, parts)."""
    centres, variance = spiral_centres(row), row["sd"] ** 2
    gaussians = np.exp(cdist(y, centres, "sqeuclidean") / (-2 * variance)) / (2 * np.pi * variance * len(centres))
    return np.add.reduceat(gaussians, spiral_parts(row), axis=1)


def normal(x: Points, sd: float) -> Points:
    """The density of N(0, sd²) at x."""
    return np.exp(-0.5 * (x / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
