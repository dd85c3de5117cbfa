"""All seeds of an experiment as one: nets of one shape and different weights, computed as one batch."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ddgm.energy import widened

Parameters = dict[str, Tensor]


class Ensemble:
    """S nets of one architecture: every parameter gets a leading axis of S seeds, and so do inputs and outputs.

    Small nets are bound by the cost of each call, not by arithmetic, so that S seeds cost little more than one.
    Large ones, `apart`, are called one after the other, and so is a single net (S = 1). Seeds never mix: row s of the
    output depends on net s and on x[s] alone. All weights lie in one matrix `flat`, a row a net, which `parameters`
    are views of: an optimiser or an average makes one call for all.

    With `precision` "bfloat16" layers and activations are computed so (autocast); weights and results stay float32.
    """

    def __init__(self, nets: list[nn.Module], precision: str = "float32", apart: bool = False) -> None:
        self.precision, self.apart = precision, apart or len(nets) == 1
        parameters, buffers = stack_module_state(nets)
        self.shapes = {name: value.shape[1:] for name, value in parameters.items()}
        self.buffers: Parameters = {name: value.detach().clone() for name, value in buffers.items()}
        self.net = copy.deepcopy(nets[0])
        self.seeds = len(nets)
        self.hold(join(parameters.values()))

    def hold(self, flat: Tensor) -> None:
        """Take these weights, (S, P)."""
        self.flat = flat
        self.parameters = self.split(flat)

    def split(self, flat: Tensor) -> Parameters:
        """(S, P) to the parameters by name, (S, ...) each: views of `flat`, and leaves that want a gradient."""
        parts = flat.detach().split([math.prod(shape) for shape in self.shapes.values()], 1)
        return {
            name: part.view(-1, *shape).requires_grad_()
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def __call__(self, x: Tensor, parameters: Parameters | None = None) -> Tensor:
        """(S, N, *shape) -> (S, N, *result), with the ensemble's own parameters or others."""
        parameters = self.parameters if parameters is None else parameters
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if self.apart:
                nets = ({n: v[seed] for n, v in {**parameters, **self.buffers}.items()} for seed in range(self.seeds))
                return widened(torch.stack([functional_call(self.net, n, (y,)) for n, y in zip(nets, x, strict=True)]))
            return widened(vmap(self._one, randomness="different")(parameters, self.buffers, x))

    def _one(self, parameters: Parameters, buffers: Parameters, x: Tensor) -> Tensor:
        return functional_call(self.net, (parameters, buffers), (x,))

    def scales(self, parameters: Parameters | None = None) -> Tensor:
        """Every batch-norm scale σ_a of the nets (Eq. 15): (S, activations), on the graph of the parameters."""
        parameters = self.parameters if parameters is None else parameters
        found = [value for name, value in parameters.items() if name.endswith(".scale")]
        return torch.cat(found, 1) if found else self.flat.new_zeros(self.seeds, 0)

    def to(self, device: torch.device) -> "Ensemble":
        """Move the weights, before any optimiser holds them."""
        self.hold(self.flat.to(device))
        self.buffers = {n: v.to(device) for n, v in self.buffers.items()}
        self.net.to(device)
        return self

    def weights(self, index: int, flat: Tensor | None = None) -> Parameters:
        """One net's state dictionary, of the ensemble's own weights or of others (S, P)."""
        parameters = self.parameters if flat is None else self.split(flat)
        return {n: v[index].detach() for n, v in {**parameters, **self.buffers}.items()}


def join(values: Iterable[Tensor]) -> Tensor:
    """Tensors (S, ...) beside each other as one matrix (S, P)."""
    return torch.cat([value.detach().reshape(len(value), -1) for value in values], 1)
