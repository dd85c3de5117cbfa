"""How far two trainings with the same seeds end from each other, on one machine and on unlike ones.

python benchmarks/determinism.py [--experiment toy_four_spin] [--steps 10 100 3000]

The experiment is trained again and again with the same seeds: as it is, once more, with two threads, and with narrower
vector instructions, as an older processor has them. After each number of steps the weights are compared, and after
the last one the metrics, whose differences count in standard deviations over the seeds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from result import write
from safetensors.numpy import load_file

PROJECT = Path(__file__).parents[1]
REFERENCE = "the same again"
# The environment of a training, and its threads.
KINDS: dict[str, tuple[dict[str, str], int]] = {
    REFERENCE: ({}, 1),
    "two threads": ({}, 2),
    "AVX2": ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}, 1),
    "no vector instructions": (
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, 1,
    ),
}  # fmt: skip
METRICS = ("kl_data_model", "kl_data_generator", "kl_generator_model")


class Trainings:
    """Trainings of one experiment in a folder of their own."""

    def __init__(self, experiment: str, work: Path) -> None:
        self.experiment, self.work = experiment, work
        self.params = yaml.safe_load((PROJECT / "params.yaml").read_text())
        self.row = self.params["experiments"][experiment]
        self.row["seeds"] = list(range(5))
        self.ddgm("prepare", self.row["dataset"], "train")

    def ddgm(self, *words: str, **environment: str) -> None:
        (self.work / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))
        command = [str(Path(sys.executable).with_name("ddgm")), *words, "--params", "params.yaml"]
        subprocess.run(command, cwd=self.work, env=os.environ | environment, check=True, stderr=subprocess.DEVNULL)

    def run(self, steps: int, environment: dict[str, str], threads: int) -> dict[str, np.ndarray]:
        """The weights after so many steps."""
        self.row["schedule"]["steps"] = steps
        self.ddgm("train", self.experiment, "--branch", "toy", "--restart", "--threads", str(threads), **environment)
        return load_file(self.work / f"results/toy/models/{self.experiment}/weights.safetensors")

    def metrics(self) -> pd.DataFrame:
        """A row a seed, a column a metric, of the newest training."""
        self.ddgm("evaluate", self.experiment, "--branch", "toy")
        table = pd.read_csv(self.work / f"results/toy/metrics/{self.experiment}.csv")
        return table.pivot(index="seed", columns="metric", values="value")[list(METRICS)]


def distance(weights: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    """The length of the difference of all weights in that of the weights; 0 only where they are equal to the bit."""
    difference = sum(float(np.square(weights[key] - others[key], dtype=float).sum()) for key in weights)
    return float(np.sqrt(difference / sum(float(np.square(value, dtype=float).sum()) for value in weights.values())))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--experiment", default="toy_four_spin")
    arguments.add_argument("--steps", type=int, nargs="+", default=[10, 100, 3000])
    chosen = arguments.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(chosen.experiment, Path(folder))
        for steps in chosen.steps:
            last = steps == max(chosen.steps)
            alone = trainings.run(steps, {}, 1)
            measured = trainings.metrics() if last else None
            for kind, (environment, threads) in KINDS.items():
                line: dict[str, object] = {"what": kind, "steps": steps}
                line["weights"] = f"{distance(alone, trainings.run(steps, environment, threads)):.3g}"
                if measured is not None:
                    moved = (trainings.metrics() - measured).abs().mean()
                    line |= {metric: f"{moved[metric]:.3g}" for metric in METRICS}
                    line |= {f"{metric}_sd": f"{measured[metric].std():.3g}" for metric in METRICS}
                else:
                    line |= dict.fromkeys([*METRICS, *(f"{metric}_sd" for metric in METRICS)], "")
                print(*line.values(), sep="\t", flush=True)
                lines.append(line)
    write("determinism", lines, {"torch": version("torch")})


if __name__ == "__main__":
    main()
