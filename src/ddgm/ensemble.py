"""All seeds of an experiment as one: nets of one shape and different weights, computed as one batch."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Ensemble:
    """S nets of one architecture: every parameter gets a leading axis of S seeds, and so do inputs and outputs.

    Small nets are bound by the cost of each call, not by arithmetic, so that S seeds cost little more than one.
    A single net (S = 1) is called directly, without vmap. Seeds never mix: row s of the output depends on net s
    and on x[s] alone.
    """

    def __init__(self, nets: list[nn.Module]) -> None:
        parameters, buffers = stack_module_state(nets)
        self.parameters: dict[str, Tensor] = {
            name: value.detach().clone().requires_grad_() for name, value in parameters.items()
        }
        self.buffers: dict[str, Tensor] = {name: value.detach().clone() for name, value in buffers.items()}
        self.net = copy.deepcopy(nets[0])
        self.seeds = len(nets)

    def __call__(self, x: Tensor) -> Tensor:
        """(S, N, *shape) -> (S, N, *result)."""
        if self.seeds == 1:
            alone = {name: value.squeeze(0) for name, value in {**self.parameters, **self.buffers}.items()}
            return functional_call(self.net, alone, (x.squeeze(0),)).unsqueeze(0)
        return vmap(self._one, randomness="different")(self.parameters, self.buffers, x)

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.net, (parameters, buffers), (x,))

    def scales(self) -> Tensor:
        """Every batch-norm scale σ_a of the nets (Eq. 15): (S, activations), on the graph of the parameters."""
        found = [value for name, value in self.parameters.items() if name.endswith(".scale")]
        reference = next(iter(self.parameters.values()))
        return torch.cat(found, 1) if found else reference.new_zeros(self.seeds, 0)

    def to(self, device: torch.device) -> "Ensemble":
        """Move the weights, before any optimiser holds them."""
        self.parameters = {n: v.detach().to(device).requires_grad_() for n, v in self.parameters.items()}
        self.buffers = {n: v.to(device) for n, v in self.buffers.items()}
        self.net.to(device)
        return self

    def weights(self, index: int) -> dict[str, Tensor]:
        """One net's state dictionary."""
        return {n: v[index].detach() for n, v in {**self.parameters, **self.buffers}.items()}
