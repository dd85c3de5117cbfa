"""Which device a process computes on: the CPU, or a GPU of its own."""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

import torch

from ddgm import distributed
from ddgm.errors import UserError
from ddgm.lock import lock
from ddgm.torchrun import started_by_torchrun

HELD: list[IO[str]] = []  # open to the end of this process, and locked as long


def wants_gpu(name: str) -> bool:
    """Whether `auto`, `cuda` or `cpu` is a GPU here: `auto` is one if there is one.

    Raises UserError for cuda where there is none, and where there are fewer than processes that train together.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' and PyTorch sees no CUDA device here: write 'auto' or 'cpu'")
    if name == "cpu" or not torch.cuda.is_available():
        return False
    # All of them find it, so that the one that speaks can say it.
    if (here := distributed.processes_here()) > torch.cuda.device_count():
        raise UserError(
            f"{here} processes want a GPU each, and PyTorch sees {torch.cuda.device_count()} here: write as many "
            f"devices, or device: cpu"
        )
    return True


def choose_device(name: str) -> torch.device:
    """The device of this process, by `wants_gpu`: of several GPUs one that no other process of ours has.

    From then on this GPU is also what PyTorch takes where none is named.

    Raises UserError where processes that train together find none: two of them cannot share one.
    """
    if not wants_gpu(name):
        return torch.device("cpu")
    chosen = torch.device("cuda", unused_gpu())
    # Else a process would have a context, the default generator, graphs and a record's device of the first one.
    torch.cuda.set_device(chosen)
    return chosen


@cache
def unused_gpu() -> int:
    """The first GPU that no other process of ours holds, held to the end of this one; for one alone 0 where all are.

    Snakemake and Slurm without cgroups count GPUs, and do not say which of them is a job's.
    """
    count = torch.cuda.device_count()
    free = next((number for number in range(count) if hold(number)), None)
    if free is None and started_by_torchrun():
        raise UserError(f"each of the {count} GPUs here is held by another process of yours: wait until one has ended")
    return free or 0


def hold(number: int) -> bool:
    """Hold a GPU among the processes of one user: False where another has it. A single one needs no holding."""
    if torch.cuda.device_count() == 1:
        return True
    # Its number is another where CUDA_VISIBLE_DEVICES is.
    name = f"ddgm_{os.getuid()}_{torch.cuda.get_device_properties(number).uuid}.lock"
    file = (Path(tempfile.gettempdir()) / name).open("a")
    if not lock(file.fileno(), Path(file.name).parent):
        file.close()
        return False
    HELD.append(file)
    return True
