"""What keeps the energy from running off: a penalty on its gradient. Not in the paper; weight 0 switches it off."""

import torch
from torch import Tensor


def gradient_penalty(energies: Tensor, x: Tensor) -> Tensor:
    """E[‖∂E(x)/∂x‖²] over the rows of x: energies (S, N) of x (S, N, *shape), which requires a gradient -> (S,)."""
    (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return gradient.flatten(2).square().sum(2).mean(1)
