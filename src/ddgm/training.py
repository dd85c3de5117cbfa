"""The training loop: rounds to the last step, progress, stopping, resuming, and the model that is left."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddgm import checkpoint, provenance
from ddgm.datasets.prepared import source_of
from ddgm.errors import UserError
from ddgm.experiment import (
    EXPERIMENT,
    HISTORY,
    PROVENANCE,
    SNAPSHOTS,
    WEIGHTS,
    describe,
    save_snapshots,
    save_weights,
)
from ddgm.pair import COLUMNS, Pair
from ddgm.progress import Progress, log
from ddgm.whole_file import whole_file

REPORT_STEPS = 50


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU. Raises UserError for cuda where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' and PyTorch sees no CUDA device here: write 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Run:
    """One experiment from its first step, or from where it was interrupted, to its last."""

    def __init__(self, name: str, row: dict[str, Any], array: Path, state_path: Path, device: torch.device) -> None:
        try:
            data = torch.from_numpy(np.load(array))
        except (ValueError, EOFError):
            raise UserError(f"{array} is damaged: delete it, and make it again with 'snakemake {array}'") from None
        self.name, self.row, self.device, self.state_path = name, row, device, state_path
        self.source = source_of(array)
        self.about = {"row": row, "data": provenance.checksum(array), "device": device.type}
        self.pair = Pair(row, data, device)
        self.history: list[list[float]] = []
        self.pending: list[Tensor] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.seconds = 0.0
        state = checkpoint.load(state_path, self.about)
        if state is not None:
            self.pair.restore(state["pair"])
            self.history, self.seconds = state["history"], state["seconds"]
            self.snapshots = state["snapshots"]
            self.pending = [value.to(device) for value in state["pending"]]
            if state["code"] != provenance.code_version():
                log.warning(f"{state_path} was saved by code version {state['code']}, and goes on with another")

    def save(self) -> None:
        """Write the state to resume from. Raises UserError in place of saving one that has diverged."""
        if self.pending:
            self.refuse_divergence(torch.stack(self.pending).cpu())
        state = {
            "code": provenance.code_version(),
            "pair": self.pair.state(),
            "history": self.history,
            "pending": self.pending,
            "snapshots": self.snapshots,
            "seconds": self.seconds,
        }
        checkpoint.save(self.state_path, self.about, state)

    def go(self, last: int, checkpoint_minutes: float, stop: Callable[[], bool]) -> None:
        """Rounds until step `last` or until `stop()`; the state is saved every `checkpoint_minutes`."""
        steps = self.row["schedule"]["steps"]
        kept = snapshot_steps(steps, self.row["schedule"]["snapshots"])
        started = saved = time.monotonic()
        before = self.seconds
        with Progress(self.name, steps, self.pair.step) as bar:
            while self.pair.step < last and not stop():
                self.pending.append(self.pair.round())
                if self.pair.step in kept:
                    self.snapshots[self.pair.step] = self.pair.measured()
                if self.pair.step % REPORT_STEPS == 0 or self.pair.step == steps:
                    mean = self.report()
                    bar.show(self.pair.step, "E(x+) {:.4g}  E(x-) {:.4g}  H {:.4g}".format(*mean))
                    self.seconds = before + time.monotonic() - started
                    if time.monotonic() - saved > 60 * checkpoint_minutes:
                        self.save()
                        saved = time.monotonic()
        self.seconds = before + time.monotonic() - started

    def report(self) -> list[float]:
        """A row of history a seed, means over the steps since the last report; gives the means over seeds."""
        # One read for all steps: reading every loss would make a GPU wait at each.
        values = torch.stack(self.pending).cpu()
        self.refuse_divergence(values)
        self.pending = []
        means = values.mean(0)
        self.history += [
            [seed, self.pair.step, *row] for seed, row in zip(self.row["seeds"], means.tolist(), strict=True)
        ]
        return means.mean(0).tolist()

    def refuse_divergence(self, values: Tensor) -> None:
        """UserError at the first value that is not a finite number; values (steps, S, 3)."""
        broken = (~torch.isfinite(values)).nonzero()
        if not len(broken):
            return
        offset, index, column = broken[0].tolist()
        step = self.pair.step - len(values) + offset + 1
        saved = self.state_path.exists()
        kept = f"the last good state is {self.state_path}" if saved else "no state had been saved by then"
        what = f"{COLUMNS[column]} is {values[offset, index, column].item()}"
        raise UserError(
            f"{self.name}, seed {self.row['seeds'][index]}: {what} at step {step} ({kept}): "
            f"lower the rates, raise objective.penalty or set optimiser.clip"
        )

    def finish(self, directory: Path) -> None:
        """Write the model: weights, history, the experiment and its provenance."""
        weights = self.pair.weights()
        for seed, nets in weights.items():
            if not all(torch.isfinite(value).all() for state in nets.values() for value in state.values()):
                raise UserError(
                    f"{self.name}, seed {seed}: a weight is no finite number after the last step: lower the rates"
                )
        # Nothing is lost if the disk fills here, and a model is there with all its files or with none.
        self.save()
        files = [directory / name for name in (EXPERIMENT, PROVENANCE, HISTORY, SNAPSHOTS, WEIGHTS)]
        remove(files)
        try:
            save_weights(directory, weights)
            save_snapshots(directory, self.snapshots)
            with whole_file(directory / HISTORY) as path:
                table = pd.DataFrame(self.history, columns=["seed", "step", *COLUMNS])
                table.astype({"seed": int, "step": int}).to_csv(path, index=False, float_format="%.7g")
            shape = list(self.pair.data.shape[1:])
            for file, content in (
                (PROVENANCE, provenance.of_run(self.about["data"], self.source, self.device, self.seconds)),
                (EXPERIMENT, {"name": self.name, "shape": shape, "row": self.row}),
            ):
                with whole_file(directory / file) as path:
                    path.write_text(json.dumps(content, indent=2) + "\n")
        except BaseException:
            remove(files)
            raise
        log.info(f"{self.name}: {self.pair.step} steps in {self.seconds:.0f} s, saved in {directory}")


def snapshot_steps(steps: int, count: int) -> set[int]:
    """After which steps the weights are kept: `count` from a 500th of the training to its end, in equal ratios."""
    return set(np.geomspace(max(1, steps / 500), steps, count).round().astype(int).tolist())


def remove(files: list[Path]) -> None:
    """Delete what there is of these files."""
    for file in files:
        file.unlink(missing_ok=True)


def train(
    name: str,
    row: dict[str, Any],
    array: Path,
    directory: Path,
    state_path: Path,
    threads: int = 1,
    restart: bool = False,
    checkpoint_minutes: float = 5.0,
    until: int | None = None,
) -> None:
    """Train all seeds of experiment `name` on the prepared `array`; leave a model in `directory`.

    The state to resume from is kept at `state_path`, every `checkpoint_minutes` and when interrupted, and removed at
    the end. `until` stops after so many steps and leaves the state. Raises UserError when a loss is no longer a
    finite number, naming the step and the seed, and when `directory` or the state belongs to other parameters, and
    KeyboardInterrupt when it was asked to stop, after the state has been saved.
    """
    refuse_other_model(directory, name, row, restart)
    with checkpoint.only_trainer(state_path), stop_asked() as stop:
        if restart:
            state_path.unlink(missing_ok=True)
        torch.set_num_threads(threads)
        device = choose_device(row["device"])
        for line in provenance.opening_lines(name, row, array, device, threads):
            log.info(line)
        run = Run(name, row, array, state_path, device)
        if run.pair.step:
            log.info(f"going on from step {run.pair.step}, saved in {state_path}")
        steps = row["schedule"]["steps"]
        run.go(min(steps, until or steps), checkpoint_minutes, stop)
        if run.pair.step < steps:
            run.save()
            log.info(f"{name}: stopped after step {run.pair.step}; the same command goes on from there")
            if stop():
                raise KeyboardInterrupt
            return
        run.finish(directory)
        state_path.unlink(missing_ok=True)


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a SIGTERM, is noted and answered between two rounds, so that the state saved is a whole one."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_other_model(directory: Path, name: str, row: dict[str, Any], restart: bool) -> None:
    """UserError if `directory` holds a finished model of other parameters."""
    path = directory / EXPERIMENT
    if restart or not path.exists():
        return
    for key, old, new in checkpoint.differences(describe(directory)["row"], row):
        raise UserError(
            f"{directory} holds a model of {name} made with {key} = {old}, and now it is {new}: write --restart to "
            f"replace it, or the old value to keep it"
        )
