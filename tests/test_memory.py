"""Memory by the files in which Linux says how much there is, of the machine and of the job, and what is kept."""

import math
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from ddgm import memory, pair

CPU = torch.device("cpu")
# Of the hierarchy that newer systems have: as a job of Slurm sees it, and a container.
JOB, CONTAINER = "0::/slurm/job_7/step_0\n", "0::/\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes a machine's files, {path: text}: 4,000 kB are free, and nothing else is said."""
    for name, path in (("MEMINFO", "meminfo"), ("GROUPS", "groups"), ("HIERARCHY", "cgroup")):
        monkeypatch.setattr(memory, name, tmp_path / path)

    def write(**files):
        for path, text in {"meminfo": "MemFree:  100 kB\nMemAvailable:  4000 kB\n", **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


def group(folder, limit, used, files=0, names=memory.UNIFIED):
    """The files of one control group."""
    texts = (f"{limit}\n", f"{used}\n")
    statistics = {f"{folder}/memory.stat": f"anon 5\n{names[2]} {files}\n"}
    return {f"{folder}/{name}": text for name, text in zip(names, texts, strict=False)} | statistics


def test_what_the_machine_has_free_is_divided_among_its_processes(machine, monkeypatch):
    assert memory.free_bytes(CPU) == 0, "where the kernel does not say it, nothing is free"
    machine()
    assert memory.free_bytes(CPU) == 4000 * 1024
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_bytes(CPU) == 1000 * 1024


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        (JOB, group("cgroup/slurm/job_7", 10_000, 4_000, 500), 6_500),
        (JOB, group("cgroup/slurm/job_7", 10_000, 4_000) | group("cgroup/slurm/job_7/step_0", 9_000, 4_000), 5_000),
        (JOB, group("cgroup/slurm/job_7/step_0", "max", 4_000), math.inf),
        (CONTAINER, group("cgroup", 10_000, 4_000), 6_000),
        ("4:cpu,memory:/job\n1:cpu:/\n", group("cgroup/memory/job", 8_000, 3_000, 100, memory.OLDER), 5_100),
        # A container that sees its own group as the root, and is told the machine's name of it.
        ("4:memory:/docker/6af\n", group("cgroup/memory", 8_000, 3_000, 0, memory.OLDER), 5_000),
        ("3:cpu:/job\n", group("cgroup/memory/job", 8_000, 3_000, 0, memory.OLDER), math.inf),
    ],
)
def test_a_job_has_no_more_than_its_control_groups_leave_it(groups, files, left, machine):
    machine(groups=groups, **files)
    assert memory.left_to_job() == left
    assert memory.free_bytes(CPU) == min(left, 4000 * 1024)


def test_a_job_above_its_limit_has_nothing(machine):
    machine(groups=CONTAINER, **group("cgroup", 10_000, 12_000))
    assert memory.free_bytes(CPU) == 0


@pytest.mark.skipif(not memory.GROUPS.exists(), reason="control groups are Linux's")
def test_this_process_has_memory_left():
    assert memory.free_bytes(CPU) > 0


STEPS = """
import resource
import numpy as np
from ddgm import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        arrays = [np.ones(2**17) for _ in range(64)]  # 1 MB each
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
memory.keep_freed()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives memory back as it likes")
def test_a_step_that_makes_the_same_arrays_anew_asks_for_no_memory():
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert kept < 0.1 * given_back


def test_a_pair_on_the_cpu_keeps_its_memory(planar_row, monkeypatch):
    asked = []
    monkeypatch.setattr(pair, "keep_freed", lambda: asked.append("kept"))
    pair.Pair(planar_row, np.zeros((8, 2), np.float32), CPU)
    assert asked == ["kept"]
