"""The training loop: rounds to the last step, progress, stopping, resuming, and the model that is left."""

import json
import os
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

from ddgm import checkpoint, distributed, provenance
from ddgm.datasets.prepared import read, source_of
from ddgm.device import choose_device
from ddgm.errors import TRY_AGAIN, DivergenceError, UserError
from ddgm.experiment import (
    EXPERIMENT,
    HISTORY,
    PROGRESS,
    PROVENANCE,
    SNAPSHOTS,
    WEIGHTS,
    describe,
    save_snapshots,
    save_weights,
    to_pixels,
)
from ddgm.pair import COLUMNS, HEALTH, Pair
from ddgm.progress import Progress, log
from ddgm.row import unshareable, untitled
from ddgm.whole_file import all_or_none, whole_file

REPORT_STEPS = 50


def choose_arithmetic(row: dict[str, Any]) -> None:
    """TF32 only where `precision` asks for it; with `deterministic`, none but operations that repeat to the bit."""
    # PyTorch's convolutions on a GPU round to TF32 unless they are told not to.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = row["precision"] == "tf32"
    torch.backends.cudnn.benchmark = not row["deterministic"]
    if row["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(row["deterministic"])


def refuse_processes(name: str, row: dict[str, Any]) -> None:
    """UserError where an experiment cannot be shared by as many processes as there are."""
    for sentence in unshareable(f"experiments.{name}", row, distributed.processes()):
        raise UserError(sentence)


class Run:
    """One experiment from its first step, or from where it was interrupted, to its last.

    `sha256` is the array's checksum, where it is known already.
    """

    def __init__(
        self,
        name: str,
        row: dict[str, Any],
        array: Path,
        state_path: Path,
        device: torch.device,
        kept: int = 2,
        sha256: str | None = None,
    ) -> None:
        data = read(array, mmap_mode="r")
        self.name, self.row, self.device, self.state_path, self.kept = name, row, device, state_path, kept
        self.source = source_of(array)
        self.about = {"row": row, "data": sha256 or provenance.checksum(array), "device": device.type}
        self.pair = Pair(row, data, device)
        self.history: list[list[float]] = []
        self.pending: list[Tensor] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.pictures: dict[int, Tensor] = {}
        self.seconds = 0.0
        # Of this process, and of those before it whose state it goes on from.
        self.code = provenance.code_version()
        self.earlier_code: list[str] = []
        state = checkpoint.load(state_path, self.about)
        if state is not None:
            self.pair.restore(state["pair"])
            self.history, self.seconds = state["history"], state["seconds"]
            self.snapshots, self.pictures = state["snapshots"], state["pictures"]
            self.pending = [value.to(device) for value in state["pending"]]
            self.earlier_code = state["earlier_code"]
            if state["code"] != self.code:
                log.warning(f"{state_path} was saved by code version {state['code']}, and goes on with {self.code}")
                self.earlier_code = [*self.earlier_code, state["code"]]

    def save(self) -> None:
        """Write the state to resume from. Raises DivergenceError in place of saving one that has diverged.

        Of several processes the first writes for all, which wait: the launcher ends them when one has ended.
        """
        if self.pending:
            self.refuse_divergence(torch.stack(self.pending).cpu())
        distributed.by_the_first(self.write_state, self.device)

    def write_state(self) -> None:
        """The state as it is now, in a file of its own."""
        state = {
            "code": self.code,
            "earlier_code": self.earlier_code,
            "pair": self.pair.state(),
            "history": self.history,
            "pending": self.pending,
            "snapshots": self.snapshots,
            "pictures": self.pictures,
            "seconds": self.seconds,
        }
        checkpoint.save(self.state_path, self.pair.step, self.about, state, self.kept)

    def go(self, last: int, checkpoint_minutes: float, stop: Callable[[], int]) -> None:
        """Rounds until step `last` or until `stop()`; the state is saved every `checkpoint_minutes`."""
        steps = self.row["schedule"]["steps"]
        kept = moments(steps, self.row["schedule"]["snapshots"])
        shown = moments(steps, self.row["schedule"]["pictures"])
        started = saved = time.monotonic()
        before = self.seconds
        with Progress(self.name, steps, self.pair.step) as bar:
            while self.pair.step < last and not self.agreed(bool(stop())):
                self.pending.append(self.pair.round())
                if self.pair.step in kept:
                    self.snapshots[self.pair.step] = self.pair.measured()
                if self.pair.step in shown:
                    self.pictures[self.pair.step] = self.pair.shown().cpu()
                if self.pair.step % REPORT_STEPS == 0 or self.pair.step == steps:
                    mean = self.report()
                    bar.show(self.pair.step, "E(x+) {:.4g}  E(x-) {:.4g}  H {:.4g}".format(*mean))
                if self.agreed(time.monotonic() - saved > 60 * checkpoint_minutes):
                    self.seconds = before + time.monotonic() - started
                    self.save()
                    saved = time.monotonic()
        self.seconds = before + time.monotonic() - started

    def agreed(self, asked: bool) -> bool:
        """Whether a process asks for something: one alone may do so after any round, several agree at reports."""
        if distributed.processes() == 1:
            return asked
        return self.pair.step % REPORT_STEPS == 0 and distributed.any_says(asked, self.device)

    def report(self) -> list[float]:
        """A row of history a seed, means over the steps since the last report; gives the means over seeds."""
        # One read for all steps: reading every loss would make a GPU wait at each.
        values = distributed.mean_over_processes(torch.stack(self.pending)).cpu()
        health = self.pair.health().cpu()
        self.refuse_divergence(values)
        self.refuse_failure(values, health)
        self.pending = []
        means = torch.cat([values.mean(0), health], 1)
        self.history += [
            [seed, self.pair.step, *row] for seed, row in zip(self.row["seeds"], means.tolist(), strict=True)
        ]
        return means[:, : len(COLUMNS)].mean(0).tolist()

    def refuse_divergence(self, values: Tensor) -> None:
        """DivergenceError at the first value that is not a finite number; values (steps, S, 3)."""
        broken = (~torch.isfinite(values)).nonzero()
        if len(broken):
            offset, index, column = broken[0].tolist()
            step = self.pair.step - len(values) + offset + 1
            what = f"{COLUMNS[column]} is {values[offset, index, column].item()} at step {step}"
            self.refuse(index, what, "lower the rates, raise objective.penalty or set optimiser.clip")

    def refuse_failure(self, values: Tensor, health: Tensor) -> None:
        """DivergenceError for energies (steps, S, 3), or a health (S, 2), beyond what `watch` allows."""
        watch, at = self.row["watch"], f"at step {self.pair.step}"
        largest, energies = watch["energy"], values[:, :, :2].abs().amax((0, 2))
        for index, (spread, slope) in enumerate(health):
            if largest is not None and energies[index] > largest:
                what = f"an energy of {energies[index]:.3g} is beyond watch.energy ({largest:g}) {at}"
                self.refuse(index, what, "lower the energy's rate, raise objective.penalty, or write a larger bound")
            if watch["spread"] is not None and spread < watch["spread"]:
                what = f"all samples are alike {at}, their variance is {spread:.2g} times the data's and watch.spread "
                advice = "lower the energy's rate, raise objective.penalty or entropy.weight, or write null"
                self.refuse(index, f"{what}{watch['spread']:g}", advice)
            if watch["slope"] is not None and slope < watch["slope"]:
                what = f"the energy is flat {at}, its slope at samples is {slope:.2g} and watch.slope "
                self.refuse(
                    index, f"{what}{watch['slope']:g}", "lower the rates, raise objective.penalty, or write null"
                )

    def refuse(self, index: int, what: str, advice: str) -> None:
        """The DivergenceError of one seed, with the state that is left."""
        saved = checkpoint.newest(self.state_path)
        kept = f"the last saved state is {saved}" if saved else "no state had been saved by then"
        raise DivergenceError(f"{self.name}, seed {self.row['seeds'][index]}: {what} ({kept}): {advice}")

    def finish(self, directory: Path) -> None:
        """Write the model: weights, history, the experiment and its provenance."""
        weights = self.pair.weights()
        for seed, nets in weights.items():
            if not all(torch.isfinite(value).all() for state in nets.values() for value in state.values()):
                raise DivergenceError(
                    f"{self.name}, seed {seed}: a weight is no finite number after the last step: lower the rates"
                )
        # Nothing is lost if the disk fills here, and a model is there with all its files or with none.
        self.save()
        if not distributed.is_first():
            return
        files = (EXPERIMENT, PROVENANCE, HISTORY, PROGRESS, SNAPSHOTS, WEIGHTS)
        with all_or_none(directory / file for file in files):
            save_weights(directory, weights)
            save_snapshots(directory, self.snapshots)
            with whole_file(directory / HISTORY) as path:
                table = pd.DataFrame(self.history, columns=["seed", "step", *COLUMNS, *HEALTH])
                table.astype({"seed": int, "step": int}).to_csv(path, index=False, float_format="%.7g")
            with whole_file(directory / PROGRESS) as path:
                np.savez_compressed(path, **self.progress())
            shape = list(self.pair.shape)
            about = provenance.of_run(
                self.about["data"], self.source, self.pair.source.held, self.device, self.seconds, self.earlier_code
            )
            for file, content in (
                (PROVENANCE, about),
                (EXPERIMENT, {"name": self.name, "shape": shape, "row": self.row}),
            ):
                with whole_file(directory / file) as path:
                    path.write_text(json.dumps(content, indent=2) + "\n")
        log.info(f"{self.name}: {self.pair.step} steps in {self.seconds:.0f} s, saved in {directory}")

    def progress(self) -> dict[str, np.ndarray]:
        """The same z along training: `steps` (T,), `samples` (T, S, n, *shape), uint8 or points, and `source`."""
        limits = self.row["range"]
        kept = [x.numpy() if limits is None else to_pixels(x, limits) for x in self.pictures.values()]
        none = np.zeros((0, len(self.row["seeds"]), 0, *self.pair.shape), np.float32 if limits is None else np.uint8)
        samples = np.stack(kept) if kept else none
        return {"steps": np.array(list(self.pictures), int), "samples": samples, "source": np.array(self.source)}


def moments(steps: int, count: int) -> set[int]:
    """After which steps something is kept: `count` from a 500th of the training to its end, in equal ratios."""
    # From the end backwards: a single one is the end.
    return set(np.geomspace(steps, max(1, steps / 500), count).round().astype(int).tolist())


def train(
    name: str,
    row: dict[str, Any],
    array: Path,
    directory: Path,
    state_path: Path,
    threads: int = 1,
    restart: bool = False,
    checkpoint_minutes: float = 5.0,
    checkpoints: int = 2,
    until: int | None = None,
    sha256: str | None = None,
) -> None:
    """Train all seeds of experiment `name` on the prepared `array`; leave a model in `directory`.

    The states to resume from are kept in the folder `state_path`, the newest `checkpoints` of them, one every
    `checkpoint_minutes` and when interrupted, and removed at the end. `until` stops after so many steps and leaves
    the state; `sha256` is the array's checksum, where it is known. Raises DivergenceError when a loss is no longer a
    finite number or the row's `watch` sees a failure, naming the step and the seed; UserError when `directory` or the
    state belongs to other parameters; KeyboardInterrupt when Ctrl-C was pressed, SystemExit(TRY_AGAIN) at a SIGTERM,
    both after the state has been saved, once there are rounds; before, the caller's own handlers answer.
    Started by torchrun, it trains together with the other processes.
    """
    refuse_other_model(directory, name, row, restart)
    row = untitled(row)
    device = choose_device(row["device"])
    with distributed.together(device), checkpoint.only_trainer(state_path):
        refuse_processes(name, row)
        if restart:
            distributed.by_the_first(lambda: checkpoint.remove(state_path), device)
        torch.set_num_threads(threads)
        choose_arithmetic(row)
        # Once: LSUN's array has 37 GB.
        sha256 = sha256 or provenance.checksum(array)
        for line in provenance.opening_lines(name, row, array, sha256, device, threads):
            log.info(line)
        run = Run(name, row, array, state_path, device, checkpoints, sha256)
        log.info(f"{'data_held':<13} {run.pair.source.held}")
        if run.pair.step:
            log.info(f"going on from step {run.pair.step}, saved in {state_path}")
        elif (directory / EXPERIMENT).exists():
            log.info(f"{directory} is a finished model, and is trained anew")
        steps = row["schedule"]["steps"]
        # Not before: what reads the data, and compiles, has nothing to save and may be ended at once.
        with stop_asked() as stop:
            run.go(min(steps, until or steps), checkpoint_minutes, stop)
            if run.pair.step < steps:
                run.save()
                log.info(f"{name}: stopped after step {run.pair.step}; the same command goes on from there")
                if stop():
                    raise KeyboardInterrupt if stop() == signal.SIGINT else SystemExit(TRY_AGAIN)
                return
            run.finish(directory)
            if distributed.is_first():
                checkpoint.remove(state_path)


@contextmanager
def stop_asked() -> Iterator[Callable[[], int]]:
    """Ctrl-C, or a SIGTERM, is noted and answered between two rounds, so that the state saved is a whole one.

    Gives a function that says which signal came, or 0.
    """
    asked = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = number

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
    for key, old, new in checkpoint.differences(*map(untitled, (describe(directory)["row"], row))):
        raise UserError(
            f"{directory} holds a model of {name} made with {key} = {old}, and now it is {new}: write --restart to "
            f"replace it, or the old value to keep it"
        )
