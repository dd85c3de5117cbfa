"""Where the samples x- of the energy's negative phase come from (Eq. 7): the paper's generator, and its rivals.

Each takes the pair in training and gives x-, (S, N, *shape), without a gradient; where x- are weighted, it leaves in
`pool` the samples that tell their density. `NEGATIVES` holds them by the name
params.yaml uses. The rivals are for points, where a box and a start are known; outliers are pictures, and ours.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ddgm.neighbours import log_distances
from ddgm.objectives.outliers import noised, outliers, spliced
from ddgm.row import neighbour_numbers


class Training(Protocol):
    """What is asked of the pair in training (pair.py)."""

    row: dict[str, Any]
    device: torch.device
    streams: list[torch.Generator]
    latent: Tensor | None
    chains: Tensor | None
    pool: Tensor

    def draw_latent(self) -> Tensor: ...
    def sampled(self, latent: Tensor) -> Tensor: ...
    def telling(self) -> Tensor: ...
    def power(self) -> Tensor: ...
    def energies(self, x: Tensor) -> Tensor: ...
    def slope(self, x: Tensor) -> Tensor: ...
    def normal(self, n: int) -> Tensor: ...
    def uniform(self, shape: tuple[int, ...]) -> Tensor: ...


def from_generator(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- = G(z), Eq. 12: the paper's. With `reuse_latent`, z is that of the generator's last update."""
    pair.pool = pair.telling()
    kept = pair.latent if row["reuse_latent"] else None
    return pair.sampled(pair.draw_latent() if kept is None else kept)


def from_blurred_generator(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- = G(z) + noise, of the first batch of those whose blurred density they are weighted by; ours."""
    pair.pool = pair.telling()
    centres = pair.pool[:, : pair.row["schedule"]["batch"]]
    return centres + spread_at(pair.power(), row) * pair.normal(centres.shape[1])


def spread_at(power: Tensor, row: dict[str, Any]) -> Tensor:
    """The noise's standard deviation at a power of the weights: on a geometric line from a tenth of `spread` to all."""
    return row["spread"] * 0.1 ** (1 - power)


def from_generator_and_splices(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- = G(z), and after them as many outliers (objectives/outliers.py) spliced of two of them each; ours."""
    x = pair.sampled(pair.draw_latent())
    n = outliers(row, x.shape[1])
    return torch.cat([x, spliced(x[:, :n], x.roll(1, 1)[:, :n], pair.uniform((3,))[:, :n], row["offset"])], 1)


def from_generator_and_noised(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- = G(z), and after them as many outliers: the first of them with noise, each of a strength of its own; ours."""
    x = pair.sampled(pair.draw_latent())
    n = outliers(row, x.shape[1])
    strength = row["strength"] * pair.uniform(())[:, :n]
    return torch.cat([x, noised(x[:, :n], pair.normal(n), strength, pair.row["range"])], 1)


def from_short_chains(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- after `steps` of Langevin dynamics from N(0, spread²), anew at each update."""
    start = row["spread"] * pair.normal(pair.row["schedule"]["batch"])
    return langevin(pair.slope, start, row["steps"], row["rate"], row["reach"], pair.normal)


def from_persistent_chains(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- after `steps` more of chains that are never started again (Tieleman 2008)."""
    if pair.chains is None:
        pair.chains = row["spread"] * pair.normal(pair.row["schedule"]["batch"])
    pair.chains = langevin(pair.slope, pair.chains, row["steps"], row["rate"], row["reach"], pair.normal)
    return pair.chains


def from_quadrature(pair: Training, row: dict[str, Any]) -> Tensor:
    """x- ~ P_Θ itself: nodes of a square grid, drawn by exp(-E) over their sum. Eq. 7 with nothing approximated.

    The grid covers [-half_width, half_width]² with nodes² nodes and is shifted at random at each update, so that
    every place can be drawn. A density whose structure is wider than half the nodes' distance is met exactly.
    """
    n, side = pair.row["schedule"]["batch"], 2 * row["half_width"] / row["nodes"]
    axis = (torch.arange(row["nodes"], device=pair.device) + 0.5) * side - row["half_width"]
    grid = torch.cartesian_prod(axis, axis)
    shift = torch.stack([torch.rand(2, generator=s, device=pair.device) - 0.5 for s in pair.streams]) * side
    nodes = grid + shift.unsqueeze(1)
    shares = torch.softmax(-pair.energies(nodes), 1)
    chosen = torch.stack([p.multinomial(n, True, generator=s) for p, s in zip(shares, pair.streams, strict=True)])
    return nodes.gather(1, chosen.unsqueeze(2).expand(-1, -1, nodes.shape[2]))


def sample_weights(
    energies: Tensor, samples: Tensor, pool: Tensor, power: Tensor, row: dict[str, Any]
) -> Tensor | None:
    """What each x- counts for in the negative phase, adding up to 1 a seed, or None for all alike, as Eq. 12 has it.

    exp(-E(x)) over the density that x- is drawn from makes the negative phase an expectation under P_Θ, as in Eq. 7:
    what the proposal draws too often or too seldom no longer misleads the energy. E(x-) and x-, (S, N) and
    (S, N, *shape), `pool`, (S, M, *shape), the samples that tell the density, and what power blurred samples' weights
    have, () -> (S, N).
    """
    if row["kind"] == "blurred":
        return blurred_weights(energies, samples, pool, power, row)
    return importance_weights(energies, samples, pool, row["importance"]) if row.get("importance") else None


def blurred_weights(energies: Tensor, samples: Tensor, centres: Tensor, power: Tensor, row: dict[str, Any]) -> Tensor:
    """(exp(-E(x)) / q(x))^power at blurred samples: (S, N), (S, N, *shape), (S, M, *shape), () -> (S, N).

    q is the mean of N(centre, spread²) over all `centres`, the mixture that x- are drawn from, for their own centres
    are among them and as likely as any: 1/q is right on average, and less noisy than what a few neighbours tell.
    Blurred samples also reach where the generator has none and E is low by mistake. Weights to a power are tempered: 0
    is Eq. 12, 1 is Eq. 7.
    """
    x, c = samples.flatten(2), centres.flatten(2)
    # One by one, for a product of matrices would round narrow noise away: a program adds them up as it goes.
    away = ((x.unsqueeze(2) - c.unsqueeze(1)) / spread_at(power, row)).square().sum(3)
    # Below -80 exp comes near numbers that a processor takes a hundred times longer for. Each x- has its own centre a
    # few standard deviations off, so that the sum is far above that.
    log_density = (-0.5 * away).clamp_min(-80.0).exp().sum(2).log()
    return cut_off(power * (-energies - log_density), row["largest"])


def importance_weights(energies: Tensor, samples: Tensor, others: Tensor, row: dict[str, Any]) -> Tensor:
    """exp(-E(x)) / p_G(x) at the generator's samples: (S, N), (S, N, *shape), (S, M, *shape) -> (S, N).

    p_G is read from the distance to the k-th neighbour (entropy.py), or from the mean logarithm of several, in the
    batch and among `others`, which serve for nothing else: the fewer there are, the wider p_G is smoothed, and with it
    exp(-E).
    """
    flat, pool = samples.flatten(2), torch.cat([samples, others], 1).flatten(2)
    distances = log_distances(flat, pool, neighbour_numbers(row)).mean(2)
    return cut_off(-energies + row["dimensions"] * distances, row["largest"])


def cut_off(log_weights: Tensor, largest: float) -> Tensor:
    """Weights (S, N) from their logarithms: none above `largest` times the mean (Ionides 2008), 1 a seed in all."""
    shares = torch.softmax(log_weights, 1).clamp_max(largest / log_weights.shape[1])
    return shares / shares.sum(1, keepdim=True)


def langevin(
    slope: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    rate: float,
    reach: float,
    normal: Callable[[int], Tensor],
) -> Tensor:
    """x - rate ∂E/∂x + √(2 rate) ε, `steps` times: the unadjusted Langevin dynamics of exp(-E), from x (S, N, *shape).

    slope(x) is ∂E/∂x at x, normal(n) is (S, n, *shape) of N(0, 1). A way down longer than `reach` is cut to it: where E
    bends by more than 2/rate, a chain would jump further at each step, and the energy that learns from it run off.
    """
    for _ in range(steps):
        down = rate * slope(x)
        length = down.flatten(2).norm(dim=2).clamp_min(reach).view(*x.shape[:2], *[1] * (x.dim() - 2))
        x = x - down * (reach / length) + (2 * rate) ** 0.5 * normal(x.shape[1])
    return x


NEGATIVES = {
    "generator": from_generator,
    "blurred": from_blurred_generator,
    "spliced": from_generator_and_splices,
    "noised": from_generator_and_noised,
    "langevin": from_short_chains,
    "persistent": from_persistent_chains,
    "quadrature": from_quadrature,
}
