"""The likelihood of an energy model on a box by annealed importance sampling (Neal 2001), where no grid is fine enough.

p(x) = exp(-E(x)) / Z in the box [low, high]^d and 0 outside it, since pixels are bounded. Chains go from the uniform
density to p through exp(-βE), and their importance weights estimate Z. E[Ẑ] = Z, so log Ẑ is too low on average and a
likelihood from it optimistic, the more so the fewer chains carry the weight. From samples of p back to the uniform
density the error is to the other side (Burda, Grosse and Salakhutdinov 2015). The two enclose log Z on average, unless
there is a mode that neither the chains nor the samples have found. All in nats.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddgm.sampling import energies_and_slopes

POWER = 2.0  # of the schedule β = t^POWER
SCOUTS = 4  # one chain in so many sets the steps of the others, and is not weighed
ACCEPTANCE = 0.65  # of moves: the best in high dimensions (Beskos et al. 2013)
PACE = 0.5  # change of log step from one temperature to the next, by the acceptance's distance from ACCEPTANCE
FIRST, WIDEST = 0.5, 2.0  # step, in standard deviations of a coordinate
NARROWEST = 1e-3  # standard deviation that a step is measured by, as a share of the box: scouts may start all alike


class Annealed(NamedTuple):
    """log Z as estimated from below, or from above if the chains started from samples."""

    log_partition: float  # nats
    error: float  # standard error of log_partition, nats
    effective_sample_size: float  # share of the weighed chains: 1 if all weigh the same
    acceptance: float  # of the last move, among the weighed chains
    samples: Tensor  # (chains, *shape): where weighed chains ended, drawn by their weights; about p if forwards


class Place(NamedTuple):
    """Where the chains are: x (N, *shape), E there (N,) and its slope (N, *shape)."""

    x: Tensor
    value: Tensor
    slope: Tensor


def look(energy: nn.Module, x: Tensor) -> Place:
    """E and its slope for all chains together."""
    value, slope = energies_and_slopes(energy, x)
    # In double precision, since weights add up hundreds of nats.
    return Place(x, value.double(), slope)


def reflect(x: Tensor, momentum: Tensor, limits: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Mirror what left the box at its walls, as often as it takes to be inside, and turn its momentum round."""
    low, high = limits
    along = torch.remainder(x - low, 2 * (high - low))
    returning = along > high - low
    inside = low + torch.where(returning, 2 * (high - low) - along, along)
    # Rounding may put it a last digit outside.
    return inside.clamp(low, high), torch.where(returning, -momentum, momentum)


def kinetic(momentum: Tensor) -> Tensor:
    """p'p/2, (N, *shape) -> (N,)."""
    return momentum.double().square().flatten(1).sum(1) / 2


def hamiltonian_move(
    energy: nn.Module,
    before: Place,
    beta: float,
    step: Tensor,
    leapfrog: int,
    limits: tuple[float, float],
    stream: torch.Generator,
) -> tuple[Place, Tensor]:
    """One move of every chain that leaves exp(-βE) in the box as it is, and which moves were accepted, (N,).

    `step` (*shape) is the step of each coordinate, in units of x. The leapfrog's flights between kicks are mirrored at
    the walls: that is reversible and keeps volume, as a straight flight does, so detailed balance is exact (Neal 2011,
    section 5.5.1).
    """
    momentum = torch.randn(before.x.shape, generator=stream, device=before.x.device)
    log_ratio, after = beta * before.value + kinetic(momentum), before
    for _ in range(leapfrog):
        momentum = momentum - beta / 2 * step * after.slope
        x, momentum = reflect(after.x + step * momentum, momentum, limits)
        after = look(energy, x)
        momentum = momentum - beta / 2 * step * after.slope
    log_ratio = log_ratio - beta * after.value - kinetic(momentum)
    take = torch.rand(len(log_ratio), generator=stream, device=log_ratio.device).log() < log_ratio
    kept = (torch.where(take.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(after, before, strict=True))
    return Place(*kept), take


def schedule(temperatures: int) -> list[float]:
    """β from 0 to 1, spaced as a power of even steps.

    Steps in β should be as one over the sd of E under exp(-βE): for d coordinates that is about √(d/2)/β once they are
    held in wells, and stops growing near 0, where they fill the box. A power of t has steps as β^(1 - 1/POWER), fine
    near 0, and no scale of E to be chosen.
    """
    return (torch.linspace(0, 1, temperatures, dtype=torch.float64) ** POWER).tolist()


def log_mean_exp(log_weights: Tensor) -> tuple[float, float]:
    """The logarithm of the mean weight and its standard error by the jackknife, nats.

    When one chain has nearly all the weight, the jackknife says many nats; the delta method never says more than one.
    """
    n = len(log_weights)
    total = torch.logsumexp(log_weights, 0)
    share = (log_weights - total).exp().clamp(max=1 - 1e-12)
    without = torch.log1p(-share)
    error = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt()
    return float(total) - math.log(n), float(error)


def annealed_log_partition(
    energy: nn.Module,
    shape: tuple[int, ...],
    limits: tuple[float, float],
    settings: dict[str, Any],
    stream: torch.Generator,
    start: Tensor | None = None,
) -> Annealed:
    """Estimate log Z of exp(-E) in the box limits^shape, with `energy` (N, *shape) -> (N,) in evaluation mode.

    settings: `chains`, at least 8; `temperatures`, how many β from 0 to 1; `leapfrog`, steps a move, one pass forward
    and backward each. With `start`, samples of p inside the box, (chains, *shape), it anneals from them to the uniform
    density instead: log Z is too high on average if they are exact and independent; if not, it is no bound.

    The steps of a move follow how wide the scouts lie in each coordinate, and how often they accepted the last move.
    Scouts alone decide, since a chain whose own place sets its step no longer leaves exp(-βE) as it is: over hundreds
    of coordinates and temperatures that adds up to tens of nats. So the weights of the others stay unbiased.
    """
    low, high = limits
    log_volume = math.prod(shape) * math.log(high - low)
    betas = schedule(settings["temperatures"])
    if start is None:
        uniform = torch.rand(settings["chains"], *shape, generator=stream, device=stream.device)
        place = look(energy, low + (high - low) * uniform)
    else:
        betas.reverse()
        place = look(energy, start)
    scouts = len(place.x) // SCOUTS
    log_weights = torch.zeros_like(place.value)
    width, accepted = FIRST, 1.0
    for before, beta in pairwise(betas):
        log_weights += (before - beta) * place.value
        step = width * place.x[:scouts].std(0).clamp(min=NARROWEST * (high - low))
        place, take = hamiltonian_move(energy, place, beta, step, settings["leapfrog"], limits, stream)
        width = min(width * math.exp(PACE * (float(take[:scouts].float().mean()) - ACCEPTANCE)), WIDEST)
        accepted = float(take[scouts:].float().mean())
    log_weights = log_weights[scouts:]
    log_ratio, error = log_mean_exp(log_weights)
    weights = torch.softmax(log_weights, 0)
    drawn = torch.multinomial(weights, len(place.x), replacement=True, generator=stream)
    return Annealed(
        log_volume + (log_ratio if start is None else -log_ratio),
        error,
        1 / (len(weights) * float(weights.square().sum())),
        accepted,
        place.x[scouts:][drawn],
    )


def log_likelihood(energies: Tensor, log_partition: float) -> float:
    """Mean log p(x) of points with these energies (N,), in nats; optimistic as far as log Z is too low."""
    return -float(energies.double().mean()) - log_partition
