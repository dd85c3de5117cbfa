"""What keeps the energy from running off: a penalty on its gradient. Not in the paper; weight 0 switches it off."""

import torch
from torch import Tensor


def slopes_of(energies: Tensor, x: Tensor) -> Tensor:
    """∂E(x)/∂x at each row, on the graph: energies (S, N) of x (S, N, *shape), which requires a gradient."""
    return torch.autograd.grad(energies.sum(), x, create_graph=True)[0]


def squared_norm(slopes: Tensor) -> Tensor:
    """E[‖∂E(x)/∂x‖²] over the rows: (S, N, *shape) -> (S,)."""
    return slopes.flatten(2).square().sum(2).mean(1)
