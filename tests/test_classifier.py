"""The classifier that judges digits: it learns, is the same again for the same seed, and comes back from its folder."""

import errno
import json

import numpy as np
import pandas as pd
import pytest
import torch

from ddgm import classifier
from ddgm.datasets.writing import write
from ddgm.errors import UserError

ROW = {
    "seeds": [0, 1], "threads": 1, "precision": "float32", "widths": [4, 8], "features": 12, "epochs": 3, "batch": 20,
    "rate": 1.0e-2, "weight_decay": 0.0, "shift": 1,
}  # fmt: skip
DIGITS = {"kind": "mnist", "draw": {"images": 10, "seed": 0}, "folder": None, "subset": None}


def bars(n, stream):
    """Images (n, 1, 8, 8) of a bright column each, and which of the first three it is."""
    labels = stream.integers(0, 3, n)
    images = stream.integers(0, 60, (n, 1, 8, 8))
    images[np.arange(n), 0, :, 2 * labels + 1] = 255
    return images.astype(np.uint8), labels


@pytest.fixture
def arrays(tmp_path):
    stream = np.random.default_rng(0)
    for split, n in (("train", 400), ("test", 100)):
        images, labels = bars(n, stream)
        write(DIGITS, tmp_path / "bars" / f"{split}.npy", images, ("label",), ((int(x),) for x in labels))
    return tmp_path / "bars" / "train.npy", tmp_path / "bars" / "test.npy"


def test_it_learns_what_held_out_images_show_and_says_how_well(arrays, tmp_path):
    classifier.train("bars", ROW, *arrays, tmp_path / "judge")
    table = pd.read_csv(tmp_path / "judge/accuracy.csv")
    assert table["seed"].tolist() == [0, 1] and (table["value"] > 0.95).all()
    net = classifier.load(tmp_path / "judge")
    held_out = torch.from_numpy(np.load(arrays[1]))
    assert classifier.accuracy(net, *classifier.labelled(arrays[1])) == table["value"][0]
    features, probabilities = net.judge(held_out, batch=33)
    assert features.shape == (100, 12) and probabilities.shape == (100, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(100))
    about = json.loads((tmp_path / "judge/provenance.json").read_text())
    assert {"versions", "data_sha256", "seconds"} <= set(about)
    assert about["data_held"] == "resident" and about["earlier_code"] == []


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(arrays, tmp_path):
    for folder in ("one", "two"):
        classifier.train("bars", ROW | {"epochs": 1}, *arrays, tmp_path / folder)
    weights = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("one", "two")]
    assert weights[0] == weights[1]
    first, second = (classifier.load(tmp_path / "one", seed) for seed in (0, 1))
    assert not torch.equal(first.head.weight, second.head.weight)


def test_a_shift_moves_the_whole_batch_and_leaves_black_behind():
    x = torch.ones(3, 1, 6, 6)
    stream = torch.Generator().manual_seed(0)
    inks = {tuple(classifier.shifted(x, 2, stream).sum((1, 2, 3)).tolist()) for _ in range(60)}
    assert all(len(set(ink)) == 1 for ink in inks), "all images alike"
    assert {ink[0] for ink in inks} == {36, 30, 24, 25, 20, 16}, "up to two rows and columns lost"
    assert torch.equal(classifier.shifted(x, 0, stream), x)


def test_a_shift_that_moves_digits_out_of_sight_is_refused(tmp_path, parameters):
    arrays = [tmp_path / f"{split}.npy" for split in ("train", "test")]
    for array in arrays:
        np.save(array, np.zeros((40, 1, 8, 8), np.uint8))
        pd.DataFrame({"label": np.arange(40) % 10}).to_csv(array.with_suffix(".csv"), index=False)
    row = parameters["classifiers"]["toy_digits"] | {"batch": 20, "shift": 8}
    with pytest.raises(UserError, match=r"^classifiers\.digits\.shift is 8, which moves a digit of 8 pixels out of"):
        classifier.train("digits", row, *arrays, tmp_path / "judge")
    assert not (tmp_path / "judge").exists()


def test_images_of_odd_sides_are_halved_upwards():
    net = classifier.Classifier((1, 7, 7), [2, 4, 6], 5).eval()
    assert net(torch.zeros(2, 1, 7, 7)).shape == (2, 10)


def test_what_cannot_be_trained_or_loaded_is_one_sentence(arrays, tmp_path):
    with pytest.raises(UserError, match=r"classifiers.bars.batch is 500, and there are 400 digits"):
        classifier.train("bars", ROW | {"batch": 500}, *arrays, tmp_path / "judge")
    with pytest.raises(UserError, match=r"holds no trained classifier: make it with 'ddgm classify judge --branch "):
        classifier.load(tmp_path / "judge")
    index = arrays[0].with_suffix(".csv")
    pd.read_csv(index).drop(columns="label").to_csv(index, index=False)
    with pytest.raises(UserError, match="no column 'label'"):
        classifier.train("bars", ROW, *arrays, tmp_path / "judge")
    index.write_text("")
    with pytest.raises(UserError, match=r"train\.csv cannot be read as a csv file .*: delete it, and make it again"):
        classifier.labelled(arrays[0])
    index.write_text("position,label\n0,3\n")
    with pytest.raises(UserError, match=r"train\.csv has 1 rows for the 400 examples of .*: delete it"):
        classifier.labelled(arrays[0])
    for label, said in (("x", "'x'"), (10, "10"), (2.5, "2.5"), (None, "nan")):
        index.write_text(f"position,label\n0,3\n1,{'' if label is None else label}\n")
        with pytest.raises(UserError, match=rf"train\.csv has {said} under label, and 0 to 9 are allowed: delete"):
            classifier.train("bars", ROW, *arrays, tmp_path / "judge")
    assert not (tmp_path / "judge").exists()


@pytest.mark.parametrize("kept", [0, 200])
def test_a_damaged_array_is_one_sentence_that_says_how_to_make_it_again(kept, arrays, tmp_path):
    for array in reversed(arrays):
        array.write_bytes(array.read_bytes()[:kept])
        with pytest.raises(UserError, match=f"^{array} is damaged: delete it, and make it again with 'snakemake "):
            classifier.train("bars", ROW, *arrays, tmp_path / "judge")


def test_of_a_classifier_all_files_are_left_or_none(arrays, tmp_path, monkeypatch):
    classifier.train("bars", ROW | {"epochs": 1}, *arrays, tmp_path / "judge")
    kept = sorted(tmp_path.glob("judge/*"))
    assert len(kept) == 4

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr("ddgm.classifier.pd.DataFrame.to_csv", full)
    with pytest.raises(OSError, match="full"):
        classifier.train("bars", ROW | {"epochs": 1}, *arrays, tmp_path / "judge")
    assert sorted(tmp_path.glob("judge/*")) == []


def test_a_classifier_of_another_make_is_one_sentence(arrays, tmp_path):
    classifier.train("bars", ROW | {"epochs": 1}, *arrays, tmp_path / "judge")
    about = tmp_path / "judge/classifier.json"
    about.write_text(about.read_text().replace('"features": 12', '"features": 13'))
    with pytest.raises(UserError, match=r"the weights in .*judge are not those of the row beside them"):
        classifier.load(tmp_path / "judge")
    about.write_text("{}")
    with pytest.raises(UserError, match="holds no trained classifier: make it with 'ddgm classify"):
        classifier.load(tmp_path / "judge")
