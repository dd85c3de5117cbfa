"""How fast pairs train, all seeds as one program, beside a plain PyTorch loop over one model at a time.

python benchmarks/training.py [--repeats 5] [--steps 1000]

Every competitor trains the same rows of params.yaml, in a process of its own tied to the same two cores, in turn,
`repeats` times, with one thread and with two; of each the faster is compared. A rate is steps times seeds a second, and
rates and ratios are medians, the ratios of neighbouring runs. Before anything is timed, both must arrive at the same
weights. Imports, the first steps and compilation are not timed; compilation, from an empty cache, has its own column.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from result import write

from ddgm import parameters

ROWS = ("four_spin", "four_spin_neighbour")
THREADS = (1, 2)
OURS, PLAIN = "ddgm", "plain PyTorch"
WARM = 10  # rounds before the clock starts
# Both must agree for so many rounds, in double precision: in single, a rounding error that turns one ReLU gives another
# update. Adam without a mean (beta1 0) multiplies errors by hundreds a round where a gradient is near 0, in any
# precision: there the loop starts each round where the pair does.
ROUNDS, TOLERANCE = 20, 1e-5


def row_and_data(name: str) -> tuple[dict[str, Any], Any]:
    import numpy as np
    import torch

    from ddgm.datasets import two_d

    params = parameters.load(str(Path(__file__).parents[1] / "params.yaml"))
    row = params["experiments"][name]
    dataset = params["datasets"][row["dataset"]]
    points = two_d.sample(dataset, dataset["points"], np.random.default_rng([dataset["seed"], 0]))
    return row, torch.from_numpy(points.astype(np.float32))


class PlainLoop:
    """One model as a PyTorch user would train it by a row of params.yaml, with the draws of `seed`."""

    def __init__(self, row: dict[str, Any], data: Any, seed: int) -> None:
        import torch

        from ddgm.experiment import build

        self.row, self.data, self.stream = row, data, torch.Generator().manual_seed(seed)
        self.energy, self.generator = build(row, tuple(data.shape[1:]), seed)
        self.optimisers = {net: self.optimiser(net) for net in ("energy", "generator")}
        self.scales = [value for name, value in self.generator.named_parameters() if name.endswith("scale")]
        self.averages = {
            net: [value.detach().clone() for value in getattr(self, net).parameters()]
            for net in ("energy", "generator")
            if row["average"][net] > 0
        }
        self.step = 0

    def optimiser(self, net: str) -> Any:
        import torch

        row, weights = self.row["optimiser"], list(getattr(self, net).parameters())
        rate, decay = row[f"{net}_rate"], row["weight_decay"] if net == "energy" else 0.0
        if row["kind"] == "adagrad":
            start = {"initial_accumulator_value": row["eps"], "eps": 0.0}
            return torch.optim.Adagrad(weights, rate, **start, weight_decay=decay)
        return torch.optim.Adam(weights, rate, (row["beta1"], row["beta2"]), row["eps"], weight_decay=decay, fused=True)

    def latent(self) -> Any:
        import torch

        n = self.row["schedule"]["batch"]
        return torch.rand(n, self.row["generator"]["latent"], generator=self.stream) * 2 - 1

    def descend(self, net: str, loss: Any) -> None:
        import torch

        module = getattr(self, net)
        for weight, gradient in zip(
            module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            weight.grad = gradient
        self.optimisers[net].step()
        if net in self.averages:
            torch._foreach_lerp_(self.averages[net], list(module.parameters()), 1 - self.row["average"][net])

    def entropy(self, samples: Any) -> Any:
        import math

        import torch
        from scipy.special import digamma

        from ddgm.row import neighbour_numbers

        row = self.row["entropy"]
        if row["kind"] != "nearest_neighbour":
            each = 0.5 * math.log(2 * math.pi * math.e) + torch.cat(self.scales).abs().log()
            return each.sum() if row["kind"] == "batch_norm_sum" else each.mean()
        n, d, numbers = len(samples), row["dimensions"], neighbour_numbers(row)
        with torch.no_grad():
            nearest = torch.cdist(samples, samples).topk(max(numbers) + 1, dim=1, largest=False).indices[:, numbers]
        log_distance = 0.5 * (samples[:, None] - samples[nearest]).square().sum(2).clamp_min(1e-12).log()
        log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
        return d * log_distance.mean() + log_ball + float(digamma(n) - digamma(numbers).mean())

    def energy_loss(self, data: Any, samples: Any) -> Any:
        import torch

        from ddgm.negative_phase import importance_weights

        objective, importance = self.row["objective"], self.row["negative"]["importance"]
        x = torch.cat([data, samples]).requires_grad_(objective["penalty"] > 0)
        energies = self.energy(x)
        real, drawn = energies.split(len(data))
        negative = drawn.mean()
        if importance:
            weights = importance_weights(drawn.detach()[None], samples[None], samples[None, :0], importance)
            negative = (weights[0] * drawn).sum()
        loss = real.mean() - negative
        if objective["penalty"] > 0:
            (slope,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
            left = self.step / self.row["schedule"]["steps"]
            weight = objective["penalty"] * (objective["penalty_end"] / objective["penalty"]) ** left
            loss = loss + weight * slope.square().sum(1).mean()
        return loss

    def round(self) -> None:
        import torch

        schedule, rates = self.row["schedule"], self.row["optimiser"]
        for net, optimiser in self.optimisers.items():
            left = 1 - self.step / schedule["steps"]
            optimiser.param_groups[0]["lr"] = rates[f"{net}_rate"] * left ** rates[f"{net}_decay"]
        for _ in range(schedule["generator_steps"]):
            samples = self.generator(self.latent())
            entropy = self.row["entropy"]["weight"] * self.entropy(samples)
            self.descend("generator", self.energy(samples).mean() - entropy)
        for _ in range(schedule["energy_steps"]):
            data = self.data[torch.randint(len(self.data), (schedule["batch"],), generator=self.stream)]
            with torch.no_grad():
                samples = self.generator(self.latent())
            self.descend("energy", self.energy_loss(data, samples))
        self.step += 1


def refuse_what_it_does_not_train(row: dict[str, Any]) -> None:
    """The plain loop knows what ROWS have; another row would be timed doing something else."""
    known = (
        row["objective"]["kind"] == "dual"
        and row["negative"]["kind"] == "generator"
        and not row["negative"]["reuse_latent"]
        and row["entropy"]["kind"] in ("batch_norm_sum", "batch_norm_mean", "nearest_neighbour")
        and not row["entropy"].get("references", 0)
        and not (row["negative"]["importance"] or {}).get("references", 0)
        and row["optimiser"]["clip"] is None
    )
    assert known, "the plain loop does not train this row: write what is missing into it"


def follow(loop: PlainLoop, pair: Any, index: int) -> None:
    """Put the loop where seed `index` of the pair is: weights and the optimiser's moments."""
    for net, ensemble in pair.nets():
        moments = {name: ensemble.weights(index, value) for name, value in pair.optimisers[net].moments.items()}
        getattr(loop, net).load_state_dict(ensemble.weights(index))
        for name, weight in getattr(loop, net).named_parameters():
            for moment, values in moments.items():
                loop.optimisers[net].state[weight][moment].copy_(values[name])


def check(name: str) -> float:
    """The largest difference of any weight in ROUNDS rounds, all seeds, as they are timed."""
    import torch

    from ddgm.pair import Pair

    torch.set_default_dtype(torch.float64)
    row, data = row_and_data(name)
    data = data.double()
    refuse_what_it_does_not_train(row)
    magnifies = row["optimiser"].get("beta1") == 0
    pair = Pair(row, data, torch.device("cpu"))
    loops = [PlainLoop(row, data, seed) for seed in row["seeds"]]
    largest = 0.0
    for step in range(ROUNDS):
        for index, loop in enumerate(loops):
            if magnifies and step:
                follow(loop, pair, index)
            loop.round()
        pair.round()
        for index, loop in enumerate(loops):
            for net, ensemble in pair.nets():
                weights = ensemble.weights(index)
                for key, value in getattr(loop, net).state_dict().items():
                    largest = max(largest, float((weights[key] - value).abs().max()))
    return largest


def one_run(what: str, name: str, threads: int, steps: int) -> tuple[float, float]:
    """(steps times seeds a second, seconds of compilation) of one competitor, in this process."""
    import torch

    from ddgm.pair import Pair

    torch.set_num_threads(threads)
    row, data = row_and_data(name)
    start = time.perf_counter()
    one = Pair(row, data, torch.device("cpu")) if what == OURS else PlainLoop(row, data, row["seeds"][0])
    for _ in range(WARM):
        one.round()
    compilation = time.perf_counter() - start if what == OURS else 0.0
    start = time.perf_counter()
    for _ in range(steps):
        one.round()
    seeds = len(row["seeds"]) if what == OURS else 1
    return steps * seeds / (time.perf_counter() - start), compilation


def in_a_process(arguments: list[str], cache: str) -> Any:
    """What one competitor says, on the first two cores, with compiled programs kept in `cache`."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def measure(repeats: int, steps: int, cache: str) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for name in ROWS:
        kinds = [(what, threads) for what in (OURS, PLAIN) for threads in THREADS]
        rates: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
        compilation: dict[tuple[str, int], float] = {}
        for _ in range(repeats):
            for what, threads in kinds:
                rate, seconds = in_a_process(["--one", what, name, str(threads), str(steps)], cache)
                rates[what, threads].append(rate)
                # The first time is from an empty cache.
                compilation.setdefault((what, threads), seconds)
        yardstick = rates[max((kind for kind in kinds if kind[0] == PLAIN), key=lambda k: statistics.median(rates[k]))]
        for (what, threads), found in rates.items():
            ratios = [own / plain for own, plain in zip(found, yardstick, strict=True)]
            lines.append(
                {
                    "experiment": name,
                    "what": what,
                    "threads": threads,
                    "steps": steps,
                    "seed_steps_per_second": round(statistics.median(found)),
                    "slowest": round(min(found)),
                    "fastest": round(max(found)),
                    "times_plain": round(statistics.median(ratios), 2),
                    "compilation_seconds": round(compilation[what, threads], 1),
                }
            )
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        _, _, what, name, threads, steps = sys.argv
        print(json.dumps(one_run(what, name, int(threads), int(steps))))
        return
    if sys.argv[1:2] == ["--check"]:
        print(json.dumps(check(sys.argv[2])))
        return
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=1000)
    asked = arguments.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as work:
        differences = {name: in_a_process(["--check", name], f"{work}/check") for name in ROWS}
        assert max(differences.values()) <= TOLERANCE, f"weights differ in {ROUNDS} rounds: {differences}"
        lines = measure(asked.repeats, asked.steps, f"{work}/cache")
    write("training_speed", lines, {"torch": torch.__version__, "largest_difference": differences})
    for line in lines:
        print(*line.values(), sep="\t")


if __name__ == "__main__":
    main()
