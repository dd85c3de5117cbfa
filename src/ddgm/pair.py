"""The energy and the generator of an experiment in training: all seeds at once, and one round of their updates."""

import importlib
from typing import Any

import torch
from torch import Tensor

from ddgm.ensemble import Ensemble
from ddgm.entropy import ENTROPIES
from ddgm.experiment import build_ensembles, scale_pixels
from ddgm.generator import prior
from ddgm.objectives.penalty import gradient_penalty

COLUMNS = ["energy_data", "energy_samples", "entropy"]


class Pair:
    """Nets, optimisers, averages, random streams and the step: all that training changes.

    data: (points, *shape), float as it is or uint8 pixels, which `range` scales.
    """

    def __init__(self, row: dict[str, Any], data: Tensor, device: torch.device) -> None:
        self.row, self.device = row, device
        self.data = data.to(device)
        self.objective = importlib.import_module(f"ddgm.objectives.{row['objective']['kind']}")
        shape = tuple(data.shape[1:])
        energy, generator = build_ensembles(row, shape, row["seeds"])
        self.energy, self.generator = energy.to(device), generator.to(device)
        self.optimisers = {
            "energy": optimiser(row["optimiser"], "energy", self.energy),
            "generator": optimiser(row["optimiser"], "generator", self.generator),
        }
        self.averages = {
            net: {name: value.detach().clone() for name, value in ensemble.parameters.items()}
            for net, ensemble in self.nets()
            if row["average"][net] > 0
        }
        # One stream a seed, so that a seed draws the same whichever seeds train beside it.
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in row["seeds"]]
        # Noise inside the nets comes from one stream for all seeds: with it, the seeds beside a seed do matter.
        torch.manual_seed(row["seeds"][0])
        self.step = 0
        self.latent: Tensor | None = None

    def nets(self) -> list[tuple[str, Ensemble]]:
        return [("energy", self.energy), ("generator", self.generator)]

    def examples(self) -> Tensor:
        """x+ ~ P_D: a batch of training examples for each seed, (S, N, *shape)."""
        n = self.row["schedule"]["batch"]
        index = [torch.randint(len(self.data), (n,), generator=s, device=self.device) for s in self.streams]
        x = self.data[torch.stack(index)]
        return x if self.row["range"] is None else scale_pixels(x, self.row["range"])

    def draw_latent(self) -> Tensor:
        """z ~ P(z) for each seed, (S, N, latent)."""
        n, latent = self.row["schedule"]["batch"], self.row["generator"]["latent"]
        self.latent = torch.stack([prior(n, latent, s, self.device) for s in self.streams])
        return self.latent

    def update_generator(self) -> tuple[Tensor, Tensor]:
        """One step down Eq. 14's gradient less the weighted entropy (Eqs. 13 and 15): gives E(x-) and H, (S,) each."""
        samples = self.generator(self.draw_latent())
        entropy = ENTROPIES[self.row["entropy"]["kind"]](self.generator.scales(), samples, self.row["entropy"])
        energies = self.energy(samples)
        loss = self.objective.generator_loss(energies) - self.row["entropy"]["weight"] * entropy
        self.descend("generator", self.generator, loss)
        return energies.detach().mean(1), entropy.detach()

    def update_energy(self) -> tuple[Tensor, Tensor]:
        """One step down Eq. 12's gradient: gives E(x+) and E(x-), (S,) each."""
        data = self.examples()
        latent = self.latent if self.row["schedule"]["reuse_latent"] else self.draw_latent()
        with torch.no_grad():
            samples = self.generator(latent)
        penalty = self.row["objective"]["penalty"]
        x = torch.cat([data, samples], 1).requires_grad_(penalty > 0)
        energies = self.energy(x)
        n = data.shape[1]
        loss = self.objective.energy_loss(energies[:, :n], energies[:, n:])
        if penalty:
            loss = loss + penalty * gradient_penalty(energies, x)
        self.descend("energy", self.energy, loss)
        return energies[:, :n].detach().mean(1), energies[:, n:].detach().mean(1)

    def descend(self, net: str, ensemble: Ensemble, loss: Tensor) -> None:
        """One optimiser step on one net's parameters alone; loss (S,), a seed's gradient comes from its own loss."""
        parameters = list(ensemble.parameters.values())
        gradients = torch.autograd.grad(loss.sum(), parameters)
        clip = self.row["optimiser"]["clip"]
        scale = clip_scale(gradients, clip) if clip else None
        for parameter, gradient in zip(parameters, gradients, strict=True):
            clipped = gradient if scale is None else gradient * align(scale, gradient)
            # vmap and convolutions give gradients of other strides than the weights', and a fused step on the CPU
            # walks through both as they lie in memory.
            parameter.grad = torch.empty_like(parameter).copy_(clipped)
        self.optimisers[net].step()
        if net in self.averages:
            decay = self.row["average"][net]
            for name, average in self.averages[net].items():
                average.lerp_(ensemble.parameters[name].detach(), 1 - decay)

    def round(self) -> Tensor:
        """One round of the schedule, generator first as in the lab's code; gives (S, 3), the columns of COLUMNS."""
        schedule = self.row["schedule"]
        if schedule["rate"] == "linear":
            left = 1 - self.step / schedule["steps"]
            for net, optimiser_ in self.optimisers.items():
                optimiser_.param_groups[0]["lr"] = self.row["optimiser"][f"{net}_rate"] * left
        for _ in range(schedule["generator_steps"]):
            _, entropy = self.update_generator()
        for _ in range(schedule["energy_steps"]):
            energy_data, energy_samples = self.update_energy()
        self.step += 1
        return torch.stack([energy_data, energy_samples, entropy], 1)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "parameters": {net: {n: v.detach() for n, v in e.parameters.items()} for net, e in self.nets()},
            "optimisers": {net: optimiser_.state_dict() for net, optimiser_ in self.optimisers.items()},
            "averages": self.averages,
            "streams": [stream.get_state() for stream in self.streams],
            "stream": torch.get_rng_state(),
            "device_stream": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.step = state["step"]
        for net, ensemble in self.nets():
            for name, value in state["parameters"][net].items():
                ensemble.parameters[name].data.copy_(value)
            self.optimisers[net].load_state_dict(state["optimisers"][net])
        for net, average in state["averages"].items():
            for name, value in average.items():
                self.averages[net][name].copy_(value)
        for stream, saved in zip(self.streams, state["streams"], strict=True):
            stream.set_state(saved)
        torch.set_rng_state(state["stream"])
        if state["device_stream"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_stream"])

    def weights(self) -> dict[int, dict[str, dict[str, Tensor]]]:
        """{seed: {net: state dictionary}}, averaged nets as energy_average and generator_average."""
        result: dict[int, dict[str, dict[str, Tensor]]] = {}
        for index, seed in enumerate(self.row["seeds"]):
            nets = {net: ensemble.weights(index) for net, ensemble in self.nets()}
            for net, average in self.averages.items():
                nets[f"{net}_average"] = {
                    **nets[net],
                    **{name: value[index] for name, value in average.items()},
                }
            result[seed] = nets
        return result


def optimiser(row: dict[str, Any], net: str, ensemble: Ensemble) -> torch.optim.Optimizer:
    """Adagrad (section 4) or Adam on one net; weight decay is the lab's L2, on the energy only."""
    parameters = list(ensemble.parameters.values())
    decay = row["weight_decay"] if net == "energy" else 0.0
    rate = row[f"{net}_rate"]
    if row["kind"] == "adagrad":
        # The lab has eps inside the root. A sum of squares that starts at eps, and no eps outside, is the same.
        return torch.optim.Adagrad(parameters, rate, initial_accumulator_value=row["eps"], eps=0.0, weight_decay=decay)
    return torch.optim.Adam(parameters, rate, (row["beta1"], row["beta2"]), row["eps"], weight_decay=decay, fused=True)


def clip_scale(gradients: tuple[Tensor, ...], largest: float) -> Tensor:
    """The factor, at most 1, that brings each seed's gradient to norm `largest`: tensors (S, ...) -> (S,)."""
    norm = torch.stack([g.square().reshape(len(g), -1).sum(1) for g in gradients]).sum(0).sqrt()
    return (largest / (norm + 1e-12)).clamp_max(1)


def align(scale: Tensor, like: Tensor) -> Tensor:
    """(S,) to (S, 1, ..., 1) with as many axes as `like`."""
    return scale.view(-1, *(1,) * (like.dim() - 1))
