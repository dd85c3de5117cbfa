"""The bridge between the engines where its files are damaged: one sentence, and every Snakemake call goes on."""

import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, imported
from ddgm.stages import restored

STAGE = "stages:\n  draw-x:\n    cmd: draw\n    outs:\n    - made.png\n    metrics:\n"


@pytest.fixture
def engines(tmp_path, monkeypatch):
    """workflow/engines.py in an empty folder with one stage, whose file is not there."""
    module = imported("workflow/engines.py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(STAGE)
    return module


@pytest.mark.parametrize("file", ["dvc.yaml", "dvc.lock"])
@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        ("", False),
        ("schema: '2.0'\n", False),
        ("stages:\n", False),
        ("- a list\n", True),
        ("stages: [1]\n", True),
        ("stages:\n  draw-x:\n", True),
        ("<<<<<<< HEAD\nstages: {}\n=======\n", True),
        ("stages: \udcff\n", True),
    ],
)
def test_an_empty_or_damaged_record_stops_no_run(file, content, damaged, engines, tmp_path, monkeypatch, capsys):
    """Of a damaged record one hears what restores it, at the start of a run; the pipeline is written again."""
    (tmp_path / file).write_text(content, errors="surrogateescape")
    called = []
    monkeypatch.setattr(engines, "bridged", lambda: True)
    monkeypatch.setattr(engines, "apart", called.append)
    monkeypatch.setattr(engines, "in_step", lambda: True)
    engines.before_run(True)
    engines.after_run()
    said = capsys.readouterr().err
    if damaged and file == "dvc.lock":
        wanted = f"Nothing is recorded for DVC: dvc.lock is damaged: {restored('dvc.lock')}"
        assert said.splitlines() == [wanted] and called == []
    else:
        assert said == "" and called == ["adopt"] * damaged + ["sync"]


def test_a_users_own_dvc_add_is_no_stage_of_the_pipeline(engines, tmp_path):
    Repo = pytest.importorskip("dvc.repo").Repo
    (tmp_path / "dvc.yaml").write_text(STAGE.replace("    metrics:\n", ""))
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "notes.txt").write_text("mine")
    repo = Repo.init(no_scm=True)
    repo.add("notes.txt")
    assert (tmp_path / "notes.txt.dvc").exists()
    assert set(engines.Proof(repo).stages) == {"draw-x"}


def test_the_switch_is_on_or_off(engines, monkeypatch):
    monkeypatch.setenv("DDGM_BRIDGE", "of")
    with pytest.raises(SystemExit, match=r"^DDGM_BRIDGE is 'of': write on or off, or leave it unset$"):
        engines.before_run(True)
    monkeypatch.setenv("DDGM_BRIDGE", "off")
    assert not engines.bridged()


def test_the_pipeline_is_written_whole_or_not_at_all(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "pipeline", lambda flow: "half\ud800")  # which no file can hold
    with pytest.raises(UnicodeEncodeError):
        engines.write_pipeline(None)
    assert (tmp_path / "dvc.yaml").read_text() == STAGE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvc.yaml"]


def test_what_an_engine_refuses_is_one_sentence(tmp_path):
    (tmp_path / "workflow").mkdir()
    shutil.copy(ROOT / "workflow/engines.py", tmp_path / "workflow")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text("rule all:\n    input: 'absent'\n")
    done = subprocess.run(
        [sys.executable, "workflow/engines.py", "generate"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "absent" in done.stderr


def test_bridges_of_runs_that_end_together_take_turns(engines, tmp_path):
    """DVC has one lock, and refuses whoever comes second."""
    (tmp_path / "workflow").mkdir()
    shutil.copy(ROOT / "workflow/engines.py", tmp_path / "workflow")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text("rule all:\n    input: 'absent'\n")
    engines.TURN.parent.mkdir()
    command = [sys.executable, "workflow/engines.py", "generate"]
    with engines.TURN.open("w") as turn:
        assert engines.lock(turn.fileno(), engines.TURN.parent)
        second = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            assert second.stderr.readline() == "another bridge is at work here: waiting for it\n"
            assert second.poll() is None
        except AssertionError:
            second.kill()
            raise
    # Then it does its own, and says what is wrong with this Snakefile.
    assert "absent" in second.communicate(timeout=60)[1]


def test_what_restores_a_lock_works_in_a_merge_that_was_left(tmp_path):
    """A conflict is where a lock is damaged, and `git checkout dvc.lock` is refused there."""

    def git(*words):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    def commit(content):
        (tmp_path / "dvc.lock").write_text(content)
        git("add", "dvc.lock")
        assert git("commit", "-m", content).returncode == 0

    git("init", "-q", "-b", "main")
    commit("stages: {}\n")
    git("checkout", "-q", "-b", "other")
    commit("stages: {a: {}}\n")
    git("checkout", "-q", "main")
    commit("stages: {b: {}}\n")
    assert git("merge", "other").returncode != 0 and "<<<<<<<" in (tmp_path / "dvc.lock").read_text()
    command = re.search(r"'git (.*?)'", restored("dvc.lock"))[1]
    assert git(*command.split()).returncode == 0
    assert (tmp_path / "dvc.lock").read_text() == "stages: {b: {}}\n"
