"""Does MCMC mix where the generator does (section 1)? Share of samples in each mode, against wall-clock time.

Both sample the same trained energy model: the generator by one pass, Langevin chains from one mode or from noise.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddgm.datasets import two_d
from ddgm.experiment import describe, load
from ddgm.generator import Generator
from ddgm.metrics import points
from ddgm.metrics.table import write
from ddgm.sampling import draw_samples, energies_and_slopes

COLUMNS = ["experiment", "seed", "sampler", "step", "seconds", "metric", "value"]
GENERATOR, ONE_MODE, NOISE, DATA = "generator", "Langevin from one mode", "Langevin from noise", "fresh data"
REPEATS = 31  # times that the generator draws: what takes milliseconds is not timed by one
FRESH = 100  # sets of fresh data whose mean error is what a chain is compared with
CLOSE = 0.05  # a chain has arrived when its occupancy's error is no more than this above that of as many data


def occupancy(dataset: dict[str, Any], samples: NDArray[Any]) -> dict[str, float]:
    """How samples (n, 2) are shared among the modes.

    `occupancy_error`: total variation between the modes' shares and those they are due; samples that belong to no mode
    count as misplaced. `modes_covered`: share of modes that hold a tenth of what they are due.
    """
    shares = points.shares_of_due_mass(dataset, samples)
    due = two_d.mode_masses(dataset)
    nowhere = 1 - float((shares * due).sum())
    return {
        "occupancy_error": 0.5 * (float(np.abs(shares - 1) @ due) + nowhere),
        "modes_covered": float(np.mean(shares >= points.COVERED)),
    }


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


def along_chains(
    chains: Chains, dataset: dict[str, Any], steps: int, looks: int
) -> Iterator[tuple[int, float, dict[str, float]]]:
    """(steps done, seconds, occupancy) at the start and at `looks` times in equal ratios up to `steps`."""
    yield 0, 0.0, occupancy(dataset, chains.x.double().numpy())
    for last in sorted({round(step) for step in np.geomspace(steps, 1, looks)}):
        chains.run(last - chains.steps)
        yield last, chains.seconds, occupancy(dataset, chains.x.double().numpy())


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
    """(sampler, step, seconds, metric, value) of one trained pair.

    A chain's last row has its `acceptance`, and its `slowdown`: the seconds until its occupancy came within CLOSE of
    that of as many data, over the generator's for as many samples; infinite if it never did.
    """
    n = settings["chains"]
    seconds, samples = timed_samples(generator, n, batch, seed)
    of_data = np.random.default_rng([settings["seed"], seed])
    fresh = [occupancy(dataset, two_d.sample(dataset, n, of_data)) for _ in range(FRESH)]
    floor = {metric: float(np.mean([some[metric] for some in fresh])) for metric in fresh[0]}
    rows = [(GENERATOR, 1, seconds, *item) for item in occupancy(dataset, samples).items()]
    rows += [(DATA, 0, 0.0, *item) for item in floor.items()]
    for sampler, x in starts(dataset, n, settings["spread"], seed).items():
        stream = torch.Generator().manual_seed(seed)
        chains = Chains(energy, torch.from_numpy(x).float(), settings["rate"], stream)
        arrived = np.inf
        for step, elapsed, found in along_chains(chains, dataset, settings["steps"], settings["looks"]):
            rows += [(sampler, step, elapsed, *item) for item in found.items()]
            close = found["occupancy_error"] <= floor["occupancy_error"] + CLOSE
            arrived = min(arrived, elapsed) if close else arrived
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
