"""profiles/slurm on a Slurm of one node that the tests start themselves, from Debian's packages slurm-wlm and munge.

The node claims more cores and GPUs than this machine has: Slurm hands them out, and nothing here computes on a GPU.
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import test_engines as engines
from conftest import wait_for
from test_engines import BIN, Clone, copy
from test_trials import started

pytestmark = engines.pytestmark
environment, source = engines.environment, engines.source

DAEMONS = ("munged", "slurmctld", "slurmd")
# Where Debian puts daemons, also for a user whose PATH lacks it.
PATH = f"{os.environ['PATH']}:/usr/sbin"
# A requeued job may start again after `cred_expire` seconds, two minutes where Slurm is not told otherwise.
CONFIGURATION = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=12 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=node Default=YES MaxTime=2880 PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=node MaxTime=60 PriorityTier=2 State=UP
"""
DEVICES = """\
NodeName=node Name=gpu File=/dev/null
NodeName=node Name=gpu File=/dev/zero
"""


def lacking() -> str:
    """Why no Slurm can be started here, in a sentence, or nothing."""
    if os.geteuid() != 0:
        return "a Slurm of its own is started by root alone"
    if missing := [name for name in DAEMONS if not shutil.which(name, path=PATH)]:
        return f"{', '.join(missing)} missing: write 'apt-get install slurm-wlm munge'"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "Snakemake's plugin for Slurm is missing: write 'make setup'"
    return ""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """One node of Slurm on loopback; gives the environment in which its commands find it."""
    folder.mkdir(parents=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, (controller, daemon) = socket.gethostname().split(".")[0], free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, controller=controller, daemon=daemon))
    (folder / "gres.conf").write_text(DEVICES)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    environment = {"SLURM_CONF": str(configuration), "PATH": PATH}
    munged = [f"--{what}={folder / file}" for what, file in (
        ("socket", "munge.socket"), ("key-file", "munge.key"), ("pid-file", "munged.pid"), ("log-file", "munged.log"),
        ("seed-file", "munged.seed"),
    )]  # fmt: skip
    commands = [
        ["munged", "--foreground", "--force", *munged],
        ["slurmctld", "-D", "-c", "-f", str(configuration)],
        ["slurmd", "-D", "-c", "-N", "node", "-f", str(configuration)],
    ]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "daemons.log").open("w"))
        for command in commands:
            process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
            stack.callback(end, process)
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, seconds=20)
        wait_for(lambda: "idle" in answer("sinfo -h -o %T", environment), seconds=60)
        # Before its daemons end: what they started would outlive them.
        stack.callback(cancel, environment)
        yield environment


def cancel(environment: dict[str, str]) -> None:
    """End every job, and wait until it has ended."""
    answer("scancel --user=root", environment)
    answer("scancel --user=root --signal=KILL", environment)
    wait_for(lambda: not answer("squeue -h", environment), seconds=60)


def answer(command: str, environment: dict[str, str]) -> str:
    """What one of Slurm's commands says, on both its channels."""
    return subprocess.run(
        command.split(), env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    if reason := lacking():
        pytest.skip(reason)
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("slurm") / "node"
        try:
            environment = stack.enter_context(running_slurm(folder))
        except (AssertionError, OSError) as error:
            pytest.skip(f"Slurm's daemons do not start here: {error}")
        # The plugin takes every SLURM_ variable from the environment of `srun`.
        bin = folder / "bin"
        bin.mkdir()
        script(bin / "srun", f'SLURM_CONF={environment["SLURM_CONF"]} exec {shutil.which("srun", path=PATH)} "$@"')
        yield environment | {"PATH": f"{bin}:{PATH}"}


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Cluster(Clone):
    """A working copy of the project whose `snakemake` runs jobs through Slurm, and what these jobs note."""

    def __init__(self, path: Path, environment: dict[str, str], ddgm: Path) -> None:
        bin = path.parent / "bin"
        bin.mkdir()
        self.notes = path.parent / "notes"
        self.notes.touch()
        noted = "$1 $2 ${SLURM_JOB_ID:-none} ${CUDA_VISIBLE_DEVICES:-none}"
        script(bin / "ddgm", f'echo "{noted}" >> {self.notes}\nexec {ddgm} "$@"')
        super().__init__(path, environment | {"PATH": f"{bin}:{BIN}:{environment['PATH']}", "OMP_NUM_THREADS": "1"})

    def jobs(self) -> list[list[str]]:
        """verb, what it is about, Slurm's number of the job, its GPUs: of each `ddgm` that has begun."""
        return [line.split() for line in self.notes.read_text().splitlines()]

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run(f"scontrol show job -o {number}")))

    def edit_row(self, experiment: str, **values: object) -> None:
        """Change an experiment's keys, and commit that."""
        text = (self.path / "params.yaml").read_text()
        for key, value in values.items():
            row = rf"(\n  {experiment}:\n(?:    .*\n)*?(?:    |    schedule: .*?[{{ ]){key}: )\w+"
            text, count = re.subn(row, rf"\g<1>{value}", text)
            assert count == 1, key
        (self.path / "params.yaml").write_text(text)


SNAKEMAKE = "snakemake --workflow-profile profiles/slurm --slurm-init-seconds-before-status-checks 2"
MODEL = "results/toy/models/{}/weights.safetensors"


@pytest.fixture
def cluster(source, slurm, tmp_path) -> Cluster:
    """The project, with the real `ddgm`."""
    clone = copy(source, tmp_path / "project")
    real = clone.environment | slurm | {"PYTHONPATH": str(clone.path / "src")}
    return Cluster(clone.path, real, BIN / "ddgm")


@pytest.fixture
def pretended(source, slurm, environment, tmp_path) -> Cluster:
    """The project, with the stand-in for `ddgm`, which needs no GPU."""
    clone = copy(source, tmp_path / "project")
    return Cluster(clone.path, clone.environment | slurm, Path(environment["HOME"]) / "bin/ddgm")


def test_a_figure_of_the_toy_branch_is_made_by_jobs_of_slurm(cluster):
    cluster.edit("params.yaml", "fig2: [toy_four_spin, toy_two_spiral]", "fig2: [toy_four_spin]")
    cluster.edit("params.yaml", "compared: [toy_two_spiral_gan]", "compared: [toy_two_spiral, toy_two_spiral_gan]")
    cluster.edit_row("toy_four_spin", steps=60)
    figure = "results/toy/figures/fig2.png"
    cluster.run(f"{SNAKEMAKE} {figure}")
    assert (cluster.path / figure).read_bytes().startswith(b"\x89PNG")
    verbs, _, numbers, gpus = zip(*cluster.jobs(), strict=True)
    assert verbs == ("prepare", "train", "sample", "draw")
    assert len(set(numbers)) == 4 and set(gpus) == {"none"}
    for verb, number in zip(verbs, numbers, strict=True):
        job = cluster.job(number)
        assert job["JobState"] == "COMPLETED" and job["Comment"].startswith(f"rule_{verb}")
        assert job["NumCPUs"] == "1" and "TresPerJob" not in job
    assert cluster.plans(figure) == set() and cluster.changed("draw_fig2-toy") == set()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_training_asks_slurm_for_its_gpus_and_the_cores_of_all_its_processes(devices, pretended, tmp_path):
    pretended.edit_row("toy_four_spin", device="cuda", devices=devices, threads=3)
    gate = tmp_path / "gate"
    model = MODEL.format("toy_four_spin")
    with started(pretended, f"{SNAKEMAKE} {model}", PAUSE=f"train:{gate}") as running:
        wait_for(gate.with_suffix(".waiting").exists)
        _, _, number, gpus = pretended.jobs()[-1]
        job = pretended.job(number)
        gate.touch()
        assert running.wait(120) == 0
    assert job["TresPerJob"] == f"gres:gpu:{devices}" and job["NumCPUs"] == str(3 * devices)
    assert gpus == ",".join(map(str, range(devices)))


@pytest.mark.parametrize("way", ["preempted", "requeued"])
def test_a_training_that_slurm_ends_goes_on_and_ends_bit_equal_to_one_left_alone(way, cluster, slurm, tmp_path):
    alone = copy(cluster, tmp_path / "alone")
    model = MODEL.format("toy_four_spin")
    log = cluster.path / "logs/train/toy/toy_four_spin.log"
    with started(cluster, f"{SNAKEMAKE} {model}") as running:
        wait_for(lambda: log.exists() and "step " in log.read_text())
        _, _, number, *_ = cluster.jobs()[-1]
        # With a grace time the job ends by itself, and Snakemake sends it again; without, Slurm requeues it.
        if way == "preempted":
            answer(f"sbatch --wait --partition=urgent --exclusive --output={tmp_path}/urgent --wrap hostname", slurm)
        else:
            answer(f"scontrol requeue {number}", slurm)
        assert running.wait(300) == 0
    (_, _, first, _), (_, _, second, _) = [job for job in cluster.jobs() if job[0] == "train"]
    restarts = cluster.job(second)["Restarts"]
    assert (first == second, restarts) == ((False, "0") if way == "preempted" else (True, "1"))
    assert "going on from step " in log.read_text()
    alone.run(f"snakemake --cores 1 {model}")
    resumed, expected = load_file(cluster.path / model), load_file(alone.path / model)
    assert resumed.keys() == expected.keys()
    assert all(np.array_equal(resumed[key], expected[key]) for key in expected)
    assert cluster.plans(model) == set()


def test_a_training_on_several_devices_is_one_job_whose_processes_torchrun_starts(cluster):
    cluster.edit_row("toy_four_spin", steps=60, devices=2)
    model = MODEL.format("toy_four_spin")
    cluster.run(f"{SNAKEMAKE} {model}")
    assert (cluster.path / model).exists()
    (verb, _, number, *_), *others = [job for job in cluster.jobs() if job[0] == "train"]
    assert verb == "train" and others == []
    job = cluster.job(number)
    assert job["JobState"] == "COMPLETED" and job["NumCPUs"] == "2" and job["NumTasks"] == "1"
    about = json.loads((cluster.path / model).with_name("provenance.json").read_text())
    assert about["processes"] == 2


def test_a_job_that_slurm_cannot_place_is_named_by_snakemake(pretended):
    pretended.edit_row("toy_four_spin", device="cuda", devices=4)
    said = pretended.run(f"{SNAKEMAKE} --retries 0 {MODEL.format('toy_four_spin')}", code=1)
    assert "SLURM sbatch failed" in said and "Requested node configuration is not available" in said
