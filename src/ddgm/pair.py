"""The energy and the generator of an experiment in training: all seeds at once, and one round of their updates."""

import importlib
from typing import Any

import torch
from torch import Tensor

from ddgm.compiled import compiled
from ddgm.ensemble import Ensemble, Parameters, join
from ddgm.entropy import ENTROPIES, Draw
from ddgm.experiment import build_ensembles, scale_pixels
from ddgm.generator import prior
from ddgm.negative_phase import NEGATIVES, importance_weights
from ddgm.objectives.penalty import gradient_penalty

# Compilation takes half a minute, at most once a machine and shape: trainings with less to do than so many updates of
# one weight do without.
WORTH_COMPILING = 1.5e9
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
        self.averages = {net: ensemble.flat.clone() for net, ensemble in self.nets() if row["average"][net] > 0}
        # One stream a seed, so that a seed draws the same whichever seeds train beside it.
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in row["seeds"]]
        # Noise inside the nets comes from one stream for all seeds: with it, the seeds beside a seed do matter.
        torch.manual_seed(row["seeds"][0])
        self.step = 0
        self.latent: Tensor | None = None
        self.chains: Tensor | None = None
        updates = row["schedule"]["steps"] * sum(ensemble.flat.numel() for _, ensemble in self.nets())
        if device.type == "cpu" and row["generator"]["kind"] == "dense" and updates >= WORTH_COMPILING:
            self.compile()

    def nets(self) -> list[tuple[str, Ensemble]]:
        return [("energy", self.energy), ("generator", self.generator)]

    def compile(self) -> None:
        """What every step computes as programs: what a call of each small operation costs is most of a step."""
        n, seeds = self.row["schedule"]["batch"], len(self.row["seeds"])
        latent = torch.zeros(seeds, n, self.row["generator"]["latent"])
        others = torch.zeros(seeds, self.references, self.row["generator"]["latent"])
        data = self.scaled(self.data[:1]).expand(seeds, n, *self.data.shape[1:]).contiguous()
        energy, generator = self.energy.flat, self.generator.flat
        weight = torch.tensor(0.0)
        self.generator_gradient = compiled(self.generator_gradient, generator, energy, latent, others)
        # A tensor given twice would be traced as one argument.
        self.energy_gradient = compiled(self.energy_gradient, energy, data.clone(), data, weight)
        if self.row["negative"]["kind"] == "generator":
            self.generate = compiled(self.generate, generator, latent)
        elif self.row["negative"]["kind"] != "quadrature":
            self.energy_slope = compiled(self.energy_slope, energy, data)

    def scaled(self, x: Tensor) -> Tensor:
        """Pixels to floats in `range`, what is no picture as it is."""
        return x if self.row["range"] is None else scale_pixels(x, self.row["range"])

    def examples(self) -> Tensor:
        """x+ ~ P_D: a batch of training examples for each seed, (S, N, *shape)."""
        n = self.row["schedule"]["batch"]
        index = [torch.randint(len(self.data), (n,), generator=s, device=self.device) for s in self.streams]
        # One call for all seeds, and faster than indexing.
        chosen = self.data.index_select(0, torch.cat(index)).view(len(self.streams), n, *self.data.shape[1:])
        return self.scaled(self.black_and_white(chosen) if self.row["binarised"] else chosen)

    def black_and_white(self, pixels: Tensor) -> Tensor:
        """Each pixel 0 or 255, the latter with its brightness as the probability: uint8 (S, N, *shape)."""
        shape = pixels.shape[1:]
        even = torch.stack([torch.rand(shape, generator=s, device=self.device) for s in self.streams])
        return (255 * (255 * even < pixels)).to(torch.uint8)

    def draw_latent(self) -> Tensor:
        """z ~ P(z) for each seed, (S, N, latent)."""
        self.latent = self.prior(self.row["schedule"]["batch"])
        return self.latent

    def prior(self, n: int) -> Tensor:
        """n more z of each seed's stream, (S, n, latent)."""
        return torch.stack([prior(n, self.row["generator"]["latent"], s, self.device) for s in self.streams])

    def normal(self, n: int) -> Tensor:
        """N(0, 1) of each seed's stream, (S, n, *shape)."""
        shape = (n, *self.data.shape[1:])
        return torch.stack([torch.randn(shape, generator=s, device=self.device) for s in self.streams])

    @property
    def references(self) -> int:
        """Samples that the entropy's estimator wants beside the batch."""
        return self.row["entropy"].get("references", 0)

    def generate(self, generator: Tensor, latent: Tensor) -> Tensor:
        """x = G(z) without a gradient: weights (S, P) and z (S, N, latent) -> (S, N, *shape)."""
        with torch.no_grad():
            return self.generator(latent, self.generator.split(generator))

    def sampled(self, latent: Tensor) -> Tensor:
        """G(z) of the generator as it is now."""
        return self.generate(self.generator.flat, latent)

    def energies(self, x: Tensor) -> Tensor:
        """E(x) of every seed without a gradient, (S, N, *shape) -> (S, N)."""
        with torch.no_grad():
            return self.energy(x)

    def energy_slope(self, energy: Tensor, x: Tensor) -> Tensor:
        """∂E/∂x at x: weights (S, P) and x (S, N, *shape) -> (S, N, *shape)."""
        at = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(at, self.energy.split(energy)).sum(), at)[0]

    def slope(self, x: Tensor) -> Tensor:
        """∂E/∂x of the energy as it is now."""
        return self.energy_slope(self.energy.flat, x)

    def generator_gradient(
        self, generator: Tensor, energy: Tensor, latent: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of Eq. 14 less the weighted entropy's (Eqs. 13 and 15), with E(x-) and H.

        Both nets' weights (S, P), z, and z of the entropy's references -> (S, P), (S,), (S,).
        """
        parameters = self.generator.split(generator)
        samples = self.generator(latent, parameters)
        # Without references there is nothing to draw, and batch norm has no statistics of nothing.
        beside = self.generate(generator, others) if self.references else samples[:, :0].detach()
        draw = Draw(self.generator.scales(parameters), samples, latent, beside, lambda z: self.generator(z, parameters))
        entropy = ENTROPIES[self.row["entropy"]["kind"]](draw, self.row["entropy"])
        energies = self.energy(samples, self.energy.split(energy))
        follows_energy = self.objective.generator_loss(energies + self.row["objective"]["offset"])
        loss = follows_energy - self.row["entropy"]["weight"] * entropy
        return gradient(loss, parameters), energies.detach().mean(1), entropy.detach()

    def energy_gradient(
        self, energy: Tensor, negatives: Tensor, data: Tensor, penalty: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 12's gradient, with E(x+) and E(x-).

        Weights (S, P), x-, x+ and the penalty's weight -> (S, P), (S,), (S,).
        """
        parameters = self.energy.split(energy)
        penalised = self.row["objective"]["penalty"] > 0
        x = torch.cat([data, negatives], 1).requires_grad_(penalised)
        energies = self.energy(x, parameters)
        n = data.shape[1]
        importance = self.row["negative"].get("importance")
        weights = importance_weights(energies[:, n:].detach(), negatives, importance) if importance else None
        from_data, from_samples = (energies + self.row["objective"]["offset"]).tensor_split([n], 1)
        loss = self.objective.energy_loss(from_data, from_samples, weights)
        if penalised:
            loss = loss + penalty * gradient_penalty(energies, x)
        return gradient(loss, parameters), energies[:, :n].detach().mean(1), energies[:, n:].detach().mean(1)

    def update_generator(self) -> tuple[Tensor, Tensor]:
        """One step of the generator: gives E(x-) and H, (S,) each."""
        step, energies, entropy = self.generator_gradient(
            self.generator.flat, self.energy.flat, self.draw_latent(), self.prior(self.references)
        )
        self.descend("generator", step)
        return energies, entropy

    def update_energy(self) -> tuple[Tensor, Tensor]:
        """One step of the energy: gives E(x+) and E(x-), (S,) each."""
        data = self.examples()
        negatives = NEGATIVES[self.row["negative"]["kind"]](self, self.row["negative"])
        step, *energies = self.energy_gradient(self.energy.flat, negatives, data, torch.tensor(self.penalty()))
        self.descend("energy", step)
        return energies[0], energies[1]

    def penalty(self) -> float:
        """The penalty's weight at this step: from `penalty` to `penalty_end` along a geometric line."""
        first, last = self.row["objective"]["penalty"], self.row["objective"]["penalty_end"]
        return first * (last / first) ** (self.step / self.row["schedule"]["steps"]) if first else 0.0

    def descend(self, net: str, step: Tensor) -> None:
        """One optimiser step on one net's weights alone, down the gradient `step` (S, P)."""
        weights, clip = dict(self.nets())[net].flat, self.row["optimiser"]["clip"]
        weights.grad = step * clip_scale(step, clip).unsqueeze(1) if clip else step
        self.optimisers[net].step()
        if net in self.averages:
            self.averages[net].lerp_(weights, 1 - self.row["average"][net])

    def round(self) -> Tensor:
        """One round of the schedule, generator first as in the lab's code; gives (S, 3), the columns of COLUMNS."""
        schedule = self.row["schedule"]
        left = 1 - self.step / schedule["steps"]
        for net, optimiser_ in self.optimisers.items():
            row = self.row["optimiser"]
            optimiser_.param_groups[0]["lr"] = row[f"{net}_rate"] * left ** row[f"{net}_decay"]
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
            "weights": {net: ensemble.flat for net, ensemble in self.nets()},
            "optimisers": {net: optimiser_.state_dict() for net, optimiser_ in self.optimisers.items()},
            "averages": self.averages,
            "chains": self.chains,
            "streams": [stream.get_state() for stream in self.streams],
            "stream": torch.get_rng_state(),
            "device_stream": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.step = state["step"]
        for net, ensemble in self.nets():
            ensemble.flat.copy_(state["weights"][net])
            self.optimisers[net].load_state_dict(state["optimisers"][net])
        for net, average in state["averages"].items():
            self.averages[net].copy_(average)
        self.chains = None if state["chains"] is None else state["chains"].to(self.device)
        for stream, saved in zip(self.streams, state["streams"], strict=True):
            stream.set_state(saved)
        torch.set_rng_state(state["stream"])
        if state["device_stream"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_stream"])

    def measured(self) -> dict[str, Tensor]:
        """A copy of the weights (S, P) that are measured: the averaged ones where there are any."""
        return {net: self.averages.get(net, ensemble.flat).detach().cpu().clone() for net, ensemble in self.nets()}

    def weights(self) -> dict[int, dict[str, dict[str, Tensor]]]:
        """{seed: {net: state dictionary}}, averaged nets as energy_average and generator_average."""
        result: dict[int, dict[str, dict[str, Tensor]]] = {}
        for index, seed in enumerate(self.row["seeds"]):
            nets = {net: ensemble.weights(index) for net, ensemble in self.nets()}
            for net, average in self.averages.items():
                nets[f"{net}_average"] = dict(self.nets())[net].weights(index, average)
            result[seed] = nets
        return result


def optimiser(row: dict[str, Any], net: str, ensemble: Ensemble) -> torch.optim.Optimizer:
    """Adagrad (section 4) or Adam on one net; weight decay is the lab's L2, on the energy only."""
    decay = row["weight_decay"] if net == "energy" else 0.0
    weights, rate = [ensemble.flat], row[f"{net}_rate"]
    if row["kind"] == "adagrad":
        # The lab has eps inside the root. A sum of squares that starts at eps, and no eps outside, is the same.
        sums = {"initial_accumulator_value": row["eps"], "eps": 0.0}
        fused = ensemble.flat.device.type == "cpu"
        return torch.optim.Adagrad(weights, rate, **sums, weight_decay=decay, fused=fused)
    return torch.optim.Adam(weights, rate, (row["beta1"], row["beta2"]), row["eps"], weight_decay=decay, fused=True)


def gradient(loss: Tensor, parameters: Parameters) -> Tensor:
    """Of each seed's own loss (S,) by its own parameters, (S, P)."""
    return join(torch.autograd.grad(loss.sum(), list(parameters.values())))


def clip_scale(step: Tensor, largest: float) -> Tensor:
    """The factor, at most 1, that brings each seed's gradient to norm `largest`: (S, P) -> (S,)."""
    return (largest / (step.norm(dim=1) + 1e-12)).clamp_max(1)
