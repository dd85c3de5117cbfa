"""`ddgm verify`: whatever was changed behind the records' back is named, and nothing else."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import DUMPER, ROOT
from ddgm import cli, record
from ddgm.datasets.writing import write
from ddgm.parameters import LOADER
from ddgm.stages import recorded_stages, restored
from ddgm.training import train


def said(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def project(tmp_path, monkeypatch, parameters, planar_row):
    """A model on its data, a raw file as published (by a subset's checksum), and a lock file that knows all of it."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    row = {**parameters["experiments"]["toy_four_spin"], **planar_row, "dataset": "four_spin"}
    parameters["experiments"]["toy_four_spin"] = row
    content = b"\x1f\x8b some labels"
    file = "train-labels-idx1-ubyte.gz"
    parameters["datasets"]["mnist"]["subset"] = {
        "says": "subset: a few digits", "checksums": {file: f"md5:{hashlib.md5(content).hexdigest()}"}
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.dump(parameters, Dumper=DUMPER))
    (tmp_path / "data/raw/mnist").mkdir(parents=True)
    (tmp_path / "data/raw/mnist" / file).write_bytes(content)
    array = tmp_path / "data/prepared/four_spin/train.npy"
    array.parent.mkdir(parents=True)
    points = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    write({"kind": "four_spin"}, array, points)
    model = tmp_path / "results/toy/models/toy_four_spin"
    train("toy_four_spin", row, array, model, tmp_path / "results/toy/state/toy_four_spin")
    outs = [
        {"path": f"results/toy/models/toy_four_spin/{path.name}", "md5": hashlib.md5(path.read_bytes()).hexdigest()}
        for path in model.iterdir()
    ]
    array_md5 = hashlib.md5(array.read_bytes()).hexdigest()
    deps = [{"path": str(array.relative_to(tmp_path)), "md5": array_md5}]
    outs.append({"path": "results/toy/figures/not_here.png", "md5": "0" * 32})
    (tmp_path / "dvc.lock").write_text(
        yaml.safe_dump({"stages": {"train-toy": {"cmd": "x", "deps": deps, "outs": outs}}})
    )
    return tmp_path


def test_what_is_as_recorded_matches(project, capsys):
    assert cli.main(["verify"]) == 0
    (line,) = said(capsys)
    # The raw file, the array with its index and faults, the model's row and its data, the same data as the stage knew
    # them, and the six files of the model.
    away = "results/toy/figures/not_here.png"
    assert line == (
        f"13 comparisons, and all match; 1 recorded files are not here, the first {away}: "
        f"'dvc checkout --force {away}' restores it, after 'dvc fetch {away}' where it was made elsewhere"
    )


def test_where_nothing_was_made_nothing_is_said_to_match(project, capsys):
    for path in ("data", "results"):
        shutil.rmtree(project / path)
    (project / "dvc.lock").unlink()
    assert cli.main(["verify"]) == 0
    assert said(capsys) == ["nothing lies here that a record is of: 'make toy' makes something"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "data/raw/mnist/train-labels-idx1-ubyte.gz",
            "is not the train-labels-idx1-ubyte.gz that datasets.mnist.subset",
        ),
        (
            "data/prepared/four_spin/train.npy",
            "was trained on another data/prepared/four_spin/train.npy than lies here",
        ),
        (
            "results/toy/models/toy_four_spin/weights.safetensors",
            "'dvc checkout --force results/toy/models/toy_four_spin/weights",
        ),
        (
            "data/prepared/four_spin/train.csv",
            "is not what data/prepared/four_spin/train.json says: delete it, and make",
        ),
        ("results/toy/models/toy_four_spin/history.csv", "(stage train-toy)"),
    ],
)
def test_a_changed_byte_is_named_with_what_to_type(change, sentence, project, capsys):
    path = project / change
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cli.main(["verify"]) == 1
    *faults, total = said(capsys)
    assert any(sentence in fault for fault in faults)
    # Data are the stage's too, which would be run again.
    assert len(faults) == {"data/prepared/four_spin/train.npy": 3}.get(change, 1)
    assert len(faults) == 1 or any("'dvc repro train-toy' follows it" in fault for fault in faults)
    count = f"ddgm: {len(faults)} of 13 comparisons do not match; each is named above; 1 recorded files are not here"
    assert total.startswith(count)


def test_a_row_that_has_changed_since_is_named_with_its_key(project, capsys):
    params = yaml.load((project / "params.yaml").read_text(), LOADER)
    params["experiments"]["toy_four_spin"]["entropy"]["weight"] = 0.77
    (project / "params.yaml").write_text(yaml.dump(params, Dumper=DUMPER))
    assert cli.main(["verify"]) == 1
    assert "was trained with entropy.weight = 1.0, and params.yaml has 0.77: train it again" in said(capsys)[0]


def test_a_net_of_a_row_that_is_gone_is_named(project, capsys):
    shutil.copytree(project / "results/toy/models/toy_four_spin", project / "results/toy/models/gone")
    record.write(["ddgm", "train", "gone"], list(Path("results/toy/models/gone").iterdir()), Path("results"), 1.0)
    assert cli.main(["verify"]) == 1
    assert "results/toy/models/gone is of a row that params.yaml does not have: delete it" in said(capsys)[0]


def test_a_result_that_no_record_names_is_named(project, capsys):
    forged = project / "results/toy/samples/toy_four_spin.npz"
    forged.parent.mkdir(parents=True)
    forged.write_bytes(b"samples from elsewhere")
    assert cli.main(["verify"]) == 1
    assert said(capsys)[0] == (
        "results/toy/samples/toy_four_spin.npz is in no record, neither dvc.lock nor its job's: make it with "
        "'snakemake results/toy/samples/toy_four_spin.npz'"
    )


def test_without_a_lock_results_are_compared_with_the_records_of_their_jobs(project, capsys):
    (project / "dvc.lock").unlink()
    model = Path("results/toy/models/toy_four_spin")
    record.write(["ddgm", "train", "toy_four_spin"], list(model.iterdir()), Path("results"), 1.0)
    assert cli.main(["verify"]) == 0
    assert said(capsys)[-1] == "12 comparisons, and all match"
    with (model / "weights.safetensors").open("ab") as file:
        file.write(b"!")
    assert cli.main(["verify"]) == 1
    assert said(capsys)[0] == (
        f"{model}/weights.safetensors is not what its job wrote: delete it and make it with "
        f"'snakemake {model}/weights.safetensors'"
    )


@pytest.mark.parametrize("file", ["experiment.json", "provenance.json"])
def test_a_net_whose_own_account_is_damaged_is_named_and_the_rest_goes_on(file, project, capsys):
    (project / "results/toy/models/toy_four_spin" / file).write_text("{")
    (project / "data/raw/mnist/train-labels-idx1-ubyte.gz").write_bytes(b"other")
    assert cli.main(["verify"]) == 1
    lines = said(capsys)
    # By its own account, by dvc.lock, and the raw file; then the sum.
    assert len(lines) == 4 and sum(f"toy_four_spin/{file}" in line for line in lines) == 2
    assert any("train-labels-idx1-ubyte.gz that datasets.mnist.subset" in line for line in lines)


def test_a_classifier_is_compared_with_its_row_and_its_data(project, capsys):
    params = yaml.load((project / "params.yaml").read_text(), LOADER)
    folder = project / "results/toy/classifiers/toy_digits"
    folder.mkdir(parents=True)
    array = project / "data/prepared/toy_digits/train.npy"
    array.parent.mkdir(parents=True)
    np.save(array, np.zeros(3))
    row = params["classifiers"]["toy_digits"]
    (folder / "classifier.json").write_text(json.dumps({"shape": [1, 28, 28], "row": row | {"epochs": 99}}))
    (folder / "provenance.json").write_text(json.dumps({"data_sha256": "0" * 64}))
    record.write(
        ["ddgm"], [Path("results/toy/classifiers/toy_digits") / f.name for f in folder.iterdir()], Path("results"), 1.0
    )
    assert cli.main(["verify"]) == 1
    row_fault, data_fault, _ = said(capsys)
    assert "classifiers/toy_digits was trained with epochs = 99, and params.yaml has" in row_fault
    assert "toy_digits was trained on another data/prepared/toy_digits/train.npy than lies here" in data_fault


def test_a_lock_without_stages_is_an_empty_one(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n")
    assert recorded_stages(tmp_path / "dvc.lock") == {}


def test_a_damaged_lock_is_one_sentence(project, capsys):
    (project / "dvc.lock").write_text("stages: [")
    assert cli.main(["verify"]) == 1
    assert said(capsys) == [f"ddgm: dvc.lock is damaged: {restored('dvc.lock')}"]


def test_provenance_names_all_that_a_result_depends_on(project):
    folder = project / "results/toy/models/toy_four_spin"
    about = json.loads((folder / "provenance.json").read_text())
    row = json.loads((folder / "experiment.json").read_text())["row"]
    assert (
        about["data_sha256"] == hashlib.sha256((project / "data/prepared/four_spin/train.npy").read_bytes()).hexdigest()
    )
    assert {"device", "threads", "processes", "data_source", "seconds", "deterministic"} <= set(about)
    assert {"ddgm", "torch", "numpy", "python", "safetensors"} <= set(about["versions"])
    assert row["seeds"] and "optimiser" in row
