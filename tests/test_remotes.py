"""DVC's remotes, each a server process on loopback: what is pushed comes back, and what is broken is named.

Results come from the stand-in for `ddgm` of test_engines.py.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import test_engines as engines
from test_engines import Clone, copy

environment, source = engines.environment, engines.source


def needs(*modules: str) -> pytest.MarkDecorator:
    lacking = [name for name in modules if not importlib.util.find_spec(name)]
    return pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}: make setup")


pytestmark = engines.pytestmark
S3, WEBDAV = needs("dvc_s3", "moto", "flask"), needs("dvc_webdav", "wsgidav", "cheroot")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
TARGETS = {
    "draw_fig1-toy": "results/toy/figures/fig1.png",
    "prepare-two_spiral-train": "data/prepared/two_spiral/train.npy",
}
BIG, COUNT = 4_000_000, 30


@dataclass
class Remote:
    """A place for results: its address, what DVC must know beside it, and where on this disk its objects lie."""

    url: str
    settings: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def use(self, clone: Clone) -> None:
        """Make it a clone's remote, with what a user types."""
        clone.run(f"dvc remote modify --local storage url {self.url}")
        for key, value in self.settings.items():
            clone.run(f"dvc remote modify --local storage {key} {value}")

    def arrived(self) -> int:
        """How many big objects are there, whole or begun."""
        if self.folder:
            return sum(path.is_file() and path.stat().st_size > BIG / 4 for path in self.folder.rglob("*"))
        listed = urllib.request.urlopen(f"{self.settings['endpointurl']}/bucket?list-type=2").read().decode()
        return listed.count(f"<Size>{BIG}</Size>")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[str]:
    """A server's process, from when it answers; its address on loopback."""
    port = str(free_port())
    command = [sys.executable, "-m", module, *(port if word == "PORT" else word for word in arguments)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(int(port)):
            assert server.poll() is None and time.monotonic() < deadline, f"{module} does not answer"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3(folder: Path) -> Iterator[Remote]:
    with serving("moto.server", "-H", "127.0.0.1", "-p", "PORT") as address:
        urllib.request.urlopen(urllib.request.Request(f"http://{address}/bucket", method="PUT"))
        yield Remote("s3://bucket/results", {"endpointurl": f"http://{address}"})


@contextmanager
def webdav(folder: Path) -> Iterator[Remote]:
    (folder / "results").mkdir(parents=True)
    words = ["--host", "127.0.0.1", "--port", "PORT", "--root", str(folder), "--auth", "anonymous", "--no-config", "-q"]
    with serving("wsgidav.server.server_cli", *words) as address:
        yield Remote(f"webdav://{address}/results", folder=folder)


@contextmanager
def local(folder: Path) -> Iterator[Remote]:
    yield Remote(str(folder), folder=folder)


KINDS = [local, pytest.param(s3, marks=S3), pytest.param(webdav, marks=WEBDAV)]


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Clone:
    """Two small stages made and committed, and nothing pushed."""
    clone = copy(source, tmp_path_factory.mktemp("built") / "project")
    clone.environment = clone.environment | KEYS
    clone.run(f"snakemake --cores 2 {' '.join(TARGETS.values())} && git add -A && git commit -qm results")
    return clone


@pytest.fixture
def work(built, tmp_path) -> Clone:
    return copy(built, tmp_path / "work")


def restore(clone: Clone, remote: Remote, target: Path) -> Clone:
    """A fresh clone that knows the remote and has pulled nothing yet."""
    fresh = Clone(target, clone.environment)
    fresh.path.mkdir(parents=True)
    fresh.run(f"git clone -q {clone.path} .")
    remote.use(fresh)
    return fresh


def outputs(clone: Clone) -> dict[str, bytes]:
    """The files of the recorded stages."""
    locked = yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"]
    return {out["path"]: (clone.path / out["path"]).read_bytes() for stage in locked.values() for out in stage["outs"]}


def enlarge(clone: Clone) -> None:
    """Add what takes a while to push."""
    (clone.path / "big").mkdir()
    for number in range(COUNT):
        (clone.path / f"big/{number}").write_bytes(os.urandom(BIG))
    files = " ".join(f"big/{number}" for number in range(COUNT))
    clone.run(f"dvc add -q {files} && git add -fA big/*.dvc && git commit -qm big")


def spoil(remote: Remote, clone: Clone, path: str) -> str:
    """Flip a bit of an output's object in a remote; the object's name."""
    locked = yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"]
    (md5,) = {out["md5"] for stage in locked.values() for out in stage["outs"] if out["path"] == path}
    return spoil_object(remote, md5)


def spoil_object(remote: Remote, md5: str) -> str:
    name = f"{md5[:2]}/{md5[2:]}"
    if not remote.folder:
        import boto3

        storage = boto3.resource("s3", endpoint_url=remote.settings["endpointurl"], region_name="us-east-1",
                                 aws_access_key_id="any", aws_secret_access_key="any")  # fmt: skip
        bucket, folder = remote.url.removeprefix("s3://").split("/")
        stored = storage.Object(bucket, f"{folder}/files/md5/{name}")
        stored.put(Body=flipped(stored.get()["Body"].read()))
        return name
    (file,) = (found for found in remote.folder.rglob(md5[2:]) if found.parent.name == md5[:2])
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(flipped(file.read_bytes()))
    file.chmod(mode)  # DVC looks again at a local object that can be written
    return name


def flipped(content: bytes) -> bytes:
    return content[:5] + bytes([content[5] ^ 1]) + content[6:]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pushed_comes_back_byte_for_byte(kind, work, tmp_path):
    with kind(tmp_path / "remote") as remote:
        remote.use(work)
        work.run("dvc push")
        assert "in sync" in work.run("dvc status --cloud")
        assert "as dvc.lock says" in work.run("python workflow/remote.py check --read")
        fresh = restore(work, remote, tmp_path / "fresh")
        fresh.run(f"dvc pull {' '.join(TARGETS)}")
        assert outputs(fresh) == outputs(work)
        assert fresh.plans(" ".join(TARGETS.values())) == set()


def test_over_http_what_was_pushed_to_a_folder_can_be_read_and_a_corrupt_object_is_named(work, tmp_path):
    with local(tmp_path / "remote") as folder:
        folder.use(work)
        work.run("dvc push")
    with serving("http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path / "remote"), "PORT") as address:
        fresh = restore(work, Remote(f"http://{address}"), tmp_path / "fresh")
        fresh.run(f"dvc pull {' '.join(TARGETS)}")
        assert "as dvc.lock says" in fresh.run("python workflow/remote.py check --read")
        assert outputs(fresh) == outputs(work)
        nobody = restore(work, Remote(f"http://127.0.0.1:{free_port()}"), tmp_path / "nobody")
        said = nobody.run("python workflow/remote.py check", code=1)
        assert "the remote cannot be read: " in said and "is missing" not in said and "Traceback" not in said
        broken = TARGETS["draw_fig1-toy"]
        name = spoil(folder, work, broken)
        other = restore(work, Remote(f"http://{address}"), tmp_path / "other")
        assert f"Checkout failed for following targets:\n{broken}\n" in other.run("dvc pull draw_fig1-toy", code=1)
        assert f"{name} has content " in other.run("python workflow/remote.py check --read", code=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_push_repeated_loses_nothing(kind, work, tmp_path):
    enlarge(work)
    with kind(tmp_path / "remote") as remote:
        remote.use(work)
        push = subprocess.Popen(
            ["dvc", "push", "--jobs", "2"], cwd=work.path, env=work.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while remote.arrived() < 3:
            assert push.poll() is None, "the push was done before it could be killed"
            time.sleep(0.01)
        os.killpg(push.pid, signal.SIGKILL)
        push.wait()
        assert remote.arrived() < COUNT
        found = work.run("python workflow/remote.py check --remove", code=1)
        assert kind is webdav or " bytes" not in found  # only there an object may be left by half
        work.run("dvc push")
        assert "in sync" in work.run("dvc status --cloud")
        work.run("python workflow/remote.py check --read")
        fresh = restore(work, remote, tmp_path / "fresh")
        fresh.run(f"dvc pull {' '.join(TARGETS)} {' '.join(f'big/{number}.dvc' for number in range(COUNT))}")
        assert outputs(fresh) == outputs(work)
        for number in range(COUNT):
            name = f"big/{number}"
            assert (fresh.path / name).read_bytes() == (work.path / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_object_is_named_and_can_be_sent_again(kind, work, tmp_path):
    broken = TARGETS["draw_fig1-toy"]
    with kind(tmp_path / "remote") as remote:
        remote.use(work)
        work.run("dvc push")
        name = spoil(remote, work, broken)
        fresh = restore(work, remote, tmp_path / "fresh")
        assert f"Checkout failed for following targets:\n{broken}\n" in fresh.run("dvc pull draw_fig1-toy", code=1)
        assert not (fresh.path / broken).exists()
        said = fresh.run("python workflow/remote.py check --read", code=1).splitlines()
        assert said[0].startswith(f"{broken}: its object ") and f"{name} has content " in said[0]
        assert "'python workflow/remote.py check --read --remove'" in said[1]
        work.run("python workflow/remote.py check --read --remove", code=1)
        work.run("dvc push")
        fresh.run("dvc pull draw_fig1-toy")
        assert (fresh.path / broken).read_bytes() == (work.path / broken).read_bytes()


def test_a_half_sent_object_is_found_by_its_size(work, tmp_path):
    with local(tmp_path / "remote") as remote:
        remote.use(work)
        work.run("dvc push")
        stored = max(remote.folder.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
        stored.chmod(0o644)
        os.truncate(stored, 10)
        stored.chmod(0o444)
        assert "has 10 bytes, and not " in work.run("python workflow/remote.py check", code=1)
        shutil.rmtree(remote.folder)
        said = work.run("python workflow/remote.py check", code=1)
        assert " is missing\n" in said and said.endswith("write 'dvc push' in a clone that has these files\n")


@pytest.mark.parametrize("kind", KINDS)
def test_whether_a_remote_takes_what_is_pushed_is_said_beforehand(kind, work, tmp_path):
    with kind(tmp_path / "remote") as remote:
        remote.use(work)
        work.run("python workflow/remote.py reach")
        assert "as dvc.lock says" not in work.run("python workflow/remote.py check", code=1), "nothing was sent"
        if kind is local:
            shutil.rmtree(remote.folder)
            remote.folder.write_text("in the way")
    for verb, words in (("reach", "cannot be written: "), ("check", "")):
        said = work.run(f"python workflow/remote.py {verb}", code=1)
        assert words in said and "Traceback" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_one_content_share_an_object_and_a_folders_object_is_a_list(kind, work, tmp_path):
    (work.path / "folder").mkdir()
    for name in ("one", "two", "folder/three", "folder/four"):
        (work.path / name).write_text("the same in each" if "/" not in name else name)
    work.run("dvc add -q one two folder")
    with kind(tmp_path / "remote") as remote:
        remote.use(work)
        work.run("dvc push")
        assert "as dvc.lock says" in work.run("python workflow/remote.py check --read")
        shared = yaml.safe_load((work.path / "one.dvc").read_text())["outs"][0]
        spoil_object(remote, shared["md5"])
        said = work.run("python workflow/remote.py check --read --remove", code=1)
        assert said.count("has content ") == 2 and "Traceback" not in said and "cannot be read" not in said
        work.run("dvc push")
        work.run("python workflow/remote.py check --read")
