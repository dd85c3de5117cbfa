"""Does MCMC mix where the generator does (section 1)? Shares of samples in each mode, against wall-clock time.

Both sample the same trained energy model: the generator by one pass, Langevin chains from one mode or from noise. In
two dimensions it can be sampled exactly too, which says what they are to come to.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddgm.datasets import two_d
from ddgm.datasets.two_d import BOX
from ddgm.experiment import describe, load
from ddgm.generator import Generator
from ddgm.metrics import points
from ddgm.metrics.table import write
from ddgm.sampling import draw_samples, energies, energies_and_slopes, grid

COLUMNS = ["experiment", "seed", "sampler", "step", "seconds", "metric", "value"]
GENERATOR, ONE_MODE, NOISE = "generator", "Langevin from one mode", "Langevin from noise"
EXACT, ERROR = "the energy model itself", "occupancy_error"
REPEATS = 31  # times that the generator draws: what takes milliseconds is not timed by one
SETS = 100  # of exact samples, whose mean error is what a chain is compared with
CLOSE = 0.05  # a chain has arrived when its occupancy's error is no more than this above that of as many exact samples
NODES = 600  # along a side of the square that exact samples are drawn from: nine in the data's smallest sd
EDGE = 100_000  # data that say where the region of their modes ends


class Modes(NamedTuple):
    """The data's modes, as samples of an energy model are counted in them."""

    dataset: dict[str, Any]
    edge: float  # the data's density below which a place is in no mode (points.py)

    def shares(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Of samples (n, 2), the share in each mode, and last in none: (modes + 1,)."""
        inside = points.shares_of_due_mass(self.dataset, samples, self.edge) * two_d.mode_masses(self.dataset)
        return np.append(inside, 1 - inside.sum())


def modes_of(dataset: dict[str, Any], seed: int) -> Modes:
    data = two_d.sample(dataset, EDGE, np.random.default_rng(seed))
    return Modes(dataset, points.edge(two_d.density(dataset, data)))


def occupancy_error(shares: NDArray[Any], of_model: NDArray[Any]) -> float:
    """Total variation between samples' shares of the modes and the energy model's own, (modes + 1,) both."""
    return float(0.5 * np.abs(shares - of_model).sum())


class Chains:
    """Metropolis-adjusted Langevin chains of exp(-E), all at once: x (n, 2) and the time they have taken.

    A proposal x - rate ∂E/∂x + √(2 rate) ε is accepted with the probability that leaves exp(-E) as it is (Roberts and
    Tweedie 1996), so that the chains are exact in the end whatever the rate.
    """

    def __init__(self, energy: nn.Module, x: Tensor, rate: float, stream: torch.Generator) -> None:
        self.energy, self.x, self.rate, self.stream = energy, x, rate, stream
        self.value, self.slope = energies_and_slopes(energy, x)
        self.seconds, self.accepted, self.steps = 0.0, 0.0, 0

    def run(self, steps: int) -> None:
        started = time.perf_counter()
        for _ in range(steps):
            noise = torch.randn(self.x.shape, generator=self.stream)
            proposal = self.x - self.rate * self.slope + (2 * self.rate) ** 0.5 * noise
            value, slope = energies_and_slopes(self.energy, proposal)
            back = self.x - proposal + self.rate * slope
            log_ratio = self.value - value + 0.5 * noise.square().sum(1) - back.square().sum(1) / (4 * self.rate)
            take = torch.rand(len(log_ratio), generator=self.stream).log() < log_ratio
            self.x = torch.where(take[:, None], proposal, self.x)
            self.value = torch.where(take, value, self.value)
            self.slope = torch.where(take[:, None], slope, self.slope)
            self.accepted += float(take.float().mean())
        self.steps += steps
        self.seconds += time.perf_counter() - started


def starts(dataset: dict[str, Any], n: int, spread: float, seed: int) -> dict[str, NDArray[Any]]:
    """Where chains begin, (n, 2) each: at data of the first mode alone, or at N(0, spread²)."""
    stream = np.random.default_rng(seed)
    mode, share = np.empty((0, 2)), two_d.mode_masses(dataset)[0]
    while len(mode) < n:
        data = two_d.sample(dataset, int(2 * n / share), stream)
        mode = np.concatenate([mode, data[two_d.mode(dataset, data) == 0]])
    return {ONE_MODE: mode[:n], NOISE: spread * stream.standard_normal((n, 2))}


def exact_samples(energy: nn.Module, n: int, sets: int, seed: int) -> Iterator[NDArray[Any]]:
    """`sets` sets of n samples of the energy model in the square of BOX, (n, 2) each.

    A node of NODES x NODES by its share of exp(-E), and a place at random in the cell around it.
    """
    _, nodes = grid(BOX, NODES)
    values = energies(energy, torch.from_numpy(nodes).float()).double()
    shares, stream = torch.softmax(-values, 0).numpy(), np.random.default_rng(seed)
    for _ in range(sets):
        chosen = nodes[stream.choice(len(nodes), n, p=shares)]
        yield chosen + 2 * BOX / NODES * stream.uniform(-0.5, 0.5, chosen.shape)


def along_chains(chains: Chains, steps: int, looks: int) -> Iterator[tuple[int, float, NDArray[Any]]]:
    """(steps done, seconds, places (n, 2)) at the start and at `looks` times in equal ratios up to `steps`."""
    yield 0, 0.0, chains.x.double().numpy()
    for last in sorted({round(step) for step in np.geomspace(steps, 1, looks)}):
        chains.run(last - chains.steps)
        yield last, chains.seconds, chains.x.double().numpy()


def timed_samples(generator: Generator, n: int, batch: int, seed: int) -> tuple[float, NDArray[Any]]:
    """n samples of the generator, (n, 2), and the seconds that drawing them takes: the median of REPEATS times."""
    stream = torch.Generator().manual_seed(seed)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        samples = draw_samples(generator, n, batch, stream)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), samples.double().numpy()


def measure(
    energy: nn.Module, generator: Generator, settings: dict[str, Any], dataset: dict[str, Any], batch: int, seed: int
) -> list[tuple[str, int, float, str, float]]:
    """(sampler, step, seconds, metric, value) of one trained pair: of each sampler the `occupancy_error`.

    A chain's last row has its `acceptance`, and its `slowdown`: the seconds until its occupancy's error came within
    CLOSE of that of as many exact samples of the energy model, over the generator's for as many; infinite if it never
    did.
    """
    n, modes = settings["chains"], modes_of(dataset, settings["seed"])
    seconds, samples = timed_samples(generator, n, batch, seed)
    exact = [modes.shares(x) for x in exact_samples(energy, n, SETS, settings["seed"])]
    of_model = np.mean(exact, 0)
    floor = float(np.mean([occupancy_error(shares, of_model) for shares in exact]))

    def error(x: NDArray[Any]) -> float:
        return occupancy_error(modes.shares(x), of_model)

    rows = [(GENERATOR, 1, seconds, ERROR, error(samples)), (EXACT, 0, 0.0, ERROR, floor)]
    for sampler, x in starts(dataset, n, settings["spread"], seed).items():
        stream = torch.Generator().manual_seed(seed)
        chains = Chains(energy, torch.from_numpy(x).float(), settings["rate"], stream)
        arrived = np.inf
        for step, elapsed, places in along_chains(chains, settings["steps"], settings["looks"]):
            found = error(places)
            rows.append((sampler, step, elapsed, ERROR, found))
            arrived = min(arrived, elapsed) if found <= floor + CLOSE else arrived
        ends = {"slowdown": arrived / seconds, "acceptance": chains.accepted / chains.steps}
        rows += [(sampler, settings["steps"], chains.seconds, *item) for item in ends.items()]
    return rows


def evaluate(experiment: str, directory: Path, settings: dict[str, Any], dataset: dict[str, Any], target: Path) -> None:
    """Let every seed's generator and chains sample its energy model, into one tidy table."""
    # One thread for both: times are compared.
    torch.set_num_threads(1)
    row = describe(directory)["row"]
    rows = []
    for seed in row["seeds"]:
        found = measure(*load(directory, seed), settings, dataset, row["schedule"]["batch"], seed)
        rows += [(experiment, seed, *line) for line in found]
    write(rows, target, COLUMNS)
