"""The state that an interrupted training goes on from: written whole, refused if parameters or its format changed."""

import io
import os
import pickle
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ddgm import distributed
from ddgm.errors import UserError, out_of_memory
from ddgm.lock import lock
from ddgm.progress import log
from ddgm.whole_file import whole_file

FORMAT = 2  # to be raised when what a state holds changes: older states are refused then


def save(folder: Path, step: int, parameters: dict[str, Any], state: dict[str, Any], kept: int) -> None:
    """Write `state` (tensors, numbers, lists, dictionaries) as that of `step`, with the parameters it belongs to.

    The newest `kept` states stay in the folder. One of a later step is none: training has gone on from before it.
    """
    # By way of memory: torch.save itself reports a full disk as a RuntimeError without a reason.
    content = io.BytesIO()
    torch.save({"format": FORMAT, "parameters": parameters, "state": state}, content)
    with whole_file(folder / f"{step:09d}.pt") as temporary:
        temporary.write_bytes(content.getbuffer())
    states = _states(folder)
    later = [path for path in states if int(path.stem) > step]
    for old in later + states[len(later) + kept :]:
        old.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    """The states in a folder, the newest first."""
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest state, if there is one."""
    return next(iter(_states(folder)), None)


def remove(folder: Path) -> None:
    """Delete every state."""
    shutil.rmtree(folder, ignore_errors=True)


def load(folder: Path, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The newest state that can be read, or None where there is none.

    Raises UserError if it was made with other parameters or by another version, or if there are states and none can be
    read; OSError, or RuntimeError for too little memory, where that is no fault of the file's.
    """
    broken = None
    for path in _states(folder):
        try:
            # On the CPU first: random streams keep their states there, whatever device they run on.
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            if out_of_memory(error):
                raise
            log.warning(f"{path} cannot be read as a checkpoint: the one before it is tried")
            broken = path
            continue
        if saved.get("format") != FORMAT:
            by = saved.get("state", {}).get("code", "an older version")
            raise UserError(
                f"{path} was saved by ddgm {by}, whose states hold other things: go on with that version, "
                f"or delete {folder} (or write --restart) to start again"
            )
        for key, old, new in differences(saved["parameters"], parameters):
            back = {"data": "bring the same data back", "device": f"write device: {old}"}
            raise UserError(
                f"{path} was made with {key} = {old}, and now it is {new}: "
                f"{back.get(key, 'write the old value back')} to go on with it, "
                f"or delete {folder} (or write --restart) to start again"
            )
        return saved["state"]
    if broken:
        raise UserError(f"{broken} cannot be read as a checkpoint, nor any other: delete {folder} to start again")
    return None


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each dotted key at which two nested dictionaries differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name, "absent"), new.get(name, "absent"), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


@contextmanager
def only_trainer(path: Path) -> Iterator[None]:
    """Hold the lock beside a folder of checkpoints, so that a run has one trainer; of several processes the first does.

    Raises UserError if another process has it, or if the file system has no locks.
    """
    if not distributed.is_first():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a+") as handle:
        if not lock(handle.fileno(), path.parent):
            handle.seek(0)
            process, host, job = f"{handle.read().strip()},,".split(",")[:3]
            where = "" if host in ("", platform.node()) else f" on {host}"
            stop = f"kill {process}" if not where else f"ssh {host} kill {process}"
            raise UserError(
                f"process {process}{where} is training {path.stem} already: wait for it, or stop it with "
                f"'{f'scancel {job}' if job else stop}'"
            )
        handle.truncate(0)
        # A folder that several nodes see: of the process, its node and its job of Slurm.
        handle.write(f"{os.getpid()},{platform.node()},{os.environ.get('SLURM_JOB_ID', '')}\n")
        handle.flush()
        yield
