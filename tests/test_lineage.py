"""`ddgm provenance FILE`: the job, code, parameters and inputs that dvc.lock recorded, and the nets behind a result."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from ddgm import cli, provenance, record

MODEL, CLASSIFIER = "results/toy/models/toy_digits", "results/toy/classifiers/toy_digits"
SAMPLES, TABLE, FIGURE = "results/toy/samples/a.npz", "results/toy/metrics/a.csv", "results/toy/figures/fig3.png"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A figure of samples of a trained net, and metrics by a classifier, with a lock file that knows all of it."""
    monkeypatch.chdir(tmp_path)

    def file(path: str, content: str) -> str:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
        return path

    def stage(deps: list[str], outs: list[str], **params: object) -> dict:
        entries = [
            [{"path": path, "md5": hashlib.md5(Path(path).read_bytes()).hexdigest()} for path in paths]
            for paths in (deps, outs)
        ]
        return {"cmd": "x", "deps": entries[0], "outs": entries[1], "params": {"params.yaml": params}}

    about = {
        "versions": {"ddgm": "0.1.0+abc-dirty", "torch": "2"}, "device": "cuda: a card", "data_source": "subset: a few",
        "data_sha256": "f" * 64, "seconds": 60.0,
    }  # fmt: skip
    data, code = file("data/prepared/toy_digits/train.npy", "data"), file("src/ddgm/figures/fig3.py", "code")
    model = [file(f"{MODEL}/provenance.json", json.dumps(about))]
    model.append(file(f"{MODEL}/experiment.json", json.dumps({"name": "toy_digits", "row": {"seeds": [3, 4]}})))
    judge = [file(f"{CLASSIFIER}/provenance.json", json.dumps(about | {"device": "cpu: a processor"}))]
    judge.append(file(f"{CLASSIFIER}/classifier.json", json.dumps({"seeds": [7]})))
    file(SAMPLES, "samples"), file(TABLE, "metrics"), file(FIGURE, "figure")
    stages = {
        "train-toy-toy_digits": stage([data], model),
        "classify-toy-toy_digits": stage([data], judge),
        "sample-toy-toy_digits": stage(model, [SAMPLES]),
        "evaluate-toy-toy_digits": stage([*model, *judge, SAMPLES], [TABLE]),
        "draw_fig3-toy": stage([SAMPLES, code], [FIGURE], **{"branches.toy.fig3": ["toy_digits"]}),
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text())
    return tmp_path


def test_a_figure_names_its_job_code_parameters_inputs_and_the_net_behind_it(project, capsys):
    assert cli.main(["provenance", FIGURE]) == 0
    made, ran, read, code, parameter, net, more = capsys.readouterr().out.splitlines()
    assert made == f"{FIGURE}: made by draw_fig3-toy, md5 {hashlib.md5(b'figure').hexdigest()}"
    assert read == f"  input {SAMPLES}, md5 {hashlib.md5(b'samples').hexdigest()}"
    assert code == f"  code  src/ddgm/figures/fig3.py, md5 {hashlib.md5(b'code').hexdigest()}"
    assert parameter == '  parameter branches.toy.fig3: ["toy_digits"]'
    assert net == (
        "  net models/toy_digits: seeds 3, 4; ddgm 0.1.0+abc-dirty, torch 2; cuda: a card; "
        f"data subset: a few, sha256 {'f' * 64}; 60.0 s"
    )
    assert ran == "  no record here of when and on what its job ran"
    assert more == f"      its parameters: 'ddgm provenance {MODEL}/weights.safetensors'"


def test_a_net_that_was_begun_with_other_code_says_so(project, capsys):
    file = project / MODEL / "provenance.json"
    for earlier, said in (([], ""), (["0.1.0+a", "0.1.0+b"], "begun with ddgm 0.1.0+a, 0.1.0+b; ")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"earlier_code": earlier}))
        assert cli.main(["provenance", FIGURE]) == 0
        assert f"ddgm 0.1.0+abc-dirty, torch 2; {said}cuda: a card;" in capsys.readouterr().out


def test_the_data_behind_a_result_are_named_with_their_source(project, capsys):
    """A reference has no net behind it: what it says of a subset it says here."""
    prepared, lock = Path("data/prepared/faces"), Path("dvc.lock")
    prepared.mkdir(parents=True)
    (prepared / "train.json").write_text(json.dumps({"source": "subset: a few"}))
    stages = yaml.safe_load(lock.read_text())["stages"]
    array, sheet = ({"path": f"{prepared}/train.{kind}", "md5": kind * 4} for kind in ("npy", "json"))
    stages["prepare-faces"] = {"cmd": "x", "outs": [array, sheet]}
    reference = "results/toy/references/faces.npz"
    stages["reference"] = {"cmd": "x", "deps": [array], "outs": [{"path": reference, "md5": "r"}]}
    lock.write_text(yaml.safe_dump({"stages": stages}))
    for file in (reference, f"{prepared}/train.npy"):
        assert cli.main(["provenance", file]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "  data faces, split train: subset: a few, md5 npynpynpynpy"


def test_how_the_data_of_a_net_were_held_is_said(project, capsys):
    file = project / MODEL / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data_held": "streamed"}))
    assert cli.main(["provenance", FIGURE]) == 0
    assert f"sha256 {'f' * 64}, streamed; 60.0 s" in capsys.readouterr().out


def test_a_figure_names_when_its_own_job_ran_with_which_code_and_libraries_and_on_what(project, capsys):
    record.write(["ddgm", "draw", "fig3", "--branch", "toy"], [Path(FIGURE)], Path("results"), 2.5)
    assert cli.main(["provenance", FIGURE]) == 0
    ran = capsys.readouterr().out.splitlines()[1]
    assert ran.startswith("  'ddgm draw fig3 --branch toy' in 2.5 s, finished 20")
    versions = ", ".join(f"{library} {version}" for library, version in provenance.versions().items())
    assert ran.endswith(f"; {versions}; cpu: {provenance.device_name()}")


def test_a_table_names_the_classifier_that_judged_too(project, capsys):
    assert cli.main(["provenance", TABLE]) == 0
    nets = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  net")]
    assert nets == ["  net classifiers/toy_digits", "  net models/toy_digits"]


@pytest.mark.parametrize(
    ("path", "line"), [(FIGURE, FIGURE), ("src/ddgm/figures/fig3.py", "  code  src"), (SAMPLES, "  input")]
)
def test_what_has_changed_since_is_said_where_it_stands(path, line, project, capsys):
    (project / path).write_text("edited")
    assert cli.main(["provenance", FIGURE]) == 0
    changed = [said for said in capsys.readouterr().out.splitlines() if said.endswith("and another one lies here now")]
    assert len(changed) == 1 and changed[0].startswith(line)


def test_what_is_not_here_is_said_and_how_to_fetch_it(project, capsys):
    for path in (SAMPLES, f"{MODEL}/provenance.json"):
        (project / path).unlink()
    assert cli.main(["provenance", FIGURE]) == 0
    said = capsys.readouterr().out
    advice = f"'dvc pull {MODEL}/provenance.json {MODEL}/experiment.json' fetches it"
    assert ", not here" in said and advice in said


@pytest.mark.parametrize(
    ("harm", "words"), [(Path.unlink, "is not here"), (lambda path: path.write_text("{"), "is dama")]
)
def test_a_net_without_its_settings_is_said_too(harm, words, project, capsys):
    harm(project / MODEL / "experiment.json")
    assert cli.main(["provenance", FIGURE]) == 0
    assert f"its record {words}" in capsys.readouterr().out


def test_a_file_that_no_job_makes_is_refused_in_a_sentence(project, capsys):
    assert cli.main(["provenance", "README.md"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("README.md is made by no job: write a file in results/ or data/, as dvc.yaml names them")


def test_a_file_that_no_job_has_made_is_refused_in_a_sentence(project, capsys):
    assert cli.main(["provenance", "results/toy/figures/fig9.png"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "fig9.png is no result that dvc.lock has recorded: make it with 'snakemake" in line
