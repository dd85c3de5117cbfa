"""Evidence on digits: copies, collapse and blur show in the numbers, and every table and array has its rows."""

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import PARAMETERS
from ddgm import classifier
from ddgm.datasets.writing import write
from ddgm.errors import UserError
from ddgm.metrics import annealing, digits, features
from ddgm.metrics.digits import Seen
from ddgm.sampling import sample
from ddgm.training import train
from test_classifier import DIGITS, ROW, bars

SETTINGS = {"seed": 1, "samples": 60, "compared": 30, "neighbours": 3, "pairs": 10, "steps": 5}
SAMPLING = {"seed": 0, "samples": 40, "images": 25, "rows": 3, "steps": 5, "grid": 12, "histogram": 900}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training and held-out images of three kinds, and a classifier of them."""
    folder, stream = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    for split, n in (("train", 400), ("test", 100)):
        images, labels = bars(n, stream)
        write(DIGITS, folder / f"{split}.npy", images, ("label",), ((int(x),) for x in labels))
    classifier.train("bars", ROW | {"seeds": [0]}, folder / "train.npy", folder / "test.npy", folder / "judge")
    return folder


@pytest.fixture
def judge(folder):
    return classifier.load(folder / "judge")


def test_fresh_images_of_the_data_score_about_the_floor(folder, judge):
    compared = digits.data(folder / "train.npy", folder / "test.npy", judge, SETTINGS | {"samples": 100})
    fresh = digits.seen(torch.from_numpy(bars(100, np.random.default_rng(5))[0]), judge)
    found = digits.quality(fresh, compared, 3)
    assert found["frechet"] < 2 * found["frechet_floor"]
    assert found["confidence"] == pytest.approx(found["confidence_floor"], abs=0.05)
    assert found["precision"] > 0.8 and found["recall"] > 0.8 and found["sharpness"] == pytest.approx(1, abs=0.1)
    assert sum(found[f"share_{digit}"] for digit in range(10)) == pytest.approx(1)
    assert found["classes_found"] == 3 and found["kl_to_uniform"] == pytest.approx(np.log(10 / 3), abs=0.1)


def test_one_image_for_all_is_seen_as_a_collapse(folder, judge):
    compared = digits.data(folder / "train.npy", folder / "test.npy", judge, SETTINGS)
    one = digits.seen(torch.from_numpy(bars(1, np.random.default_rng(0))[0]).expand(60, -1, -1, -1), judge)
    found = digits.quality(one, compared, 3)
    assert found["classes_found"] == 1 and found["recall"] < 0.1
    assert found["kl_to_uniform"] == pytest.approx(np.log(10))
    assert found["frechet"] > 5 * found["frechet_floor"]


def test_copies_of_training_digits_are_found_out_and_fresh_ones_are_not(folder):
    pool = digits.flat(torch.from_numpy(np.load(folder / "train.npy")))
    heldout, _ = digits.features.nearest(digits.flat(torch.from_numpy(np.load(folder / "test.npy"))), pool)
    copies, _ = digits.features.nearest(pool[:50], pool)
    assert features.memorisation(copies, heldout)["memorised"] == 1
    assert features.memorisation(heldout, heldout)["memorised"] == pytest.approx(0.01, abs=0.011)


def test_a_blurred_image_is_less_sharp_than_the_data():
    images = torch.from_numpy(bars(20, np.random.default_rng(0))[0])
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1).to(torch.uint8)
    assert features.sharpness_ratio(images, images) == 1
    assert features.sharpness_ratio(blurred, images) < 0.5


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    """A small pair trained on the images, sampled and measured: its folder and its row."""
    import copy

    row = copy.deepcopy(PARAMETERS["experiments"]["toy_digits"])
    row |= {"seeds": [3, 4]}
    row["energy"].update(hidden=[24, 12], experts=8)
    row["generator"]["hidden"] = [16]
    row["schedule"].update(steps=20, batch=16)
    made = tmp_path_factory.mktemp("made")
    train("bars", row, folder / "train.npy", made / "model", made / "bars.pt")
    sample(made / "model", SAMPLING, {}, made / "samples.npz")
    targets = {name: made / f"{name}.csv" for name in ("metrics", "interpolations", "crossings")}
    targets["evidence"] = made / "evidence.npz"
    arrays = folder / "train.npy", folder / "test.npy"
    digits.evaluate("bars", made / "model", SETTINGS, targets, made / "samples.npz", *arrays, folder / "judge")
    return made, row


def test_every_metric_has_a_row_for_each_seed(measured):
    made, row = measured
    table = pd.read_csv(made / "metrics.csv")
    lines = table["metric"].str.match("path_|crossed_|between_")
    assert table["value"][~lines].notna().all(), "where all samples are of one class there are no lines"
    counts = table.groupby("metric")["seed"].agg(set)
    wanted = {
        "frechet", "frechet_floor", "kernel_distance", "precision", "recall", "density", "coverage", "confidence",
        "kl_to_uniform", "memorised", "sharpness", "energy_train", "auroc_letters", "auroc_samples", "spread",
    }  # fmt: skip
    assert wanted <= set(counts.index)
    assert all(counts[metric] == set(row["seeds"]) for metric in wanted)


def test_the_evidence_is_what_the_figures_ask_for(measured):
    made, _ = measured
    arrays = np.load(made / "evidence.npz")
    lines = np.load(made / "samples.npz")["interpolations"]
    assert np.array_equal(arrays["interpolations"], lines), "the lines of Figure 3 itself"
    assert arrays["step_class"].shape == arrays["step_energy"].shape == (2, 3, 5)
    assert arrays["samples"].shape == arrays["neighbours"].shape == (2, 30, 1, 8, 8)
    apart = (arrays["samples"].astype(float) - arrays["neighbours"]).reshape(2, 30, -1) / 255
    np.testing.assert_allclose(
        np.linalg.norm(apart, axis=2), arrays["neighbour_distance"][:, :30], rtol=1e-4, atol=1e-4
    )
    assert arrays["neighbour_distance"].shape == (2, 60) and arrays["heldout_distance"].shape == (60,)
    assert abs(arrays["energy_test"].mean(1)).max() < 1e-4, "energies are relative to the held-out digits'"
    assert arrays["inputs"].shape == arrays["gradients"].shape == (5, 3, 1, 8, 8)
    assert arrays["named_lines"].shape[:2] == (3, 3) and arrays["named_class"].shape == arrays["named_lines"].shape[:3]
    assert arrays["auroc_noise"].shape == (2,) and str(arrays["source"]) == "scikit-learn's digits: 10 pictures, seed 0"


def test_the_slopes_are_those_of_the_energy(measured):
    import ddgm

    made, _ = measured
    energy, _ = ddgm.load(made / "model")
    arrays = np.load(made / "evidence.npz")
    x = torch.from_numpy(arrays["inputs"][0, :1]).float() / 255
    nudge = torch.zeros_like(x)
    nudge[..., 3, 3] = 1e-2
    with torch.no_grad():
        rise = (energy(x + nudge) - energy(x - nudge)).item() / 2e-2
    assert arrays["gradients"][0, 0, 0, 3, 3] == pytest.approx(rise, rel=0.02, abs=1e-3)


def test_the_metrics_alone_are_the_same(measured, folder, tmp_path):
    made, _ = measured
    arrays = folder / "train.npy", folder / "test.npy"
    digits.evaluate_metrics("bars", made / "model", SETTINGS, tmp_path / "again.csv", *arrays, folder / "judge")
    assert (tmp_path / "again.csv").read_text() == (made / "metrics.csv").read_text()


def test_the_likelihood_of_held_out_digits_is_measured_for_each_seed(measured, folder, tmp_path):
    made, row = measured
    settings = {"seed": 1, "chains": 20, "temperatures": 30, "leapfrog": 3, "data": 50}
    annealing.evaluate("bars", made / "model", settings, tmp_path / "l.csv", folder / "test.npy")
    table = pd.read_csv(tmp_path / "l.csv").pivot(index="seed", columns="metric", values="value")
    assert table.index.tolist() == row["seeds"] and table.notna().to_numpy().all()
    assert (table["log_likelihood_uniform"] == 0).all(), "on a box of volume 1"


def test_in_two_dimensions_annealing_agrees_with_quadrature(planar_row, planar_data, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    train("points", planar_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "points.pt")
    settings = {"seed": 1, "chains": 400, "temperatures": 60, "leapfrog": 4, "data": 100}
    annealing.evaluate("points", tmp_path / "model", settings, tmp_path / "l.csv", tmp_path / "train.npy")
    table = pd.read_csv(tmp_path / "l.csv").pivot(index="seed", columns="metric", values="value")
    assert len(table) == 2
    assert (table["log_partition"] - table["log_partition_quadrature"]).abs().max() < 0.1


def test_what_is_seen_keeps_the_order_of_the_images(judge):
    images = torch.from_numpy(bars(30, np.random.default_rng(0))[0])
    some: Seen = digits.seen(images, judge)
    torch.testing.assert_close(some.features[7:9], judge.judge(images[7:9])[0])


def test_damaged_arrays_are_one_sentence_before_anything_is_measured(measured, folder, tmp_path):
    made, _ = measured
    cut = {}
    for name, whole in (("samples.npz", made), ("test.npy", folder)):
        cut[name] = tmp_path / name
        cut[name].write_bytes((whole / name).read_bytes()[:300])
    with pytest.raises(UserError, match=r"test\.npy is damaged: delete it, and make it again"):
        annealing.evaluate("bars", made / "model", {"data": 5}, tmp_path / "none.csv", cut["test.npy"])
    for samples, test, sentence in (
        (made / "samples.npz", cut["test.npy"], r"test\.npy is damaged: delete it"),
        (cut["samples.npz"], folder / "test.npy", r"samples\.npz cannot be read as an npz file .*make it again"),
    ):
        with pytest.raises(UserError, match=sentence):
            digits.evaluate("bars", made / "model", SETTINGS, {}, samples, folder / "train.npy", test, folder / "judge")


def test_of_what_is_measured_all_files_are_left_or_none(measured, folder, tmp_path, monkeypatch):
    made, _ = measured
    targets = {name: tmp_path / f"{name}.csv" for name in ("metrics", "interpolations", "crossings")}
    targets["evidence"] = tmp_path / "evidence.npz"
    for target in targets.values():
        target.write_text("of an earlier run")

    def full(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("ddgm.metrics.digits.np.savez_compressed", full)
    arrays = folder / "train.npy", folder / "test.npy"
    with pytest.raises(OSError, match="full"):
        digits.evaluate("bars", made / "model", SETTINGS, targets, made / "samples.npz", *arrays, folder / "judge")
    assert list(tmp_path.iterdir()) == []
