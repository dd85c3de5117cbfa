"""Several processes that train one pair: what they leave is what one process leaves, up to rounding."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from conftest import wait_for
from ddgm import distributed, examples, pair
from ddgm.errors import UserError
from ddgm.pair import Pair
from ddgm.torchrun import run_on_devices
from ddgm.training import refuse_processes, train
from ddgm.variant import changed

NEIGHBOURS = {"kind": "nearest_neighbour", "weight": 0.1, "neighbours": 3, "references": 0, "dimensions": 5}
LATENTS = {"kind": "variational", "weight": 0.001, "sd": 0.3, "width": 0.1, "proposals": 3}
# Starting processes takes longer than training does here: one start is for several trainings.
TRAIN = """
import json, sys
from contextlib import nullcontext
from pathlib import Path
import torch
from ddgm import distributed, training
from ddgm.errors import UserError
from ddgm.progress import start_log
trainings, array, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
start_log(None)
# Processes agree at reports: the sooner, the less there is to compute before they end.
training.REPORT_STEPS = 10
with distributed.together(torch.device("cpu")):
    # Processes that have met once cannot meet again there: they stay together for all trainings.
    distributed.together = lambda device: nullcontext()
    try:
        for name, row, options in trainings:
            training.train(name, row, array, folder / "model" / name, folder / "state" / name, **options)
    except UserError as error:
        sys.exit(str(error))
"""


def together(trainings, array, folder, processes=2):
    """`train` by so many processes under torchrun, of each (name, row, options) in turn."""
    folder.mkdir(exist_ok=True)
    (folder / "train_together.py").write_text(TRAIN)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        str(folder / "train_together.py"), json.dumps(trainings), str(array), str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@contextmanager
def ended(running):
    """Nothing of these processes is left to run beside the next test, whatever becomes of this one."""
    try:
        yield
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=300)


@pytest.fixture
def array(tmp_path, image_data):
    np.save(tmp_path / "train.npy", image_data.numpy())
    return tmp_path / "train.npy"


def test_two_processes_do_what_one_does(image_row, image_data, array, tmp_path):
    """Batch norm, the entropy of the samples and the gradients see the whole batch, whoever holds it."""
    # Adam's first steps have the size of the rate whatever the gradient's, and rounding would decide their sign: with
    # an eps like this they are in proportion to it.
    image_row["optimiser"].update(eps=1.0, energy_rate=0.1, generator_rate=0.1)
    image_row["schedule"].update(steps=8, pictures=2)
    image_row |= {"seeds": [0, 1], "flips": True}
    at_once = {"schedule.kind": "simultaneous", "negative.reuse_latent": True, "entropy": NEIGHBOURS}
    rows = {
        "alternating": changed(image_row, {"entropy": {"kind": "batch_norm_sum", "weight": 0.01}}),
        "simultaneous": changed(image_row, at_once),
        "variational": changed(image_row, {"entropy": LATENTS}),
        "batches": changed(image_row, {"entropy": {**NEIGHBOURS, "references": 2 * image_row["schedule"]["batch"]}}),
    }
    for name, row in rows.items():
        train(name, row, array, tmp_path / "one" / name, tmp_path / "state" / name)
    running = together([(name, row, {}) for name, row in rows.items()], array, tmp_path / "two")
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    start = Pair(image_row, image_data, torch.device("cpu")).weights()
    for name in rows:
        models = tmp_path / "one" / name, tmp_path / "two" / "model" / name
        one, two = (load_file(folder / "weights.safetensors") for folder in models)
        assert one.keys() == two.keys()
        moved = [(one[f"0.{net}.{key}"] - w).abs().max() for net in start[0] for key, w in start[0][net].items()]
        assert np.median(moved) > 1e-3, "far beyond the tolerance below"
        for key, value in one.items():
            np.testing.assert_allclose(two[key], value, rtol=1e-3, atol=2e-5, err_msg=f"{name}: {key}")
        curves = [pd.read_csv(folder / "history.csv") for folder in models]
        np.testing.assert_allclose(*curves, rtol=1e-3, atol=1e-4, err_msg=name)
        shown = [np.load(folder / "progress.npz")["samples"].astype(int) for folder in models]
        assert np.abs(shown[0] - shown[1]).max() <= 1, name


def newest_state(folder):
    """Its step, weights, what the optimisers hold, and the history."""
    path = max(folder.glob("[0-9]*.pt"))
    state = torch.load(path, weights_only=True)["state"]
    sums = [value for kept in state["pair"]["optimisers"].values() for value in kept.values()]
    return int(path.stem), [*state["pair"]["weights"].values(), *sums], state["history"]


def test_processes_asked_to_end_save_one_state_and_go_on_from_it(image_row, array, tmp_path):
    image_row["schedule"]["steps"] = 100000
    states = tmp_path / "two" / "state"
    running = together([("x", image_row, {"checkpoint_minutes": 0.0, "checkpoints": 1})], array, tmp_path / "two")
    with ended(running):
        wait_for(lambda: any((states / "x").glob("[0-9]*.pt")), running)
    (state,) = (states / "x").glob("[0-9]*.pt")
    step = int(state.stem)
    assert step > 0 and step % 10 == 0, "where every process looks whether one was asked"
    until = {"until": step + 20}
    # The last row is another, which the state does not belong to: said by one process, and the code is an error's.
    other = changed(image_row, {"schedule.steps": step + 5})
    trainings = [("x", image_row, until), ("whole", image_row, until), ("x", other, {})]
    running = together(trainings, array, tmp_path / "two")
    _, said = running.communicate(timeout=300)
    assert running.returncode == 1 and f"was made with row.schedule.steps = 100000, and now it is {step + 5}" in said
    assert f"going on from step {step}, saved in" in said
    (at, parts, history), (end, whole, expected) = newest_state(states / "x"), newest_state(states / "whole")
    assert at == end == step + 20 and history == expected
    assert all(torch.equal(*pair) for pair in zip(parts, whole, strict=True)), "to the bit what was left alone"


@pytest.mark.parametrize(("processes", "made"), [(1, 1), (2, 0)])
def test_programs_are_made_for_one_process_alone(processes, made, planar_row, planar_data, monkeypatch):
    """A program has the shapes of a whole batch, and waits for nobody."""
    calls = []
    monkeypatch.setattr(pair, "WORTH_COMPILING", 0)
    monkeypatch.setattr(Pair, "hasten", lambda self, programs, graphs: calls.append((programs, graphs)))
    monkeypatch.setattr(distributed, "processes", lambda: processes)
    monkeypatch.setattr(examples, "any_says", lambda asked, device: asked)
    Pair(planar_row, planar_data, torch.device("cpu"))
    assert calls == [(True, False)] * made


def test_states_are_removed_by_the_first_process_alone(image_row, array, tmp_path, monkeypatch):
    """The first holds the lock and writes: what another removed might be a state that is still wanted."""
    kept = tmp_path / "state" / "x" / "of the first"
    kept.parent.mkdir(parents=True)
    kept.touch()
    image_row["schedule"]["steps"] = 2
    with monkeypatch.context() as another:
        another.setattr(distributed, "is_first", lambda: False)
        train("x", image_row, array, tmp_path / "model", tmp_path / "state" / "x", restart=True)
    assert kept.exists() and not (tmp_path / "model").exists()
    train("x", image_row, array, tmp_path / "model", tmp_path / "state" / "x", restart=True)
    assert not kept.exists() and (tmp_path / "model" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"schedule.batch": 9},
            r"^experiments\.x\.schedule\.batch is 9, and 2 processes cannot have equal parts of it: write a mult",
        ),
        ({"negative": {"kind": "persistent"}}, r"^experiments\.x\.negative is not shared by processes, and is for one"),
        (
            {"energy.noise": 0.3},
            r"^experiments\.x\.energy\.noise is 0\.3, and 2 processes .* write 0\.0, or devices: 1$",
        ),
        (
            {"generator.noise": 0.1},
            r"^experiments\.x\.generator\.noise is 0\.1, and 2 processes would .* write 0\.0",
        ),
    ],
)
def test_what_processes_cannot_share_is_refused(change, sentence, image_row, monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(UserError, match=sentence):
        refuse_processes("x", changed(image_row, change))


@pytest.mark.parametrize(("content", "sentence"), [(None, "train.npy is missing"), (b"no array", "is damaged: delete")])
def test_what_stops_an_experiment_on_two_devices_is_said_once_and_by_nobody_else(
    content, sentence, parameters, tmp_path
):
    row = parameters["experiments"]["toy_four_spin"] | {"devices": 2}
    if content:
        (tmp_path / "data/prepared/four_spin").mkdir(parents=True)
        (tmp_path / "data/prepared/four_spin/train.npy").write_bytes(content)
    command = [sys.executable, "-m", "ddgm", "train", "toy_four_spin", "--branch", "toy", "--params"]
    command += [json.dumps({"experiments.toy_four_spin": row})]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("ddgm: ") == 1 and sentence in done.stderr.splitlines()[-1]
    assert "torch.distributed" not in done.stderr and "elastic" not in done.stderr and "Traceback" not in done.stderr


def test_a_process_that_a_signal_has_ended_is_named(monkeypatch):
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=-signal.SIGKILL, error_file="none")
    launch = Mock(return_value=Mock(side_effect=ChildFailedError("ddgm", {1: failure})))
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch)
    with pytest.raises(UserError, match="process 1 of 2 was ended by SIGKILL, as one is that takes too much memory"):
        run_on_devices(2, ["train", "x"], 75)


@pytest.mark.parametrize(("ended_with", "code"), [(75, 75), (1, 1)])
def test_a_process_that_was_asked_to_end_makes_it_a_training_to_run_again(ended_with, code, monkeypatch):
    """As by the 'kill N' that a second trainer is told of, N being the first process."""
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=ended_with, error_file="none")
    launch = Mock(return_value=Mock(side_effect=ChildFailedError("ddgm", {0: failure})))
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch)
    assert run_on_devices(2, ["train", "x"], 75) == code


@pytest.mark.parametrize("ending", ["finished", "asked to end"])
def test_an_experiment_on_two_devices_is_one_command(ending, parameters, tmp_path):
    """`ddgm train` starts torchrun by itself; asked to end, its code is that of a training to run again."""
    row = parameters["experiments"]["toy_four_spin"]
    row["devices"] = 2
    # Nets so small that no training here is worth compiling.
    row["energy"]["hidden"] = row["generator"]["hidden"] = [16, 16]
    row["schedule"]["steps"] = 100 if ending == "finished" else 100000
    (tmp_path / "data/prepared/four_spin").mkdir(parents=True)
    points = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    np.save(tmp_path / "data/prepared/four_spin/train.npy", points)
    command = [sys.executable, "-m", "ddgm", "train", "toy_four_spin", "--branch", "toy", "--log", "train.log"]
    command += ["--checkpoint-minutes", "0", "--checkpoints", "1"]
    given = json.dumps({"experiments.toy_four_spin": row})
    running = subprocess.Popen([*command, "--params", given], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    if ending == "finished":
        _, said = running.communicate(timeout=300)
        assert running.returncode == 0, said
        assert (tmp_path / "results/toy/models/toy_four_spin/weights.safetensors").exists()
        assert said.count("experiment    toy_four_spin") == 1, "one of the two speaks"
        return
    with ended(running):
        wait_for(lambda: any((tmp_path / "results/toy/state/toy_four_spin").glob("[0-9]*.pt")), running)
    assert running.returncode == 75
    assert len(list((tmp_path / "results/toy/state/toy_four_spin").glob("*.pt"))) == 1
