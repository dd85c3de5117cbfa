"""Section 2.3's view: the energy is a classifier P(y=1|x) = σ(-E(x)) of data against samples, Eq. 8 unapproximated."""

from torch import Tensor
from torch.nn.functional import softplus

from ddgm.objectives.dual import generator_loss, mean

__all__ = ["energy_loss", "generator_loss"]


def energy_loss(energy_data: Tensor, energy_samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """-E[log P(y|x)] at P(y=0) = P(y=1) = ½, the loss that Eq. 8 differentiates: (S, N) -> (S,).

    Its gradient weighs each phase with the probability of the wrong answer. Where that is ½ everywhere, it is a
    quarter of Eq. 7's. `weights` as in dual.py.
    """
    return 0.5 * (softplus(energy_data).mean(1) + mean(softplus(-energy_samples), weights))
