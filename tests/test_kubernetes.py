"""profiles/kubernetes without a cluster: what its pod runs, against S3 on loopback and a bare git repository."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import test_engines as engines
from conftest import ROOT, wait_for
from test_engines import Clone
from test_remotes import KEYS, S3, s3

pytestmark = [*engines.pytestmark, S3]
environment, source = engines.environment, engines.source
TARGET = "results/toy/figures/fig1.png"


class Pod:
    """The pod's container as job.yaml describes it, its volume a folder."""

    def __init__(self, volume: Path, **environment: str) -> None:
        manifest = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())
        (self.container,) = manifest["spec"]["template"]["spec"]["containers"]
        self.volume, self.environment = volume, environment
        volume.mkdir()

    def start(self, **changed: str) -> subprocess.Popen:
        declared = {entry["name"]: entry["value"] for entry in self.container["env"]}
        return subprocess.Popen(
            self.container["command"], cwd=self.volume, env=declared | self.environment | changed, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, **changed: str) -> subprocess.CompletedProcess:
        process = self.start(**changed)
        said, _ = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, said)


@pytest.fixture
def shared(source, tmp_path) -> Path:
    """A bare repository, as on a git server."""
    bare = tmp_path / "project.git"
    source.run(f"git clone -q --bare . {bare}")
    return bare


@pytest.fixture
def bucket(tmp_path):
    with s3(tmp_path) as remote:
        yield remote


@pytest.fixture
def settings(source, shared, bucket, tmp_path) -> dict[str, str]:
    made = {"MADE": str(tmp_path / "made"), "VIRTUAL_ENV": "the tests' own"}
    where = {"REPOSITORY": str(shared), "STORAGE": bucket.url, "ENDPOINT": bucket.settings["endpointurl"]}
    return source.environment | KEYS | made | where | {"TARGET": TARGET, "BRANCH": "made"}


def test_what_a_pod_makes_is_restored_elsewhere_from_s3_and_git(settings, source, shared, bucket, tmp_path):
    done = Pod(tmp_path / "volume", **settings).run()
    assert done.returncode == 0, done.stdout[-3000:]
    fresh = Clone(tmp_path / "fresh", source.environment | KEYS)
    fresh.path.mkdir()
    fresh.run(f"git clone -q --branch made {shared} .")
    bucket.use(fresh)
    fresh.run("dvc pull draw_fig1-toy")
    assert fresh.plans(TARGET) == set()


def test_another_pod_fetches_what_one_has_made_and_makes_it_not_again(settings, tmp_path):
    first = Pod(tmp_path / "first", **settings).run()
    assert first.returncode == 0, first.stdout[-3000:]
    made = (tmp_path / "made").read_text()
    second = Pod(tmp_path / "second", **settings).run()
    assert second.returncode == 0 and "Nothing to be done" in second.stdout, second.stdout[-3000:]
    assert (tmp_path / "made").read_text() == made


def training(pod: Pod, gate: Path) -> subprocess.Popen:
    """A pod that makes a model, once its training is half-way: until the gate is there it gets no further."""
    model = "results/toy/models/toy_four_spin/weights.safetensors"
    started = pod.start(TARGET=model, PAUSE=f"train:{gate}")
    wait_for(gate.with_suffix(".waiting").exists, started)
    return started


def test_a_pod_that_replaces_one_killed_in_a_training_on_its_volume_goes_on(settings, tmp_path):
    pod, gate = Pod(tmp_path / "volume", **settings), tmp_path / "gate"
    killed = training(pod, gate)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert any((tmp_path / "volume/project/.snakemake/locks").iterdir())
    gate.touch()
    done = pod.run(TARGET="results/toy/models/toy_four_spin/weights.safetensors")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(not shutil.which("pkill"), reason="needs pkill: apt-get install procps")
def test_a_pod_that_is_to_end_asks_its_training_to_end(settings, tmp_path):
    """Its first process alone is asked, as Kubernetes does it."""
    pod = Pod(tmp_path / "volume", **settings)
    asked = training(pod, tmp_path / "gate")
    process = int((tmp_path / "gate.waiting").read_text())
    try:
        os.kill(asked.pid, signal.SIGTERM)
        said, _ = asked.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)
    assert asked.returncode == 1, said[-3000:]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_pod_whose_storage_takes_nothing_says_so_before_it_makes_anything(settings, tmp_path):
    pod = Pod(tmp_path / "volume", **settings)
    refused = pod.run(STORAGE="s3://no-such-bucket/results")
    assert refused.returncode == 1 and "the remote cannot be written: " in refused.stdout, refused.stdout[-3000:]
    assert not (tmp_path / "made").exists()
