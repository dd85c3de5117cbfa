"""Section 3.3's rival: adversarial nets, the same two, with D(x) = σ(-E(x)) (Goodfellow et al. 2014)."""

from torch import Tensor
from torch.nn.functional import softplus

from ddgm.objectives.classifier import energy_loss

__all__ = ["energy_loss", "generator_loss"]


def generator_loss(energy_samples: Tensor) -> Tensor:
    """-E[log D(G(z))], the form that does not saturate: (S, N) -> (S,)."""
    return softplus(energy_samples).mean(1)
