"""The energy and the generator of an experiment in training: all seeds at once, and one round of their updates."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddgm import distributed
from ddgm.compiled import compiled
from ddgm.distributed import part, whole_batch
from ddgm.ensemble import Ensemble, Parameters, join
from ddgm.entropy import ENTROPIES, Draw
from ddgm.examples import Examples, Streamed, open_examples
from ddgm.experiment import build, build_ensembles, scale_pixels
from ddgm.generator import fix_statistics, prior
from ddgm.memory import keep_freed
from ddgm.negative_phase import NEGATIVES, sample_weights
from ddgm.objectives.outliers import outlier_loss, outliers
from ddgm.objectives.penalty import slopes_of, squared_norm
from ddgm.optimisers import Optimiser
from ddgm.replayed import replayed

# Compilation takes half a minute, at most once a machine and shape: trainings with less to do than so many updates of
# one weight do without.
WORTH_COMPILING = 1.5e9
COLUMNS = ["energy_data", "energy_samples", "entropy"]
HEALTH = ["spread", "slope"]
# Examples that say how much data vary, and z whose samples are looked at along training.
VARIATION, SHOWN = 1024, 16


class Pair:
    """Nets, optimisers, averages, random streams and the step: all that training changes.

    data: (points, *shape), float as it is or uint8 pixels, which `range` scales; an array, a memory map, or a tensor.
    Where several processes train together each holds a pair, and they stay alike.
    """

    def __init__(self, row: dict[str, Any], data: NDArray[Any] | Tensor, device: torch.device) -> None:
        self.row, self.device = row, device
        if device.type == "cpu":
            keep_freed()
        data = np.asarray(data)
        self.objective = importlib.import_module(f"ddgm.objectives.{row['objective']['kind']}")
        shape = tuple(data.shape[1:])
        energy, generator = build_ensembles(row, shape, row["seeds"])
        self.energy, self.generator = energy.to(device), generator.to(device)
        self.optimisers = {net: Optimiser(row["optimiser"], net, ensemble.flat) for net, ensemble in self.nets()}
        self.averages = {net: ensemble.flat.clone() for net, ensemble in self.nets() if row["average"][net] > 0}
        # One stream a seed, so that a seed draws the same whichever seeds train beside it.
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in row["seeds"]]
        # Noise inside the nets, or on the samples for their entropy, comes from one stream for all seeds: with it, the
        # seeds beside a seed do matter.
        torch.manual_seed(row["seeds"][0])
        self.open = partial(open_examples, data, row["schedule"]["batch"], row["seeds"], self.streams, device)
        self.source: Examples = self.open()
        self.shape = shape
        some = self.scaled(torch.from_numpy(np.array(data[:VARIATION])))
        self.variance = float(some.flatten(1).var(0, correction=0).sum())
        self.step = 0
        self.latent: Tensor | None = None
        self.chains: Tensor | None = None
        self.pool = self.nothing(*shape)
        updates = row["schedule"]["steps"] * sum(ensemble.flat.numel() for _, ensemble in self.nets())
        # Neither a graph nor a program waits for other processes.
        alone = distributed.processes() == 1
        graphs = alone and device.type == "cuda"
        # Convolutions on a CPU are libraries' own: as programs they are slower at full width.
        gains = graphs or (alone and device.type == "cpu" and row["generator"]["kind"] == "dense")
        programs = gains and updates >= WORTH_COMPILING
        if programs or graphs:
            self.hasten(programs, graphs)

    def nets(self) -> list[tuple[str, Ensemble]]:
        return [("energy", self.energy), ("generator", self.generator)]

    def hasten(self, programs: bool, graphs: bool) -> None:
        """Make programs or graphs, or both, of what every step computes: calling small operations is most of a step."""

        def fast(function: Callable[..., Any], nets: list[str], *example: Tensor) -> Callable[..., Any]:
            weights = [dict(self.nets())[net].flat for net in nets]
            quick = compiled(function, *weights, *example) if programs else function
            return replayed(quick, function, weights, *example) if graphs else quick

        n, seeds, of_latent = self.row["schedule"]["batch"], len(self.row["seeds"]), self.row["generator"]["latent"]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(seeds, *shape, device=self.device)

        # A tensor given twice would be traced as one argument.
        latent, more, weight = zeros(n, of_latent), zeros(self.references, of_latent), self.number(0.0)
        data, negatives = zeros(n, *self.shape), zeros(n + outliers(self.row["negative"], n), *self.shape)
        if self.row["schedule"]["kind"] == "simultaneous":
            self.both_gradients = fast(self.both_gradients, ["generator", "energy"], latent, data, weight)
            return
        self.generator_gradient = fast(self.generator_gradient, ["generator", "energy"], latent, more)
        pool = zeros(self.weighted_among, *self.shape)
        self.energy_gradient = fast(self.energy_gradient, ["energy"], negatives, pool, data, weight, self.power())
        if self.row["negative"]["kind"] in ("langevin", "persistent"):
            self.energy_slope = fast(self.energy_slope, ["energy"], data)
        elif self.row["negative"]["kind"] != "quadrature":
            self.generate = fast(self.generate, ["generator"], latent)

    def number(self, value: float) -> Tensor:
        """A number in the device's memory, put there without waiting for the device."""
        return torch.full((), value, device=self.device)

    def nothing(self, *shape: int) -> Tensor:
        """No examples of a shape for each seed, (S, 0, *shape)."""
        return torch.zeros(len(self.row["seeds"]), 0, *shape, device=self.device)

    def scaled(self, x: Tensor) -> Tensor:
        """Pixels to floats in `range`, what is no picture as it is."""
        return x if self.row["range"] is None else scale_pixels(x, self.row["range"])

    def examples(self) -> Tensor:
        """x+ ~ P_D: a batch of training examples for each seed, (S, N, *shape)."""
        chosen = self.source.batch()
        if self.row["flips"]:
            mirrored = (self.uniform(()) < 0.5).view(*chosen.shape[:2], *[1] * len(self.shape))
            chosen = torch.where(mirrored, chosen.flip(-1), chosen)
        return self.scaled(self.black_and_white(chosen) if self.row["binarised"] else chosen)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers from 0 to 1 for each example of a batch, (S, N, *shape)."""
        shape = (self.row["schedule"]["batch"], *shape)
        return part(torch.stack([torch.rand(shape, generator=s, device=self.device) for s in self.streams]))

    def black_and_white(self, pixels: Tensor) -> Tensor:
        """Each pixel 0 or 255, the latter with its brightness as the probability: uint8 (S, N, *shape)."""
        return (255 * (255 * self.uniform(self.shape) < pixels)).to(torch.uint8)

    def draw_latent(self) -> Tensor:
        """z ~ P(z) for each seed, (S, N, latent)."""
        self.latent = self.prior(self.row["schedule"]["batch"])
        return self.latent

    def prior(self, n: int) -> Tensor:
        """n more z of each seed's stream, this process's part of them: (S, n, latent)."""
        return part(torch.stack([prior(n, self.row["generator"]["latent"], s, self.device) for s in self.streams]))

    def more_latent(self) -> Tensor:
        """z of the entropy's references, a batch at a time: processes have their parts of each. (S, M, latent)."""
        return torch.cat([self.nothing(self.row["generator"]["latent"]), *self.batches(self.references)], 1)

    def batches(self, n: int) -> Iterator[Tensor]:
        """z of n samples, a multiple of the batch, each batch when it is asked for."""
        batch = self.row["schedule"]["batch"]
        return (self.prior(batch) for _ in range(n // batch))

    def normal(self, n: int) -> Tensor:
        """N(0, 1) of each seed's stream, (S, n, *shape)."""
        shape = (n, *self.shape)
        return torch.stack([torch.randn(shape, generator=s, device=self.device) for s in self.streams])

    @property
    def references(self) -> int:
        """Samples of the generator's update beside the batch, among which its entropy looks for neighbours too."""
        return self.row["entropy"].get("references", 0)

    @property
    def weighted_among(self) -> int:
        """Samples that tell the density of x-, for their weights."""
        row = self.row["negative"]
        return (row.get("importance") or row).get("references", 0)

    def telling(self) -> Tensor:
        """As many, a batch at a time, for batch norm makes others of a larger one: (S, M, *shape)."""
        drawn = [self.nothing(*self.shape)]
        # A copy of each: a graph gives all of them in one place.
        drawn += [self.sampled(z).clone() for z in self.batches(self.weighted_among)]
        return torch.cat(drawn, 1)

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

    def drawn(self, parameters: Parameters, latent: Tensor, more: Tensor) -> Tensor:
        """G(z) of a batch, and of the entropy's references a batch at a time: (S, N + M, *shape).

        Batch norm makes other samples of a larger batch, and its statistics, which differ from one batch to the next,
        move each as a whole: an entropy over several batches sees it.
        """
        first = self.generator(latent, parameters)
        if not self.references:
            return first  # as it lies in memory: a copy is added up in another order
        return torch.cat([first, *(self.generator(z, parameters) for z in more.split(latent.shape[1], 1))], 1)

    def entropy(self, parameters: Parameters, samples: Tensor, latent: Tensor) -> Tensor:
        """H(G) of each seed, (S,), by the row's estimator: of what was drawn, by all processes."""
        draw = Draw(
            self.generator.scales(parameters), whole_batch(samples), whole_batch(latent),
            lambda z: self.generator(z, parameters),
        )  # fmt: skip
        row = self.row["entropy"]
        return ENTROPIES[row["kind"]](draw, row)

    def generator_gradient(
        self, generator: Tensor, energy: Tensor, latent: Tensor, more: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of Eq. 14 less the weighted entropy's (Eqs. 13 and 15), with E(x-) and H.

        Both nets' weights (S, P), z, and z of the entropy's references, which are samples like the batch's
        -> (S, P), (S,), (S,).
        """
        parameters = self.generator.split(generator)
        samples = self.drawn(parameters, latent, more)
        entropy = self.entropy(parameters, samples, torch.cat([latent, more], 1))
        energies = self.energy(samples, self.energy.split(energy))
        follows_energy = self.objective.generator_loss(energies + self.row["objective"]["offset"])
        loss = follows_energy - self.row["entropy"]["weight"] * entropy
        return gradient(loss, parameters), energies.detach().mean(1), entropy.detach()

    def energy_gradient(
        self, energy: Tensor, negatives: Tensor, pool: Tensor, data: Tensor, penalty: Tensor, power: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 12's gradient, with E(x+) and E(x-).

        Weights (S, P), x-, the samples that tell its density, x+, the penalty's weight and the power of weights
        -> (S, P), (S,), (S,).
        """
        parameters = self.energy.split(energy)
        penalised = self.row["objective"]["penalty"] > 0
        x = torch.cat([data, negatives], 1).requires_grad_(penalised)
        energies = self.energy(x, parameters)
        row, n = self.row["negative"], data.shape[1]
        weights = sample_weights(energies[:, n:].detach(), negatives, pool, power, row)
        beyond = x.shape[1] - outliers(row, n)
        of_data, of_samples, of_outliers = (energies + self.row["objective"]["offset"]).tensor_split([n, beyond], 1)
        loss = self.objective.energy_loss(of_data, of_samples, weights)
        if beyond < x.shape[1]:
            loss = loss + row["weight"] * outlier_loss(of_outliers, of_data, row["margin"])
        if penalised:
            loss = loss + penalty * squared_norm(slopes_of(energies, x))
        return gradient(loss, parameters), energies[:, :n].detach().mean(1), energies[:, n:beyond].detach().mean(1)

    def both_gradients(
        self, generator: Tensor, energy: Tensor, latent: Tensor, data: Tensor, penalty: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Eqs. 12 and 14 by one pass of the energy over the samples, with E(x+), E(x-) and H.

        Both want the derivative of the same E(G(z)), by the weights and, with the other sign, by x: 9 times the work of
        one net's forward pass in place of 12 (13 in a plain loop). Both nets' weights (S, P), z, x+ and the penalty's
        weight -> (S, P) of the generator and of the energy, (S,), (S,), (S,).
        """
        of_generator, of_energy = self.generator.split(generator), self.energy.split(energy)
        samples = self.generator(latent, of_generator)
        entropy = self.entropy(of_generator, samples, latent)
        n, penalised = data.shape[1], self.row["objective"]["penalty"] > 0
        x = torch.cat([data, samples.detach()], 1).requires_grad_()
        energies = self.energy(x, of_energy)
        loss = self.objective.energy_loss(*energies.tensor_split([n], 1))
        if penalised:
            slopes = slopes_of(energies, x)
            loss = loss + penalty * squared_norm(slopes)
            step, slope = gradient(loss, of_energy), slopes[:, n:].detach() / samples.shape[1]
        else:
            *by_weights, by_x = torch.autograd.grad(loss.sum(), [*of_energy.values(), x])
            step, slope = join(by_weights), -by_x[:, n:]
        loss = (samples * slope).flatten(1).sum(1) - self.row["entropy"]["weight"] * entropy
        of_data, of_samples = energies.detach().tensor_split([n], 1)
        return gradient(loss, of_generator), step, of_data.mean(1), of_samples.mean(1), entropy.detach()

    def update_both(self) -> tuple[Tensor, Tensor, Tensor]:
        """One step of both nets from where both are: gives E(x+), E(x-) and H, (S,) each."""
        weight = self.number(self.penalty())
        of_generator, of_energy, *measured = self.both_gradients(
            self.generator.flat, self.energy.flat, self.draw_latent(), self.examples(), weight
        )
        self.descend("generator", of_generator)
        self.descend("energy", of_energy)
        return tuple(measured)

    def update_generator(self) -> tuple[Tensor, Tensor]:
        """One step of the generator: gives E(x-) and H, (S,) each."""
        step, energies, entropy = self.generator_gradient(
            self.generator.flat, self.energy.flat, self.draw_latent(), self.more_latent()
        )
        self.descend("generator", step)
        return energies, entropy

    def update_energy(self) -> tuple[Tensor, Tensor]:
        """One step of the energy: gives E(x+) and E(x-), (S,) each."""
        data = self.examples()
        negatives = NEGATIVES[self.row["negative"]["kind"]](self, self.row["negative"])
        weight = self.number(self.penalty())
        step, *energies = self.energy_gradient(self.energy.flat, negatives, self.pool, data, weight, self.power())
        self.descend("energy", step)
        return energies[0], energies[1]

    def penalty(self) -> float:
        """The penalty's weight at this step: from `penalty` to `penalty_end` along a geometric line."""
        first, last = self.row["objective"]["penalty"], self.row["objective"]["penalty_end"]
        return first * (last / first) ** (self.step / self.row["schedule"]["steps"]) if first else 0.0

    def power(self) -> Tensor:
        """The power of blurred samples' weights at this step: along a line to 1 where they rise, else 1."""
        rounds = self.row["negative"].get("rise", 0.0) * self.row["schedule"]["steps"]
        return self.number(min(self.step / rounds, 1.0) if rounds else 1.0)

    def descend(self, net: str, step: Tensor) -> None:
        """One optimiser step on one net's weights alone, down the gradient `step` (S, P), averaged over processes."""
        step = distributed.average_gradient(step)
        weights, clip = dict(self.nets())[net].flat, self.row["optimiser"]["clip"]
        self.optimisers[net].step(step * clip_scale(step, clip).unsqueeze(1) if clip else step)
        if net in self.averages:
            self.averages[net].lerp_(weights, 1 - self.row["average"][net])

    def round(self) -> Tensor:
        """One round of the schedule; gives (S, 3), the columns of COLUMNS, of this process's part of the batch.

        `alternating` is the lab's: the generator first, and the energy meets the samples of the new one.
        """
        schedule = self.row["schedule"]
        left = 1 - self.step / schedule["steps"]
        for net, optimiser in self.optimisers.items():
            row = self.row["optimiser"]
            optimiser.rate = row[f"{net}_rate"] * left ** row[f"{net}_decay"]
        if schedule["kind"] == "simultaneous":
            energy_data, energy_samples, entropy = self.update_both()
        else:
            for _ in range(schedule["generator_steps"]):
                _, entropy = self.update_generator()
            for _ in range(schedule["energy_steps"]):
                energy_data, energy_samples = self.update_energy()
        self.step += 1
        return torch.stack([energy_data, energy_samples, entropy], 1)

    def health(self) -> Tensor:
        """What tells that a training has failed, of the last round's z and the nets as they are: (S, 2), as HEALTH.

        spread: total variance of the samples over that of the data, near 0 where all are alike
        slope: E[‖∂E(x)/∂x‖] at the samples, near 0 where the energy is flat and the generator has nothing to follow
        """
        latent = self.prior(self.row["schedule"]["batch"]) if self.latent is None else self.latent
        with self.noise_apart():
            samples = self.sampled(latent)
            slopes = whole_batch(self.slope(samples).flatten(2).norm(dim=2))
        spread = whole_batch(samples).flatten(2).var(1, correction=0).sum(1) / self.variance
        return torch.stack([spread, slopes.mean(1)], 1)

    def shown(self) -> Tensor:
        """What the weights that are measured make of SHOWN fixed z, the first of a batch: (S, SHOWN, *shape).

        Nothing is taken from the streams of the training.
        """
        batch, weights = self.row["schedule"]["batch"], self.averages.get("generator", self.generator.flat)
        fixed = [torch.Generator(self.device).manual_seed(seed) for seed in self.row["seeds"]]
        n = -(-SHOWN // batch) * batch
        latent = torch.stack([prior(n, self.row["generator"]["latent"], s, self.device) for s in fixed])
        with self.noise_apart():
            return torch.cat([self.generate(weights, part).clone() for part in latent.split(batch, 1)], 1)[:, :SHOWN]

    def noise_apart(self) -> AbstractContextManager[None]:
        """While it is open, the noise of the nets' layers takes nothing from the training's."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "weights": {net: ensemble.flat for net, ensemble in self.nets()},
            "optimisers": {net: optimiser.state() for net, optimiser in self.optimisers.items()},
            "averages": self.averages,
            "chains": self.chains,
            "streams": [stream.get_state() for stream in self.streams],
            "examples": self.source.state(),
            "stream": torch.get_rng_state(),
            "device_stream": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.step = state["step"]
        for net, ensemble in self.nets():
            ensemble.flat.copy_(state["weights"][net])
            self.optimisers[net].restore(state["optimisers"][net])
        for net, average in state["averages"].items():
            self.averages[net].copy_(average)
        self.chains = None if state["chains"] is None else state["chains"].to(self.device)
        for stream, saved in zip(self.streams, state["streams"], strict=True):
            stream.set_state(saved)
        if isinstance(self.source, Streamed) != (state["examples"] is not None):
            self.source = self.open(streamed=state["examples"] is not None)
        self.source.restore(state["examples"])
        torch.set_rng_state(state["stream"])
        if state["device_stream"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_stream"], self.device)

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
            if self.row["generator"]["statistics"] == "fixed":
                for name in ("generator", "generator_average"):
                    if name in nets:
                        nets[name] = self.with_fixed_statistics(seed, nets[name])
            result[seed] = nets
        return result

    def with_fixed_statistics(self, seed: int, weights: Parameters) -> Parameters:
        """A generator's state dictionary with the statistics of its batch norm as they are over many batches."""
        _, generator = build(self.row, self.shape, seed)
        generator.load_state_dict(weights)
        stream = torch.Generator(self.device).manual_seed(seed)
        fix_statistics(generator.to(self.device), self.row["schedule"]["batch"], stream)
        return generator.state_dict()


def gradient(loss: Tensor, parameters: Parameters) -> Tensor:
    """Of each seed's own loss (S,) by its own parameters, (S, P)."""
    return join(torch.autograd.grad(loss.sum(), list(parameters.values())))


def clip_scale(step: Tensor, largest: float) -> Tensor:
    """The factor, at most 1, that brings each seed's gradient to norm `largest`: (S, P) -> (S,)."""
    return (largest / (step.norm(dim=1) + 1e-12)).clamp_max(1)
