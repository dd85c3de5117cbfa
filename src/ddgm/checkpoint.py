"""The state that an interrupted training goes on from: written whole, and refused if the parameters changed."""

import fcntl
import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ddgm.errors import UserError
from ddgm.whole_file import whole_file


def save(path: Path, parameters: dict[str, Any], state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, lists, dictionaries) together with the parameters it belongs to."""
    # By way of memory: torch.save itself reports a full disk as a RuntimeError without a reason.
    content = io.BytesIO()
    torch.save({"parameters": parameters, "state": state}, content)
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load(path: Path, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The saved state, or None where there is none. Raises UserError if it was made with other parameters."""
    try:
        # On the CPU first: random streams keep their states there, whatever device they run on.
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        raise UserError(f"{path} cannot be read as a checkpoint: delete it to start again") from None
    for key, old, new in differences(saved["parameters"], parameters):
        raise UserError(
            f"{path} was made with {key} = {old}, and now it is {new}: write the old value back to go on with it, or "
            f"delete it (or write --restart) to start again"
        )
    return saved["state"]


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each dotted key at which two nested dictionaries differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name, "absent"), new.get(name, "absent"), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


@contextmanager
def only_trainer(path: Path) -> Iterator[None]:
    """Hold the lock beside a checkpoint, so that a run has one trainer. Raises UserError if another process has it.

    The kernel lets go of the lock when the process ends, however it ends: no stale lock is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            process = handle.read().strip()
            raise UserError(
                f"process {process} is training {path.stem} already: wait for it, or stop it with 'kill {process}'"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
