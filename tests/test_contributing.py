"""The examples of CONTRIBUTING.md: each applies to the working tree, is small, and adds what works from end to end."""

import gzip
import hashlib
import math
import re
import shutil
import struct

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import test_pipeline
from conftest import DUMPER, ROOT
from ddgm.parameters import LOADER
from test_pipeline import run

pytestmark = test_pipeline.pytestmark
project = test_pipeline.project

EXAMPLES = sorted((ROOT / "docs/examples").glob("*.patch"))
LINES, FILES = 20, 3


@pytest.fixture
def clone(project, tmp_path):
    """A copy of the working tree, in which one example may be applied."""
    return shutil.copytree(project, tmp_path / "project")


def apply(clone, example):
    return run(clone, f"git apply --verbose docs/examples/{example}.patch")


def change(clone, edit):
    """Let a function change the parameters, and make every training, and what is measured of it, small."""
    file = clone / "params.yaml"
    parameters = yaml.load(file.read_text(), LOADER)
    for row in parameters["experiments"].values():
        row["schedule"].update(steps=30, batch=16, snapshots=0)
    for branch in parameters["branches"].values():
        branch["traced"], branch["claims"] = [], {}
        branch["evaluation"].update(samples=2000, points=1000, transport=50)
        branch["sampling"].update(samples=500, histogram=2000, grid=30)
    edit(parameters)
    file.write_text(yaml.dump(parameters, Dumper=DUMPER))


def is_drawn(picture):
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    return min(pixels.shape[:2]) > 300 and pixels.std() > 5


def write_idx(file, values):
    """A gzipped idx file of bytes, and its checksum as params.yaml has it."""
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))
    return "md5:" + hashlib.md5(file.read_bytes()).hexdigest()


def test_contributing_shows_every_example_as_it_is_and_no_other():
    shown = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    assert sorted(shown) == sorted(example.read_text() for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_at_most_20_lines_in_3_files(example):
    heads = ("+++ ", "--- ")
    lines = [line for line in example.read_text().splitlines() if line[:1] in ("+", "-") and line[:4] not in heads]
    assert 0 < len(lines) <= LINES
    assert 0 < example.read_text().count("diff --git ") <= FILES


def test_the_examples_go_together_and_leave_sources_parameters_and_pipeline_clean(clone):
    for example in EXAMPLES:
        assert "cleanly" in apply(clone, example.stem)
    for command in ("ruff check .", "ruff format --check .", "snakefmt --check Snakefile workflow"):
        run(clone, command)
    assert "written again" in run(clone, "python workflow/engines.py generate")
    stages = yaml.load((clone / "dvc.yaml").read_text(), yaml.CSafeLoader)["stages"]
    assert {"train-toy-toy_four_spin_no_entropy", "draw_fig2_gap-toy-toy_four_spin"} <= set(stages)


def test_the_example_experiment_is_trained_and_drawn_and_has_a_place_in_the_table(clone):
    apply(clone, "add_an_experiment")
    name = "toy_four_spin_no_entropy"

    def alone(parameters):
        assert name in parameters["branches"]["toy"]["fig2"]
        parameters["branches"]["toy"]["fig2"] = [name]

    change(clone, alone)
    run(clone, "snakemake --cores 2 results/toy/figures/fig2.png")
    assert is_drawn(clone / "results/toy/figures/fig2.png")
    history = pd.read_csv(clone / f"results/toy/models/{name}/history.csv")
    assert set(history["seed"]) == {0, 1} and (history["entropy"] == 0).all()
    planned = run(clone, "snakemake -n results/toy/metrics.csv")
    assert f"Measuring {name}" in planned, "it is in the table too"


def test_the_example_data_set_is_prepared_looked_at_and_trained_on(clone):
    apply(clone, "add_a_data_set")
    change(clone, lambda parameters: parameters["experiments"]["toy_four_spin"].update(dataset="ring"))
    sheet, table = "results/toy/figures/sheet_ring.png", "results/toy/data/ring.csv"
    model = "results/toy/models/toy_four_spin/weights.safetensors"
    run(clone, f"snakemake --cores 2 {sheet} {table} {model}")
    assert is_drawn(clone / sheet) and (clone / model).exists()
    points = np.load(clone / "data/prepared/ring/train.npy")
    assert np.hypot(*points.T).mean() == pytest.approx(2, abs=0.01)
    eighth = np.round(np.arctan2(points[:, 1], points[:, 0]) / (math.pi / 4)).astype(int) % 8
    assert np.bincount(eighth, minlength=8) == pytest.approx(1250, rel=0.1)
    described = pd.read_csv(clone / table).set_index(["split", "measure"])["value"]
    assert described["train", "examples"] == 10_000 and described["train", "sd_x"] == pytest.approx(1.417, abs=0.02)


def test_the_example_data_set_of_files_is_verified_prepared_looked_at_and_trained_on(clone):
    apply(clone, "add_a_data_set_of_files")
    folder, stream = clone / "data/given/fashion", np.random.default_rng(0)
    folder.mkdir(parents=True)
    sums = {}
    for split, n in (("train", 300), ("t10k", 100)):
        clothes, labels = stream.integers(0, 256, (n, 28, 28)), stream.integers(0, 10, n)
        for kind, values in (("images-idx3", clothes), ("labels-idx1", labels)):
            file = f"{split}-{kind}-ubyte.gz"
            sums[file] = write_idx(folder / file, values)
    target = "data/prepared/fashion/train.npy"
    said = run(clone, f"snakemake --cores 2 {target}", code=1)
    assert "train-images-idx3-ubyte.gz that datasets.fashion.subset declares" in said and "Traceback" not in said

    def train_on_it(parameters):
        checksums = parameters["datasets"]["fashion"]["subset"]["checksums"]
        assert set(checksums) == set(sums), "the files that the example names"
        checksums.update(sums)
        parameters["experiments"]["toy_digits"]["dataset"] = "fashion"

    change(clone, train_on_it)
    sheet, model = "results/toy/figures/sheet_fashion.png", "results/toy/models/toy_digits/weights.safetensors"
    run(clone, f"snakemake --cores 2 {sheet} {model}")
    assert is_drawn(clone / sheet) and (clone / model).exists()
    assert np.load(clone / target).shape == (300, 1, 28, 28)


def test_the_example_estimator_knows_a_gaussians_entropy_and_trains(clone):
    apply(clone, "add_an_entropy_estimator")
    script = """
import torch
from ddgm.entropy import ENTROPIES, Draw
root = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
samples = torch.randn(3, 20000, 2, generator=torch.Generator().manual_seed(0)) @ root.T
print(*ENTROPIES["gaussian"](Draw(None, samples, None, None), {}).tolist())
"""
    (clone / "entropies.py").write_text(script)
    # det Σ = det(root)² = 1, whatever the correlation.
    known = math.log(2 * math.pi * math.e)
    assert [float(value) for value in run(clone, "python entropies.py").split()] == pytest.approx([known] * 3, abs=0.02)

    def choose(parameters):
        parameters["experiments"]["toy_four_spin"]["entropy"] = {"kind": "gaussian", "weight": 1.0}

    change(clone, choose)
    model = "results/toy/models/toy_four_spin"
    run(clone, f"snakemake --cores 2 {model}/history.csv")
    history = pd.read_csv(clone / model / "history.csv")
    assert history["step"].max() == 30 and np.isfinite(history["entropy"]).all() and history["entropy"].nunique() > 1


def test_the_example_figure_is_drawn_and_its_edit_redraws_no_other(clone):
    apply(clone, "add_a_figure")
    change(clone, lambda parameters: parameters["branches"]["toy"].update(fig2=["toy_four_spin"]))
    pictures = [f"results/toy/figures/{name}.png" for name in ("fig2_gap_toy_four_spin", "fig2")]
    run(clone, f"snakemake --cores 2 {' '.join(pictures)}")
    assert is_drawn(clone / pictures[0])
    with (clone / "src/ddgm/figures/fig2_gap.py").open("a") as module:
        module.write("# edited\n")
    planned = run(clone, f"snakemake -n {' '.join(pictures)}")
    assert "Drawing fig2_gap toy_four_spin of branch toy" in planned
    assert "Drawing fig2 of" not in planned and "Training" not in planned


def test_the_example_search_is_made_and_ranked(clone):
    apply(clone, "add_a_search")

    def brief(parameters):
        parameters["branches"]["toy"]["searches"]["gan"].update(trials=2, steps=30, seeds=[0])
        parameters["branches"]["toy"]["searches"]["gan"]["evaluation"].update(samples=2000, points=1000, transport=50)

    change(clone, brief)
    run(clone, "snakemake --cores 2 results/toy/searches/gan.csv")
    ranked = pd.read_csv(clone / "results/toy/searches/gan.csv")
    assert len(ranked) == 2 and ranked["kl_data_generator"].is_monotonic_increasing
    assert ranked["optimiser.energy_rate"].between(1e-4, 1e-2).all() and set(ranked["optimiser.beta1"]) <= {0.0, 0.5}


def test_the_example_claim_is_judged_and_drawn(clone):
    apply(clone, "add_a_claim")
    name = "samples_follow_data"
    claim = yaml.load((clone / "params.yaml").read_text(), LOADER)["branches"]["toy"]["claims"][name]
    change(clone, lambda parameters: parameters["branches"]["toy"].update(claims={name: claim}))
    figure = f"results/toy/figures/claim_{name}.png"
    run(clone, f"snakemake --cores 2 {figure}")
    assert is_drawn(clone / figure)
    judged = pd.read_csv(clone / "results/toy/metrics/claims.csv")
    assert judged["experiment"].tolist() == ["toy_four_spin", "toy_two_spiral"]
    assert set(judged["recipe"]) == {"measured entropy, ours"} and judged["wanted"].tolist() == ["the mean", "2 seeds"]
