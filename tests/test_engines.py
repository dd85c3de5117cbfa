"""Snakemake and DVC on the toy branch, each alone and one after the other, in a temporary clone.

The stand-in for `ddgm` writes small files that follow from its parameters and inputs, and notes what it made.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ddgm.figures import registry

PROJECT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="needs DVC: make setup"),
]

DRAWN_FROM = {
    name: (figure.each, [registry.FILES[kind][0] for kind in figure.drawn_from])
    for name, figure in registry.FIGURES.items()
}
STAND_IN = f"""#!{sys.executable} -IS
import argparse, hashlib, json, os, pathlib, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("words", nargs="+")
for option in ("params", "log", "branch", "threads", "workers"):
    parser.add_argument("--" + option)
args = parser.parse_args()
verb, *words = args.words
params, results = json.loads(args.params), f"results/{{args.branch}}"
name = words[-1] if words else ""
model = f"{{results}}/models/{{name}}/"
outputs = {{
    "fetch": ["data/raw/" + "/".join(words)],
    "prepare": ["data/prepared/" + "/".join(words) + end for end in (".npy", ".csv", "_faults.csv", ".json")],
    "describe": [f"{{results}}/data/{{name}}.csv"],
    "train": [model + end for end in ("weights.safetensors", "snapshots.safetensors", "history.csv", "progress.npz",
                                      "experiment.json", "provenance.json")],
    "reference": [f"{{results}}/references/{{name}}.npz"],
    "sample": [f"{{results}}/samples/{{name}}.npz"],
    "classify": [f"{{results}}/classifiers/{{name}}/" + end
                 for end in ("weights.safetensors", "classifier.json", "provenance.json", "accuracy.csv")],
    "evaluate": [f"{{results}}/metrics/{{name}}.csv"]
    + [f"{{results}}/{{kind}}/{{name}}.csv" for kind in ("interpolations", "crossings") if "digits" in name]
    + [f"{{results}}/evidence/{{name}}.npz"] * any(word in name for word in ("digits", "faces", "rooms")),
    "anneal": [f"{{results}}/likelihoods/{{name}}.csv"],
    "trace": [f"{{results}}/traces/{{name}}.csv"],
    "mix": [f"{{results}}/mixing/{{name}}.csv"],
    "search": [f"{{results}}/search/{{name}}.csv"],
    "rank": [f"{{results}}/searches/{{name}}.csv"],
    "judge": [f"{{results}}/metrics/claims.csv"],
    "tabulate": [f"{{results}}/metrics.csv", f"{{results}}/metrics.json"],
    "draw": [f"{{results}}/figures/{{'_'.join(words)}}.{{kind}}" for kind in ("png", "pdf")],
}}[verb]
shown = [key.split(".")[1] for key in params if key.endswith(".title")]
sets = [value for key, value in params.items() if key.startswith("experiments.") and key.endswith(".dataset")]
def place(about):
    return about["figure"] if about["figure"] in ("traces", "mixing") else "metrics"
claims = params.get(f"branches.{{args.branch}}.claims", {{}}).values()
tested = [f"{{results}}/{{place(about)}}/{{test['experiment']}}.csv" for about in claims for test in about["tests"]]
claim = params.get(f"branches.{{args.branch}}.claims.{{name}}", {{"figure": ""}})
prepared, arrays = f"data/prepared/{{name}}/train.npy", [f"data/prepared/{{one}}/train.npy" for one in sets]
def drawn(figure):
    if figure == "sheet":
        return [prepared]
    if figure == "claim":
        return [f"{{results}}/metrics/claims.csv"] + [f"{{results}}/{{place(claim)}}/{{one}}.csv" for one in shown]
    each, files = {DRAWN_FROM}[figure]
    known = {{one: params.get(f"experiments.{{one}}.dataset") for one in ([name] if each else shown)}}
    return [file.format(branch=args.branch, experiment=one, dataset=known[one]) for file in files for one in known]
inputs = {{
    "describe": [prepared],
    "train": arrays,
    "sample": [f"{{model}}weights.safetensors"],
    "classify": [prepared],
    "reference": [prepared],
    "evaluate": [f"{{model}}weights.safetensors"]
    + [f"{{results}}/samples/{{name}}.npz",
       f"{{results}}/classifiers/{{name}}/weights.safetensors"] * ("digits" in name),
    "anneal": [f"{{model}}weights.safetensors"],
    "trace": [f"{{model}}snapshots.safetensors"],
    "mix": [f"{{model}}weights.safetensors"],
    "search": arrays,
    "rank": [f"{{results}}/search/{{one}}.csv" for plan in params.values() if isinstance(plan, dict)
             for one in plan.get("experiments", [])],
    "judge": tested,
    "tabulate": [f"{{results}}/metrics/{{one}}.csv" for one in shown],
    "draw": drawn(words[0]) if verb == "draw" else [],
}}.get(verb, [])
with open(os.environ["MADE"], "a") as made:
    print(outputs[0], file=made)
if os.environ.get("FAIL") == outputs[0]:
    sys.exit("as the test wants it")
if os.environ.get("EDIT", "").startswith(verb + ":"):
    with open(os.environ["EDIT"].split(":")[1], "a") as source:
        print("# edited", file=source)
digest = hashlib.sha256(json.dumps([args.words, params]).encode())
for file in inputs:
    digest.update(pathlib.Path(file).read_bytes())
for number, file in enumerate(outputs):
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    if not number and os.environ.get("PAUSE", "").startswith(verb + ":"):
        # Half-written, until the test opens the gate, or kills.
        gate = pathlib.Path(os.environ["PAUSE"].split(":")[1])
        pathlib.Path(file).write_text("half of it")
        gate.with_suffix(".waiting").write_text(str(os.getpid()))
        while not gate.exists():
            time.sleep(0.05)
    if verb == "tabulate" and file.endswith(".json"):
        content = {{"all": {{"digest": int(digest.hexdigest()[:4], 16)}}}}
        pathlib.Path(file).write_text(json.dumps(content))
    elif file.endswith("/history.csv"):
        lines = ["seed,step,energy_data,energy_samples,entropy"]
        lines += [f"{{seed}},{{step}},{{-step}},{{seed - step}},1" for step in (50, 100) for seed in (0, 1)]
        pathlib.Path(file).write_text("\\n".join(lines) + f"\\n1,150,{{int(digest.hexdigest()[:4], 16)}},0,1\\n")
    else:
        pathlib.Path(file).write_text(f"step,value\\n0,{{digest.hexdigest()}}{{file}}\\n")
"""


# In place of workflow/report.py, which would look for numbers in the stand-in's tables.
REPORT = """import hashlib, os, pathlib, sys

folder = pathlib.Path("results", sys.argv[1])
with open(os.environ["MADE"], "a") as made:
    print(folder / "report.html", file=made)
read = sorted(file for kind in ("figures", "data", "likelihoods", "metrics") for file in folder.glob(f"{kind}/*"))
(folder / "report.html").write_text(hashlib.sha256(b"".join(file.read_bytes() for file in read)).hexdigest())
"""


@dataclass
class Clone:
    """A working copy of the project, and the two engines in it."""

    path: Path
    environment: dict[str, str]

    def run(self, command: str, *, code: int = 0, **environment: str) -> str:
        """What a command says on both its channels; an assertion on its exit code."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.path,
            env=self.environment | {"MADE": str(self.made)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{command} exited with {done.returncode}:\n{done.stdout[-3000:]}"
        return done.stdout

    @property
    def made(self) -> Path:
        return self.path.with_name(f"{self.path.name}.made")

    def stages(self) -> dict[str, dict]:
        return yaml.safe_load((self.path / "dvc.yaml").read_text())["stages"]

    def makes(self, command: str, *, code: int = 0, **environment: str) -> set[str]:
        """The stages whose jobs run under a command, each at most once."""
        self.made.write_text("")
        self.run(command, code=code, **environment)
        stage_of = {path: name for name, stage in self.stages().items() for path in files(stage)}
        names = [stage_of[path] for path in self.made.read_text().split()]
        assert len(names) == len(set(names)), f"made more than once: {names}"
        return set(names)

    def plans(self, target: str = "toy") -> set[str]:
        """The stages whose jobs Snakemake would run."""
        said = self.run(f"snakemake -n {target}")
        of = {stage["desc"]: name for name, stage in self.stages().items()}
        return {of[line.split(": ", 1)[1]] for line in said.splitlines() if line.startswith("Job ") and ": " in line}

    def changed(self, target: str = "toy") -> set[str]:
        """The stages that DVC finds changed."""
        return set(json.loads(self.run(f"dvc status --json --with-deps {target} 2>/dev/null")))

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.path / path).read_text()
        assert old in text
        (self.path / path).write_text(text.replace(old, new))


def files(stage: dict) -> list[str]:
    """The outputs of a stage."""
    listed = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in listed]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    (home / "bin/ddgm").write_text(STAND_IN)
    (home / "bin/ddgm").chmod(0o755)
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "DDGM_", "SNAKEMAKE_", "SLURM_"))
    }
    return inherited | {
        "PATH": f"{home / 'bin'}:{BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory, environment) -> Clone:
    """The project as it lies here, without results, as a git repository."""
    clone = Clone(tmp_path_factory.mktemp("source") / "project", environment)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).is_file() and not name.startswith("results/") and name != "dvc.lock":
            (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, clone.path / name)
    slim(clone.path / "params.yaml")
    (clone.path / "workflow/report.py").write_text(REPORT)
    clone.run("git init -q && python workflow/engines.py generate && git add -A && git commit -qm source")
    return clone


def slim(file: Path) -> None:
    """Take from the paper branch what it compares and claims: 150 jobs that no test here makes, judged at each run."""
    before, rest = file.read_text().split("    compared:", 1)
    kept = rest[rest.index("    sampling:") : rest.index("    recipes:")]
    less = (
        "    compared: []\n    traced: []\n    mixed: []\n    annealed: []\n"
        + kept
        + "    recipes: {}\n    claims: {}\n"
    )
    file.write_text(before + less + rest[rest.index("  toy:") :])


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Clone:
    """The toy branch made by Snakemake, committed and pushed."""
    clone = copy(source, tmp_path_factory.mktemp("built") / "project")
    assert len(clone.makes("snakemake --cores 2 toy")) == len(clone.run("cat $MADE").split()) > 30
    clone.run("git add -A && git commit -qm results && dvc push")
    return clone


@pytest.fixture
def work(built, tmp_path) -> Clone:
    """A copy of what Snakemake has built, with all its times."""
    return copy(built, tmp_path / "project")


@pytest.fixture(scope="module")
def fetched(built, tmp_path_factory) -> Clone:
    """A fresh clone after `dvc pull`, in which Snakemake has not run yet."""
    clone = Clone(tmp_path_factory.mktemp("fetched") / "project", built.environment)
    clone.path.mkdir()
    clone.run(f"git clone -q {built.path} . && dvc pull --with-deps toy")
    return clone


@pytest.fixture
def pulled(fetched, tmp_path) -> Clone:
    return copy(fetched, tmp_path / "project")


def copy(clone: Clone, target: Path) -> Clone:
    subprocess.run(["cp", "-a", clone.path, target], check=True)
    return Clone(target, clone.environment)


SHOWS_ALL = {"tabulate-toy", "draw_curves-toy", "report-toy"}


def chain(experiment: str, *rules: str) -> set[str]:
    """What follows from an experiment's parameters: these rules' jobs, and what shows all experiments."""
    return {f"{rule}-toy-{experiment}" for rule in ("train", "sample", *rules)} | SHOWS_ALL


DIGIT_FIGURES = [f"draw_{figure}" for figure in registry.showing("fig3")]
IMAGE_FIGURES = [f"draw_{figure}" for figure in registry.showing("fig4")]
DIGITS = chain("toy_digits", "evaluate_digits", "anneal", *DIGIT_FIGURES)
DRAWN = {f"{rule}-toy-toy_digits" for rule in DIGIT_FIGURES}


def change_steps(clone: Clone, experiment: str, old: str = "", new: str = "1") -> None:
    """Put a digit in front of an experiment's number of steps."""
    file = clone.path / "params.yaml"
    row = rf"(\n  {experiment}:\n(?:    .*\n)*?    schedule: {{kind: \w+, steps: ){old}"
    text, count = re.subn(row, rf"\g<1>{new}", file.read_text())
    assert count == 1
    file.write_text(text)


def change_digits(clone: Clone) -> None:
    change_steps(clone, "toy_digits")


def restore_digits(clone: Clone) -> None:
    change_steps(clone, "toy_digits", old="1", new="")


def edit_module(clone: Clone, name: str) -> None:
    with (clone.path / f"src/ddgm/figures/{name}.py").open("a") as source:
        source.write("# edited\n")


def test_after_snakemake_dvc_repeats_nothing(work):
    assert work.changed() == work.makes("dvc repro toy") == set()
    said = work.run("snakemake --cores 2 toy")
    assert "Nothing to be done" in said
    assert "dvc.lock" not in said
    assert work.run("git status --porcelain") == ""


def test_after_dvc_snakemake_repeats_nothing(source, tmp_path):
    clone = copy(source, tmp_path / "project")
    made = clone.makes("dvc repro prepare-toy_rooms-val")
    assert made == {"fetch-toy_rooms-bedroom_val_lmdb_zip", "prepare-toy_rooms-val"}
    assert clone.plans("data/prepared/toy_rooms/val.npy") == set()
    assert clone.run("git status --porcelain") == "?? dvc.lock\n"
    figure = clone.makes("dvc repro draw_fig2-toy")
    assert {"train-toy-toy_four_spin", "sample-toy-toy_two_spiral", "draw_fig2-toy"} <= figure
    assert clone.plans("results/toy/figures/fig2.png") == set()
    assert clone.makes("dvc repro draw_fig2-toy") == set()


def test_after_a_pull_snakemake_has_nothing_to_do(pulled):
    said = pulled.run("snakemake -n toy")
    assert "adopted" in said
    assert "Nothing to be done" in said
    assert "adopted" not in pulled.run("snakemake -n toy")
    assert pulled.changed() == set()


def test_after_a_pull_what_dvc_cannot_prove_is_made_again(pulled):
    change_digits(pulled)
    assert pulled.plans() == DIGITS
    restore_digits(pulled)
    assert pulled.plans() == set()
    change_digits(pulled)
    assert pulled.plans() == DIGITS


def test_a_pulled_figure_is_current_without_its_models(built, tmp_path):
    clone = Clone(tmp_path / "project", built.environment)
    clone.path.mkdir()
    clone.run(f"git clone -q {built.path} . && dvc pull draw_fig2-toy")
    assert not (clone.path / "data").exists()
    assert clone.plans("results/toy/figures/fig2.png") == set()


def test_an_edited_parameter_repeats_its_experiment_in_dvc_and_a_restored_one_nothing(work):
    change_digits(work)
    assert work.plans() == DIGITS
    assert work.makes("dvc repro toy") == DIGITS
    assert work.plans() == set()
    compared = json.loads(work.run("dvc metrics diff --json 2>/dev/null"))
    assert set(compared["results/toy/metrics.json"]) == {"all.digest"}
    restore_digits(work)
    assert work.makes("dvc repro toy") == set()
    assert work.plans() == set()


def test_a_deleted_figure_is_restored_or_drawn_alone(work):
    figure = work.path / "results/toy/figures/fig2.png"
    figure.unlink()
    assert work.makes("dvc repro draw_fig2-toy") == set()
    assert figure.exists()
    assert work.plans() == set()
    figure.unlink()
    assert work.makes("snakemake --cores 2 toy") == {"draw_fig2-toy", "report-toy"}
    assert work.changed() == set()


@pytest.mark.parametrize("way", ["changed", "deleted"])
@pytest.mark.parametrize("file", ["figures/fig2.png", "metrics/toy_four_spin.csv", "metrics.csv"])
def test_what_verify_says_brings_a_result_back(file, way, work):
    """Of what DVC's cache has, and of the tables that git has."""
    path = work.path / "results/toy" / file
    before = path.read_bytes()
    path.unlink()
    if way == "changed":
        path.write_bytes(before + b"more")
    ask = f"from pathlib import Path; from ddgm.verify import restores; print(restores(Path('results/toy/{file}')))"
    said = work.run(f'{BIN}/python -c "{ask}"')
    work.run(re.search("'(.*?)'", said)[1])
    assert path.read_bytes() == before


def test_an_edited_module_repeats_what_runs_it_and_what_imports_it(work):
    stages = {f"draw_{figure}-toy-toy_digits" for figure in ("fig3", "fig3_steps", "fig3_named")}
    stages |= {f"draw_fig4_lines-toy-{name}" for name in ("toy_faces", "toy_rooms")}
    edit_module(work, "fig3")
    assert work.changed() == stages
    assert work.plans() == stages | {"report-toy"}
    stages = {name for name in work.stages() if name.startswith("draw_") and name.split("-")[1] == "toy"}
    edit_module(work, "style")
    assert work.changed() == stages
    assert work.makes("snakemake --cores 2 toy") == stages | {"report-toy"}


def test_a_failed_run_records_what_is_finished_and_the_next_makes_the_rest(work):
    change_digits(work)
    change_steps(work, "toy_faces")
    failing = "results/toy/models/toy_digits/weights.safetensors"
    faces = chain("toy_faces", "evaluate_images", *IMAGE_FIGURES) - SHOWS_ALL
    made = work.makes("snakemake --cores 1 --keep-going toy", code=1, FAIL=failing)
    assert made == faces | {"train-toy-toy_digits"}
    assert not (work.path / failing).exists()
    assert work.changed() == DIGITS - DRAWN | {"toy"}
    assert work.makes("snakemake --cores 2 toy") == DIGITS
    assert work.changed() == set()


def test_a_result_whose_source_was_edited_while_it_ran_is_made_again(work):
    change_digits(work)
    weights = "results/toy/models/toy_digits/weights.safetensors"
    work.makes(f"snakemake --cores 2 {weights}", EDIT="train:src/ddgm/training.py")
    assert "train-toy-toy_digits" in work.plans(weights)
    work.run("dvc commit -f train-toy-toy_digits")
    assert work.plans(weights) == set()


def test_generate_changes_nothing_twice_and_check_sees_an_edited_rule(source, tmp_path):
    clone = copy(source, tmp_path / "project")
    clone.run("python workflow/engines.py check")
    before = clone.stages()
    assert clone.run("python workflow/engines.py generate") == ""
    clone.edit("workflow/rules/evaluate.smk", '"ddgm judge ', '"ddgm  judge ')
    said = clone.run("python workflow/engines.py check", code=1)
    assert said.splitlines() == ["dvc.yaml is not what the rules give: write 'python workflow/engines.py generate'"]
    assert "dvc.yaml: written again" in clone.run("snakemake -n toy")
    after = clone.stages()
    assert {name for name in after if after[name] != before[name]} == {"judge-paper", "judge-toy"}


def test_without_dvc_snakemake_works_alone(source, tmp_path):
    clone = copy(source, tmp_path / "project")
    said = clone.run("rm -r .dvc && snakemake --cores 2 data/prepared/four_spin/train.npy")
    assert "1 of 1 steps (100%) done" in said
    assert "dvc.lock" not in said


def test_the_bridge_can_be_switched_off_and_made_good_for(source, tmp_path):
    clone, array = copy(source, tmp_path / "project"), "data/prepared/four_spin/train.npy"
    assert "dvc.lock" not in clone.run(f"snakemake --cores 2 {array}", DDGM_BRIDGE="off")
    assert not (clone.path / "dvc.lock").exists()
    assert "'python workflow/engines.py sync'" in clone.run(f"snakemake -n {array}")
    assert "results recorded: 1" in clone.run("python workflow/engines.py sync")
    assert clone.changed("prepare-four_spin-train") == set()
