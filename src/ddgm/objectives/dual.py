"""The paper's objective: the energy by Eqs. 7 and 12, the generator by Eq. 14."""

from torch import Tensor


def energy_loss(energy_data: Tensor, energy_samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """E[E(x+)] - E[E(x-)]: its gradient is the positive less the negative phase, Eqs. 7, 9 and 12; (S, N) -> (S,).

    `weights` (S, N), which add up to 1 a seed, take the place of 1/N in the negative phase.
    """
    return energy_data.mean(1) - mean(energy_samples, weights)


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Each seed's mean, weighted if there are weights: (S, N) -> (S,)."""
    return values.mean(1) if weights is None else (weights * values).sum(1)


def generator_loss(energy_samples: Tensor) -> Tensor:
    """E[E(G(z))] of Eq. 14, the first term of Eqs. 10 and 13 but for log Z, which G does not change: (S, N) -> (S,)."""
    return energy_samples.mean(1)
