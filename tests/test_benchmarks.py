"""The scripts of benchmarks/: they start, and what they compare with computes the same, and as much as they say."""

import math
import re
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import ROOT, imported
from ddgm.pair import Pair
from ddgm.variant import changed

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())
# Narrow nets that start at the lab's 0.01 give all images one energy.
NARROW = {
    "energy.hidden": [4, 8, 8, 16], "energy.experts": 8, "energy.start": None,
    "generator.hidden": [16, 8, 8, 4], "generator.start": None, "schedule.batch": 4,
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch):
    """Imports a script by its name, which finds its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    return lambda name: imported(f"benchmarks/{name}.py")


@pytest.fixture
def images(script):
    return script("images")


@pytest.fixture
def narrow(parameters):
    return changed(parameters["experiments"]["celeba_lab"], NARROW)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (16, 3, 64, 64), np.uint8)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_may_be_written_behind_it(name, script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert ended.value.code == 0
    said, usage = capsys.readouterr().out, f"python benchmarks/{name}.py"
    assert usage in said, "the usage in its docstring"
    written = set(re.findall(r"\[(--\w+)", next(line for line in said.splitlines() if line.startswith(usage))))
    assert written <= set(re.findall(r"^  (--\w+)", said, re.M)), "and each option there is one"


def test_the_papers_nets_do_two_thirds_of_a_billion_multiply_adds_an_image_each(images, parameters):
    counted = images.multiply_adds(parameters["experiments"]["celeba_lab"])
    assert counted == pytest.approx((0.64e9, 0.66e9), rel=0.01)


def test_a_round_does_the_work_that_the_shares_are_computed_from(images, narrow, pixels):
    """Multiply-adds as PyTorch counts them: 12 passes of a net, or 9, and the plain loop's 13."""
    generator, energy = images.multiply_adds(narrow)
    # Nothing needs the derivative by z, or by pixels where the energy learns apart.
    by_z, by_pixels = 100 * 16 * 16, 2 * 3 * 4 * 25 * 32 * 32
    plain = images.PlainLoop(narrow, pixels, CPU)
    rounds = {"plain": (plain.round, (4, 9))}
    for kind, passes in images.WORK.items():
        rounds[kind] = (Pair(changed(narrow, {"schedule.kind": kind}), pixels, CPU).round, passes)
    for kind, (round_, (of_generator, of_energy)) in rounds.items():
        with FlopCounterMode(display=False) as counter:
            round_()
        left_out = by_z + (0 if kind == "simultaneous" else by_pixels)
        needed = of_generator * generator + of_energy * energy - left_out
        assert counter.get_total_flops() == 2 * narrow["schedule"]["batch"] * needed, kind
    said = "{simultaneous} {unit} in place of {alternating} ({plain} in a plain loop)"
    counts = {kind: sum(passes) for kind, (_, passes) in rounds.items()}
    for file, unit in (
        ("workflow/schemas/params.schema.yaml", "units of work"),
        ("src/ddgm/pair.py", "times the work of one net's forward pass"),
    ):
        assert said.format(unit=unit, **counts) in " ".join((ROOT / file).read_text().split()), file


def test_the_plain_nets_of_images_compute_what_ours_do(images, narrow, pixels):
    plain = images.PlainLoop(narrow, pixels, CPU)
    assert images.check(Pair(narrow, pixels, CPU), plain) < 1e-5
    other = changed(narrow, {"energy.activation": "leaky_relu"})
    assert images.check(Pair(other, pixels, CPU), plain) > 1e-4, "beyond the bound that the script has"


def test_the_plain_loop_of_training_makes_the_updates_that_ours_make(script, monkeypatch):
    """In double precision, twenty rounds of the row of the paper's recipe."""
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", math.inf)
    training = script("training")
    before = torch.get_default_dtype()
    try:
        assert training.check("four_spin") < training.TOLERANCE
    finally:
        torch.set_default_dtype(before)
