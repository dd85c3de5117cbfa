"""profiles/kubernetes without a cluster: what its pod runs, against S3 on loopback and a bare git repository."""

import subprocess
from pathlib import Path

import pytest
import yaml

import test_engines as engines
from conftest import ROOT
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

    def run(self, **changed: str) -> subprocess.CompletedProcess:
        declared = {entry["name"]: entry["value"] for entry in self.container["env"]}
        environment = declared | self.environment | changed
        return subprocess.run(
            self.container["command"], cwd=self.volume, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=300,
        )  # fmt: skip


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


def test_a_pod_that_replaces_another_on_its_volume_goes_on(settings, tmp_path):
    pod = Pod(tmp_path / "volume", **settings)
    failed = pod.run(TARGET="results/toy/figures/no_such.png")
    assert failed.returncode != 0 and "no_such" in failed.stdout
    done = pod.run()
    assert done.returncode == 0, done.stdout[-3000:]
