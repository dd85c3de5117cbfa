"""Evidence in two dimensions, where nothing needs to be judged by eye: D the data, T the energy model, G the generator.

D's density is known, T's needs a partition function that quadrature gives, and G's is a smoothed histogram of many
samples. Divergences are in nats, total variation in shares of mass, transport in units of x.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from torch import nn

from ddgm import sampling
from ddgm.datasets import two_d
from ddgm.datasets.two_d import BOX
from ddgm.experiment import describe, load
from ddgm.metrics import points
from ddgm.metrics.activations import normality
from ddgm.metrics.table import write
from ddgm.metrics.virial import quadratic_share, virial
from ddgm.sampling import draw_in_parts, energies, energies_and_slopes, grid

Array = NDArray[np.float64]
CELL = 0.03  # width of the histogram's cells, a third of the data's smallest sd
SMOOTHING = 0.021  # sd of the smoothing of 100,000 samples, in units of x
FLOOR = 1e-6  # of G's mass is spread over all cells, so that a place without samples costs finitely many nats
FINEST = 3200  # nodes along a square's side where doubling ends; 82 MB an array
FARTHEST = 200.0  # half the side of the largest square that Z is summed over
COARSEST = 60  # nodes along the side of squares so far out that next to nothing of Z is left to be found
GROWTH = 1.5  # of the square's side from one ring to the next
WIDEST = BOX * GROWTH**3  # half the side of the largest square that is compared cell by cell
NEAR = 0.3  # sd of the noise that brings data off their modes, in units of x


class Square(NamedTuple):
    """D and T as mass per node on a square of (cells · inner)² nodes, indexed [y, x]."""

    data: Array
    log_model: Array
    log_outside: float  # of T's mass around the square
    log_z: float
    inner: int  # nodes along a cell's side
    change: float  # of KL(D‖T) when the nodes were last doubled, nats


def cells_across(half_width: float) -> int:
    """How many cells of about CELL a square has a side."""
    return round(2 * half_width / CELL)


def energies_at(energy: nn.Module, x: Array) -> Array:
    """E at points (n, 2) in double precision, (n,)."""
    return energies(energy, torch.from_numpy(x).float()).double().numpy()


def mass(density_at: Callable[[Array], Array], half_width: float, inner: int) -> Array:
    """A density's mass at inner x inner nodes a cell, (cells · inner, cells · inner)."""
    nodes = inner * cells_across(half_width)
    _, x = grid(half_width, nodes)
    return density_at(x).reshape(nodes, nodes) * (2 * half_width / nodes) ** 2


def log_masses(energy: nn.Module, half_width: float, inner: int) -> Array:
    """log of exp(-E) times the node's area at inner x inner nodes a cell: `mass`, not normalised, as a logarithm."""
    nodes = inner * cells_across(half_width)
    _, x = grid(half_width, nodes)
    return -energies_at(energy, x).reshape(nodes, nodes) + 2 * np.log(2 * half_width / nodes)


def log_ring(energy: nn.Module, half_width: float, nodes: int) -> float:
    """log ∫ exp(-E(x)) dx over a square less the one within it that is GROWTH times smaller, with nodes² for both."""
    _, x = grid(half_width, nodes)
    x = x[np.abs(x).max(1) > half_width / GROWTH]
    return float(logsumexp(-energies_at(energy, x)) + 2 * np.log(2 * half_width / nodes))


def log_parts(
    energy: nn.Module, square: Array, half_width: float, tolerance: float, inner: int = 1
) -> tuple[dict[float, float], bool]:
    """log ∫ exp(-E(x)) dx over a square, whose `log_masses` are `square`, and rings around it: {half a side: log part}.

    And whether Z has `settled` with them. The square has inner x inner nodes a cell; each ring around it is as finely
    divided for its size as the first square of BOX is. Ends when Z has settled, or at FARTHEST.
    """
    parts = {half_width: float(logsumexp(square))}
    while not (whole := settled(energy, parts, tolerance)) and GROWTH * half_width <= FARTHEST:
        half_width *= GROWTH
        parts[half_width] = log_ring(energy, half_width, inner * round(GROWTH * cells_across(BOX)))
    return parts, whole


def settled(energy: nn.Module, parts: dict[float, float], tolerance: float) -> bool:
    """Whether exp(-E) is integrable, as far as one can see, with the parts of Z that were summed.

    The outermost ring must add less than `tolerance` to Z, and so must all further ones together, out to FARTHEST, at
    far fewer nodes: an energy may rise at first and be flat beyond.
    """
    log_z = np.logaddexp.accumulate(list(parts.values()))
    if len(parts) < 2 or -np.expm1(log_z[-2] - log_z[-1]) >= tolerance:
        return False
    beyond, half_width = -np.inf, GROWTH * max(parts)
    while half_width <= FARTHEST:
        beyond = np.logaddexp(beyond, log_ring(energy, half_width, COARSEST))
        half_width *= GROWTH
    return bool(-np.expm1(log_z[-1] - np.logaddexp(log_z[-1], beyond)) < tolerance)


class Model(NamedTuple):
    """T on a square, normalised."""

    log_mass: Array  # at each node
    log_outside: float  # of its mass in the rings around the square
    log_z: float  # infinite where exp(-E) is not integrable: then there is no mass anywhere


def model_on(energy: nn.Module, half_width: float, tolerance: float, inner: int = 1) -> Model:
    """Eq. 1: the energy model on a square with inner x inner nodes a cell."""
    square = log_masses(energy, half_width, inner)
    parts, whole = log_parts(energy, square, half_width, tolerance, inner)
    log_z = np.logaddexp.reduce(list(parts.values())) if whole else np.inf
    outside = np.logaddexp.reduce([-np.inf, *list(parts.values())[1:]])
    return Model(square - log_z, float(outside - log_z), float(log_z))


def settle(
    energy: nn.Module,
    data_mass: Callable[[float, int], Array],
    half_width: float,
    tolerance: float,
    resolution: float,
) -> Square:
    """D and T on one square, with nodes doubled along each side until KL(D‖T) changes by less than `resolution` nats.

    data_mass(half_width, inner) is D's `mass`. With FINEST nodes a side it ends as well, and the square's `change` says
    what is left: such an energy changes within a fiftieth of the data's smallest sd. A model that is not integrable
    has no mass anywhere.
    """
    before, inner = np.inf, 1
    while True:
        square = Square(data_mass(half_width, inner), *model_on(energy, half_width, tolerance, inner), inner, 0.0)
        if not np.isfinite(square.log_z):
            return square
        now = kl_divergence(square.data, square.log_model)
        square = square._replace(change=abs(now - before))
        if square.change < resolution or 2 * inner * cells_across(half_width) > FINEST:
            return square
        before, inner = now, 2 * inner


def coarse(square: Square) -> tuple[Array, Array]:
    """D's mass and the logarithm of T's in each cell, (cells, cells) both."""
    cells = len(square.data) // square.inner
    blocks = (cells, square.inner, cells, square.inner)
    return square.data.reshape(blocks).sum((1, 3)), logsumexp(square.log_model.reshape(blocks), axis=(1, 3))


def cell_counts(samples: Array, half_width: float) -> Array:
    """How many samples (n, 2) lie in each cell of the square, (cells, cells) indexed [y, x]."""
    return sampling.cell_counts(samples, half_width, cells_across(half_width))


def smoothed(counts: Array, n: int) -> Array:
    """The counts of n samples as mass per cell, smoothed by a Gaussian, with FLOOR of the mass in all cells alike.

    The Gaussian's width falls with n^(-1/6), the rule for a plane (Scott 1992); SMOOTHING makes an exact sampler of
    either set score low at 100,000 samples as at 2 million.
    """
    blurred = gaussian_filter(counts / n, SMOOTHING / CELL * (n / 100_000) ** (-1 / 6), mode="constant")
    return (1 - FLOOR) * blurred + FLOOR / counts.size


def kl_divergence(p: Array, log_q: Array) -> float:
    """Σ p (log p - log q) over cells or nodes, in nats; those without p count nothing.

    q comes as a logarithm, since T may be e^-1000 where D is not.
    """
    inside = p > 0
    return float(np.sum(p[inside] * (np.log(p[inside]) - log_q[inside])))


def outside(p: Array) -> Array:
    """The mass (1,) that has no cell, as if it had one: that much may be anywhere around the square."""
    return np.array([max(1 - p.sum(), 0.0)])


def total_variation(p: Array, q: Array) -> float:
    """Half the sum of |p - q|, with the mass that either has outside the cells: 0 alike, 1 apart."""
    return float(0.5 * (np.abs(p - q).sum() + abs(p.sum() - q.sum())))


def distances(square: Square, generator: Array) -> dict[str, float]:
    """KL and total variation between D, T and G; G as mass per cell, T beside D at the finer nodes.

    What G throws out of the square is compared as a whole with what T has there: no generator comes closer to T by
    leaving it. D does not leave it.
    """
    data, log_model = coarse(square)
    return {
        "kl_data_model": kl_divergence(square.data, square.log_model),
        "kl_data_generator": kl_divergence(data, np.log(generator)),
        "kl_generator_model": kl_divergence(generator, log_model)
        + kl_divergence(outside(generator), np.array([square.log_outside])),
        "tv_data_model": total_variation(square.data, np.exp(square.log_model)),
        "tv_data_generator": total_variation(data, generator),
        "tv_generator_model": total_variation(generator, np.exp(log_model)),
        "kl_data_model_change": square.change,
        "log_partition": square.log_z,
    }


def integrable_within(energy: nn.Module, tolerance: float) -> float:
    """Half the side of the square around which the next ring adds less than `tolerance` to Z; infinity if none does.

    All others together must as well (`settled`).
    """
    parts, whole = log_parts(energy, log_masses(energy, BOX, 1), BOX, tolerance)
    return list(parts)[-2] if whole else np.inf


def square_around(*clouds: Array) -> float:
    """Half the side of a square that holds 99.999 % of each cloud's coordinates: BOX times a power of GROWTH.

    At most WIDEST: what a generator throws farther counts as mass outside.
    """
    reach = max(float(np.quantile(np.abs(cloud), 0.99999)) for cloud in clouds)
    steps = np.ceil(np.log(max(reach, BOX) / BOX) / np.log(GROWTH))
    return float(min(BOX * GROWTH**steps, WIDEST))


def compare_points(
    energy: nn.Module, samples: Array, data: Array, dataset: dict[str, Any], transport: int, seed: int
) -> dict[str, float]:
    """What samples and fresh data, (n, 2) and (m, 2), say without an estimated density (points.py, virial.py)."""
    ranked = ranked_places(data, dataset, seed)
    _, at_data = ranked["rank_correlation"]
    shares = points.shares_of_due_mass(dataset, samples, points.edge(at_data))
    n = min(len(samples), len(data))
    looks = energies_and_slopes(energy, torch.from_numpy(samples).float())
    values, slopes = (found.double().numpy() for found in looks)
    return {
        "modes_covered": float(np.mean(shares >= points.COVERED)),
        "mode_share_smallest": float(shares.min()),
        "inside_99": float(shares @ two_d.mode_masses(dataset)),
        "wasserstein2": points.wasserstein(samples[:transport], data[:transport]),
        "wasserstein2_floor": points.wasserstein(data[-transport:], data[:transport]),
        "sliced_wasserstein2": points.sliced_wasserstein(samples[:n], data[:n], seed),
        "virial": virial(slopes, samples),
        "quadratic_share": quadratic_share(values, samples),
        **ranks(energy, ranked),
    }


def ranked_places(data: Array, dataset: dict[str, Any], seed: int) -> dict[str, tuple[Array, Array]]:
    """Points (n, 2) and D's density there, (n,): at the data, near them and anywhere in the square of BOX."""
    stream = np.random.default_rng(seed)
    near = data + NEAR * stream.standard_normal(data.shape)
    far = stream.uniform(-BOX, BOX, data.shape)
    places = {"rank_correlation": data, "rank_correlation_near": near, "rank_correlation_far": far}
    return {name: (x, two_d.density(dataset, x)) for name, x in places.items()}


def ranks(energy: nn.Module, places: dict[str, tuple[Array, Array]]) -> dict[str, float]:
    """Whether E orders points as D does, at each of the `ranked_places`."""
    return {name: points.rank_correlation(energies_at(energy, x), at_x) for name, (x, at_x) in places.items()}


def measure(
    energy: nn.Module,
    parts: Iterator[Array],
    data: Array,
    dataset: dict[str, Any],
    settings: dict[str, Any],
    data_mass: Callable[[float, int], Array],
) -> dict[str, float]:
    """Every metric of one trained pair; the generator's samples come in `parts`, of which only the first is kept."""
    first = next(parts)
    half_width = square_around(first, data)
    square = settle(energy, data_mass, half_width, settings["tolerance"], settings["resolution"])
    counts, n = np.zeros((cells_across(half_width),) * 2), 0
    for part in chain([first], parts):
        counts, n = counts + cell_counts(part, half_width), n + len(part)
    found = distances(square, smoothed(counts, n))
    found["integrable_within"] = integrable_within(energy, settings["tolerance"])
    return found | compare_points(energy, first, data, dataset, settings["transport"], settings["seed"])


def evaluate(experiment: str, directory: Path, settings: dict[str, Any], dataset: dict[str, Any], target: Path) -> None:
    """Measure every seed of a two-dimensional experiment into one tidy table."""
    row = describe(directory)["row"]

    @cache
    def data_mass(half_width: float, inner: int) -> Array:
        return mass(lambda x: two_d.density(dataset, x), half_width, inner)

    rows = []
    for seed in row["seeds"]:
        energy, generator = load(directory, seed)
        stream = torch.Generator().manual_seed(settings["seed"])
        drawn = draw_in_parts(generator, settings["samples"], row["schedule"]["batch"], stream, settings["points"])
        data = two_d.sample(dataset, settings["points"], np.random.default_rng([settings["seed"], seed]))
        parts = (part.double().numpy() for part in drawn)
        found = measure(energy, parts, data, dataset, settings, data_mass)
        found |= normality(generator, row["schedule"]["batch"], torch.Generator().manual_seed(settings["seed"]))
        rows += [(experiment, seed, metric, value) for metric, value in found.items()]
    write(rows, target)
