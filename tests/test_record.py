"""The record that each job leaves beside its results, and what is said of a tree with changes."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT
from ddgm import cli, provenance, record
from ddgm.metrics import table

TABLE = Path("results/toy/metrics.csv")


@pytest.fixture
def project(tmp_path, monkeypatch, parameters):
    """A folder in which the toy branch's metrics can be gathered into one table."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parents[1] / "params.yaml", tmp_path)
    for name in ("toy_four_spin", "toy_two_spiral", "toy_digits", "toy_faces", "toy_rooms", "toy_two_spiral_gan"):
        table = tmp_path / f"results/toy/metrics/{name}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([(name, 0, "m", "", 1.0)], columns=["experiment", "seed", "metric", "at", "value"]).to_csv(
            table, index=False
        )
    return tmp_path


def records(project: Path) -> list[Path]:
    return sorted(project.glob("results/*/provenance/**/*.json"))


def test_a_job_records_its_command_code_libraries_device_time_and_the_files_it_wrote(project):
    assert cli.main(["tabulate", "--branch", "toy", "--params", "params.yaml", "--log", "logs/t.log"]) == 0
    (file,) = records(project)
    assert file == project / "results/toy/provenance/metrics.csv.json"
    about = json.loads(file.read_text())
    assert about["command"] == "ddgm tabulate --branch toy"
    assert about["files"] == {
        path: provenance.checksum(Path(path), "md5") for path in ("results/toy/metrics.csv", "results/toy/metrics.json")
    }
    assert about["versions"] == provenance.versions() and {"torch", "python"} < set(about["versions"])
    assert about["device"] == f"cpu: {provenance.device_name()}"
    assert 0 <= about["seconds"] < 60 and about["finished"].endswith("+00:00")


def test_a_job_records_the_code_that_it_started_with_whatever_is_committed_meanwhile(project, new_process, monkeypatch):
    def tabulate_and_commit(*arguments):
        monkeypatch.setattr(provenance, "version_in_tree", lambda: "two")
        tabulate(*arguments)

    tabulate = table.tabulate
    monkeypatch.setattr(table, "tabulate", tabulate_and_commit)
    new_process("one")
    assert cli.main(["tabulate", "--branch", "toy"]) == 0
    assert json.loads(records(project)[0].read_text())["versions"]["ddgm"] == "one"


def test_every_library_that_results_depend_on_is_one_that_the_package_asks_for_and_is_recorded():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(provenance.LIBRARIES) <= {re.match(r"[\w-]+", line)[0] for line in asked}
    assert list(provenance.versions()) == ["ddgm", *provenance.LIBRARIES, "python"]


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    def version(name):
        if name == "simplejpeg":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert set(provenance.LIBRARIES) - set(provenance.versions()) == {"simplejpeg"}


def test_versions_are_asked_for_without_importing_what_they_are_of():
    names = ("torch", "matplotlib", "PIL", "simplejpeg", "sklearn", "ot", "pytorch_fid", "torch_fidelity")
    code = f"import sys; from ddgm.provenance import versions; versions(); print(*set(sys.modules) & set({names}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_record_is_found_by_the_version_of_the_file_that_it_is_of(project):
    assert cli.main(["tabulate", "--branch", "toy"]) == 0
    md5 = provenance.checksum(TABLE, "md5")
    assert record.of_file(TABLE, md5, Path("results"))["command"] == "ddgm tabulate --branch toy"
    assert record.of_file(TABLE, "0" * 32, Path("results")) is None
    assert record.of_file(Path("results/toy/other.csv"), md5, Path("results")) is None


def test_a_job_that_fails_or_writes_no_result_leaves_no_record(project):
    (project / "results/toy/metrics/toy_digits.csv").unlink()
    assert cli.main(["tabulate", "--branch", "toy"]) == 1
    assert cli.main(["verify"]) == 1
    assert records(project) == []


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", '{"files": 1}'])
def test_what_is_no_record_is_passed_over(project, content):
    assert cli.main(["tabulate", "--branch", "toy"]) == 0
    (project / "results/toy/provenance/broken.json").write_text(content)
    assert [file.name for file, _ in record.read(Path("results"))] == ["metrics.csv.json"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["ddgm", "train", "x", "--params", "{}", "--threads", "2", "--log", "l"], "ddgm train x --threads 2"),
        (["ddgm", "train", "x", "--params={}", "--log=l", "--restart"], "ddgm train x --restart"),
    ],
)
def test_the_command_is_kept_without_its_parameters_and_its_log(words, kept):
    assert " ".join(record.asked(words)) == kept


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        ("src/ddgm/energy.py", True),
        ("src/ddgm/a_module_that_git_does_not_know.py", True),
        ("params.yaml", True),
        ("README.md", False),
        ("results/toy/metrics.csv", False),
    ],
)
def test_a_tree_is_dirty_where_what_makes_results_is_not_as_committed(tmp_path, monkeypatch, change, dirty):
    def git(*words: str) -> None:
        mine = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        mine |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words]
        subprocess.run(command, cwd=tmp_path, check=True, env=mine)

    for file in ("src/ddgm/energy.py", "params.yaml", "README.md", "workflow/x.smk"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("as it was\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "a start")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert not provenance.version_in_tree().endswith("-dirty")
    (tmp_path / change).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / change).write_text("changed\n")
    assert provenance.version_in_tree().endswith("-dirty") == dirty


def test_an_empty_table_is_one_sentence_that_says_how_to_make_it_again(project, capsys):
    table = project / "results/toy/metrics/toy_digits.csv"
    for content, says in (("", "cannot be read as a csv file"), ("experiment,seed,metric\n", "has no column 'value'")):
        table.write_text(content)
        assert cli.main(["tabulate", "--branch", "toy"]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line and line.endswith("'snakemake results/toy/metrics/toy_digits.csv'")
    assert not TABLE.exists()
