"""Memory of a process: how much it may still take, of the device, the machine and its job, and what it keeps."""

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from ddgm.distributed import processes_here

# Where Linux says how much memory is free, and in which control groups a process is.
MEMINFO, GROUPS, HIERARCHY = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# What a group may take, what it has, and what of that are copies of files that the kernel gives up when asked.
UNIFIED = ("memory.max", "memory.current", "inactive_file")
OLDER = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
# glibc's numbers for the free memory above which a process gives it back, and for the size above which an array has
# pages of its own; the latter takes no more than 32 MB.
TRIM_THRESHOLD, MMAP_THRESHOLD, LARGEST_PAGES = -1, -3, 2**25


def keep_freed() -> None:
    """Let this process, from now on, keep the memory of arrays up to 32 MB when they are freed.

    Every step makes the same arrays anew; given back and asked for again, in pages that the kernel must empty, they
    cost `four_spin_neighbour` a tenth of its steps on one thread and a sixth on two. What the process has had at most
    it then holds to its end. Nothing changes where the C library has no mallopt.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(MMAP_THRESHOLD, LARGEST_PAGES)


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nothing uses; on the CPU this process's part of what needs no swapping.

    A job of a cluster, or a container, often has less of it than the machine: no more than its control groups leave.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, int(min(free_on_machine(), left_to_job()))) // processes_here()


def free_on_machine() -> int:
    """Bytes, and 0 where the kernel does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


def left_to_job() -> float:
    """The least that a control group of this process, or one that contains it, has left; infinite where none limits."""
    return min((left_in(*group) for group in limiting_groups()), default=math.inf)


def limiting_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of this process's groups for memory, the innermost first, and what their files are called."""
    try:
        entries = [line.split(":", 2) for line in GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (HIERARCHY / "memory", OLDER) if controllers else (HIERARCHY, UNIFIED)
        group = root / path.lstrip("/")
        # A container's own group is the root that it sees, by whatever path the machine knows it.
        yield from ((folder, names) for folder in (group, *group.parents) if folder.is_relative_to(root))


def left_in(folder: Path, names: tuple[str, str, str]) -> float:
    """Bytes that a group may still take; infinite without a limit, or where it is not there."""
    limit, used, files = names
    try:
        allowed = int((folder / limit).read_text())
        taken = int((folder / used).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return allowed - taken + int(statistics[files])
    except (OSError, ValueError, KeyError):  # "max" is no number
        return math.inf
