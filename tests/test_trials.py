"""The two engines where something goes wrong, or something is tried: on one small figure, in temporary clones.

The stand-in for `ddgm` is that of test_engines.py; only the kill -9 trains for real.
"""

import json
import os
import signal
import subprocess
from contextlib import contextmanager

import pytest
import yaml

import test_engines as engines
from conftest import wait_for
from ddgm.pair import COLUMNS
from test_engines import BIN, Clone, change_steps, copy

pytestmark = engines.pytestmark
environment, source = engines.environment, engines.source

FIGURE, STAGE = "results/toy/figures/fig2.png", "draw_fig2-toy"
FOUR_SPIN = {"train-toy-toy_four_spin", "sample-toy-toy_four_spin", STAGE}
MODELS = {f"{rule}-toy-toy_{name}" for rule in ("train", "sample") for name in ("four_spin", "two_spiral")}
RECORDED = {"prepare-four_spin-train", "prepare-two_spiral-train", *MODELS, STAGE}
SNAKEMAKE, REPRO = f"snakemake --cores 1 {FIGURE}", f"dvc repro {STAGE}"


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Clone:
    """Figure 2 of the toy branch made by Snakemake, committed and pushed."""
    clone = copy(source, tmp_path_factory.mktemp("built") / "project")
    assert clone.makes(f"snakemake --cores 2 {FIGURE}") == RECORDED
    clone.run("git add -A && git commit -qm results && dvc push")
    return clone


@pytest.fixture
def work(built, tmp_path) -> Clone:
    return copy(built, tmp_path / "project")


def steps(clone: Clone) -> int:
    parameters = yaml.safe_load((clone.path / "params.yaml").read_text())
    return parameters["experiments"]["toy_four_spin"]["schedule"]["steps"]


@contextmanager
def started(clone: Clone, command: str, **environment: str):
    """A command that runs beside the test, in a process group of its own as in a terminal."""
    with (clone.path.parent / "said").open("w") as said:
        process = subprocess.Popen(
            command.split(), cwd=clone.path, stdout=said, stderr=said, start_new_session=True,
            env=clone.environment | {"MADE": str(clone.made)} | environment,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def paused_training(clone: Clone, command: str):
    """A run in the middle of a training, and the gate that lets it go on."""
    gate = clone.path.parent / "gate"
    with started(clone, command, PAUSE=f"train:{gate}") as process:
        wait_for(gate.with_suffix(".waiting").exists)
        yield process, gate


def test_where_an_edited_module_gives_the_same_bytes_dvc_stops(work):
    with (work.path / "src/ddgm/sampling.py").open("a") as module:
        module.write("# edited\n")
    sampled = {name for name in MODELS if name.startswith("sample")}
    assert work.makes(REPRO) == sampled
    assert work.plans(FIGURE) == set()


def test_a_pulled_figure_is_redrawn_without_its_models(built, tmp_path):
    clone = Clone(tmp_path / "project", built.environment)
    clone.path.mkdir()
    clone.run(f"git clone -q {built.path} . && dvc pull {STAGE}")
    engines.edit_module(clone, "fig2")
    assert clone.makes(f"dvc repro --pull --allow-missing {STAGE}") == {STAGE}
    assert (clone.path / FIGURE).exists() and not (clone.path / "results/toy/models").exists()


def test_an_experiment_of_dvc_runs_what_depends_on_its_number_and_leaves_the_workspace_alone(work):
    number = "experiments.toy_four_spin.schedule.steps"
    assert steps(work) == 3000
    assert work.makes(f"dvc exp run --temp --name first --set-param {number}=3100 {STAGE}") == FOUR_SPIN
    assert steps(work) == 3000 and work.plans(FIGURE) == set()
    for name, value in (("second", 3200), ("third", 3300)):
        work.run(f"dvc exp run --queue --name {name} --set-param {number}={value} {STAGE}")
    work.made.write_text("")
    work.run("dvc exp run --run-all --jobs 2")
    trained = "results/toy/models/toy_four_spin/weights.safetensors"
    assert work.made.read_text().split().count(trained) == 2
    shown = {name: row for row in json.loads(work.run("dvc exp show --json 2>/dev/null")) for name in names(row)}
    assert set(shown) == {"first", "second", "third"}
    # It reaches for stages that were never made, the paper's, and says so when the rest is applied.
    assert "missing-files" in work.run("dvc exp apply second", code=255)
    assert steps(work) == 3200
    assert work.plans(FIGURE) == set()
    assert work.makes(REPRO) == set()


def test_dvc_tells_which_numbers_and_metrics_changed_since_a_commit(work):
    def says(command: str) -> dict:
        return json.loads(work.run(f"{command} --json 2>/dev/null"))

    measured = work.path / "results/toy/metrics.json"
    measured.write_text(json.dumps({"toy_four_spin": {"kl_data_model": 0.5, "modes": 4}}))
    work.run("git add results && git commit -qm measured")
    assert says("dvc params diff") == {}
    shown = says("dvc metrics show results/toy/metrics.json")[""]["data"]["results/toy/metrics.json"]
    assert shown == {"data": {"toy_four_spin": {"kl_data_model": 0.5, "modes": 4}}}
    change_steps(work, "toy_four_spin")
    measured.write_text(json.dumps({"toy_four_spin": {"kl_data_model": 0.75, "modes": 4}}))
    number = "experiments.toy_four_spin.schedule.steps"
    assert says("dvc params diff") == {"params.yaml": {number: {"old": 3000, "new": 13000, "diff": 10000}}}
    changed = {"results/toy/metrics.json": {"toy_four_spin.kl_data_model": {"old": 0.5, "new": 0.75, "diff": 0.25}}}
    assert says("dvc metrics diff") == changed


def test_dvc_plots_the_curves_of_a_training_a_line_a_seed(work):
    said = work.run("dvc plots show toy-toy_four_spin-energies --show-vega 2>/dev/null")
    plot = json.loads(said)
    assert plot["encoding"]["detail"]["field"] == "seed"
    drawn = {(line["field"], line["seed"]) for line in plot["data"]["values"]}
    assert drawn == {(column, seed) for column in ("energy_data", "energy_samples") for seed in "01"}
    plots = yaml.safe_load((work.path / "dvc.yaml").read_text())["plots"]
    columns = [
        column for plot in plots for about in plot.values() for listed in about["y"].values() for column in listed
    ]
    assert set(columns) == set(COLUMNS)


def names(commit: dict) -> list[str]:
    """The names of the experiments that start from a commit."""
    return [experiment["name"] for experiment in commit["experiments"] or []]


def test_an_added_model_is_one_for_dvc_too_and_check_says_if_it_is_not(work):
    text = (work.path / "params.yaml").read_text()
    start, end = (text.index(f"  toy_{name}:\n    title") for name in ("four_spin", "two_spiral"))
    row = text[start:end].replace("toy_four_spin", "toy_more")
    text = text[:start] + row + text[start:]
    text = text.replace(
        "    fig2: [toy_four_spin, toy_two_spiral]", "    fig2: [toy_four_spin, toy_two_spiral, toy_more]"
    )
    (work.path / "params.yaml").write_text(text)
    said = work.run("python workflow/engines.py check", code=1)
    assert said.splitlines() == ["dvc.yaml is not what the rules give: write 'python workflow/engines.py generate'"]
    added = {"train-toy-toy_more", "sample-toy-toy_more", STAGE}
    assert work.plans(FIGURE) == added
    work.run("python workflow/engines.py check")
    assert work.makes(SNAKEMAKE) == added
    assert work.makes(REPRO) == set()


@pytest.mark.parametrize("command", [SNAKEMAKE, REPRO])
def test_after_ctrl_c_nothing_half_made_counts(command, work):
    change_steps(work, "toy_four_spin")
    locked = (work.path / "dvc.lock").read_text()
    with paused_training(work, command) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) != 0
    assert (work.path / "dvc.lock").read_text() == locked
    assert work.plans(FIGURE) == FOUR_SPIN
    assert work.makes(command) == FOUR_SPIN
    assert work.plans(FIGURE) == set() and work.makes(REPRO) == set()


@pytest.mark.parametrize(
    ("command", "says", "beside"),
    [
        (SNAKEMAKE, "LockException", "snakemake --cores 1 results/toy/figures/fig1.png"),
        (REPRO, "is busy", "dvc repro draw_fig1-toy"),
    ],
)
def test_a_second_run_of_the_same_targets_is_refused_and_one_of_others_is_not(command, says, beside, work):
    change_steps(work, "toy_four_spin")
    with paused_training(work, command) as (process, gate):
        refused = subprocess.run(
            command, shell=True, cwd=work.path, env=work.environment | {"MADE": str(work.made)}, capture_output=True
        )
        assert refused.returncode != 0
        assert says in (refused.stdout + refused.stderr).decode()
        assert "fig1" in work.run(f"{beside} && ls results/toy/figures")
        gate.touch()
        assert process.wait(120) == 0
    assert work.plans(FIGURE) == set() and work.changed("draw_fig1-toy") == work.changed(STAGE) == set()


def test_after_kill_9_the_living_training_is_not_joined_by_a_second(source, tmp_path):
    clone = copy(source, tmp_path / "project")
    real = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(clone.path / "src"), "OMP_NUM_THREADS": "1"}
    clone.environment = clone.environment | real
    change_steps(clone, "toy_four_spin", old="3000", new="60")
    model = "results/toy/models/toy_four_spin/weights.safetensors"
    command = f"snakemake --cores 1 {model}"
    lock = clone.path / "results/toy/state/toy_four_spin.lock"
    with started(clone, command) as snakemake:
        wait_for(lambda: lock.exists() and lock.read_text().strip())
        trainer = int(lock.read_text().split(",")[0])
        try:
            os.kill(trainer, signal.SIGSTOP)  # so that it cannot be done before the second comes
            snakemake.kill()
            snakemake.wait()
            os.kill(trainer, 0)
            assert "LockException" in clone.run(command, code=1)
            clone.run(f"snakemake --unlock {model}")
            said = clone.run(command, code=1)
            advice = (
                f"process {trainer} is training toy_four_spin already: wait for it, or stop it with 'kill {trainer}'"
            )
            assert advice in said
        finally:
            os.kill(trainer, signal.SIGTERM)
            os.kill(trainer, signal.SIGCONT)
    wait_for(lambda: not alive(trainer))
    clone.run(command)
    assert (clone.path / model).exists()
    assert clone.plans(model) == set() and clone.changed("train-toy-toy_four_spin") == set()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
