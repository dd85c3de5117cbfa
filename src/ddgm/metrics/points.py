"""Evidence from points alone: modes, the data's region, transport between two sets of points, ranks.

No density of the generator is estimated here, so nothing depends on cells or smoothing.
"""

from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ddgm.datasets import two_d

Array = NDArray[np.float64]
COVERED = 0.1  # of its due mass: what a mode must hold to count as covered
REGION = 0.99  # of the data
DIRECTIONS = 64  # onto which points are projected for the sliced distance


def edge(density_at_data: Array) -> float:
    """The density at the edge of the densest region that holds REGION of the data, by that at data, (n,)."""
    return float(np.quantile(density_at_data, 1 - REGION))


def shares_of_due_mass(dataset: dict[str, Any], samples: Array, edge: float) -> Array:
    """Each mode's share of the samples (n, 2), over the share it is due: (modes,), all REGION for the data.

    A sample is of the mode of highest posterior, if D's density there is that at the `edge` of its region or more: one
    that lies between the modes, or far off, is of none, however near it is to some mode.
    """
    due = two_d.mode_masses(dataset)
    found = two_d.mode(dataset, samples, edge)
    return np.bincount(found[found >= 0], minlength=len(due)) / len(samples) / due


def wasserstein(x: Array, y: Array) -> float:
    """The exact 2-Wasserstein distance between two equally weighted sets of points, in units of x.

    The square root of the cost of the cheapest one-to-one transport by squared distance (POT, network simplex).
    """
    return float(np.sqrt(ot.emd2([], [], ot.dist(x, y), numItermax=10**7)))


def sliced_wasserstein(x: Array, y: Array, seed: int) -> float:
    """2-Wasserstein in one dimension, root mean square over random projections (Bonneel et al. 2015), in units of x.

    As many points in x as in y, (n, 2): in one dimension the cheapest transport brings the k-th to the k-th. A shift by
    v gives about |v|/√2. POT's own function says the same, and takes ten times as long on 100,000 points.
    """
    angles = np.random.default_rng(seed).uniform(0, np.pi, DIRECTIONS)
    squares = [
        np.mean((np.sort(x @ direction) - np.sort(y @ direction)) ** 2)
        for direction in np.stack([np.cos(angles), np.sin(angles)], 1)
    ]
    return float(np.sqrt(np.mean(squares)))


def rank_correlation(energy: Array, density: Array) -> float:
    """Spearman's correlation of -E(x) with log p_D(x) over points, both (n,): 1 where E orders points as D does."""
    return float(spearmanr(-energy, density).statistic)
