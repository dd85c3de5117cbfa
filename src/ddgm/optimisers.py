"""Adagrad (section 4) or Adam, as PyTorch has them, on one net's weights."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam

# In the order of PyTorch's functions, by the names that its classes give them.
MOMENTS = {"adagrad": ["sum"], "adam": ["exp_avg", "exp_avg_sq"]}


class Optimiser:
    """Steps of `weights`, in place, down gradients; `rate` may be changed between steps.

    By PyTorch's functions, not its classes: what these do around an update takes longer than the update of a small net.
    Weight decay is the lab's L2, on the energy only.
    """

    def __init__(self, row: dict[str, Any], net: str, weights: Tensor) -> None:
        self.row, self.weights, self.rate = row, weights, row[f"{net}_rate"]
        self.decay = row["weight_decay"] if net == "energy" else 0.0
        # Not every PyTorch that may be installed has a fused Adagrad for a GPU: None lets it take the next best, which
        # counts its steps on the CPU.
        self.fused = True if row["kind"] == "adam" or weights.device.type == "cpu" else None
        self.steps = torch.zeros((), dtype=torch.float32, device=weights.device if self.fused else "cpu")
        # The lab's Adagrad has eps inside the root: a sum of squares that starts at eps, and none outside, is the same.
        start = row["eps"] if row["kind"] == "adagrad" else 0.0
        self.moments = {name: torch.full_like(weights, start) for name in MOMENTS[row["kind"]]}

    def step(self, gradient: Tensor) -> None:
        """One step down a gradient of the weights' shape."""
        row, moments = self.row, [[moment] for moment in self.moments.values()]
        shared = {"lr": self.rate, "weight_decay": self.decay, "maximize": False, "fused": self.fused}
        if row["kind"] == "adagrad":
            adagrad([self.weights], [gradient], *moments, [self.steps], lr_decay=0.0, eps=0.0, **shared)
        else:
            betas = {"beta1": row["beta1"], "beta2": row["beta2"], "amsgrad": False}
            adam([self.weights], [gradient], *moments, [], [self.steps], eps=row["eps"], **betas, **shared)

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, beside the weights."""
        return {"steps": self.steps, **self.moments}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a saved state."""
        for name, value in self.state().items():
            value.copy_(state[name])
