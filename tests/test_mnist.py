"""Digits: idx files, real or drawn, become one array and one index, exactly or not at all."""

import gzip
import os
import struct
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from ddgm.datasets import download, mnist, registry
from ddgm.datasets.prepared import Split
from ddgm.errors import UserError

MNIST = {"kind": "mnist", "draw": None, "folder": None, "subset": None}
TOY = {**MNIST, "draw": {"images": 200, "seed": 0}}
MIRROR = Path(os.environ.get("DDGM_MIRROR") or Path(__file__).parents[1] / ".." / "shared" / "mirror")
needs_mirror = pytest.mark.skipif(
    not (MIRROR / "mnist").is_dir(), reason="no folder with the MNIST files: set DDGM_MIRROR to one"
)


def fetch(row, raw, mirror=None):
    for split in registry.splits(row):
        for file in registry.raw_files(row, split):
            download.fetch("digits", row, file, raw / file, mirror)


def idx(values, magic=None):
    values = np.asarray(values, dtype=np.uint8)
    magic = bytes((0, 0, 8, values.ndim)) if magic is None else magic
    return magic + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def raw(tmp_path):
    """A folder with three digits of 2x4 pixels for training."""
    folder = tmp_path / "raw"
    folder.mkdir()
    write(folder, "images-idx3", idx(np.arange(24).reshape(3, 2, 4)))
    write(folder, "labels-idx1", idx([7, 0, 9]))
    return folder


def write(folder, part, content):
    (folder / f"train-{part}-ubyte.gz").write_bytes(gzip.compress(content))


def refusal(raw, tmp_path):
    """What a failing preparation says; it must leave neither array nor index nor anything else."""
    target = tmp_path / "prepared" / "train.npy"
    with pytest.raises(UserError) as caught:
        mnist.prepare(MNIST, raw, "train", target)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or not any(target.parent.iterdir())
    return str(caught.value)


@needs_mirror
def test_the_real_mnist_is_prepared_digit_for_digit(tmp_path):
    fetch(MNIST, tmp_path / "raw", str(MIRROR))
    counts = {"train": 60_000, "test": 10_000}
    first_labels = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "test": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}
    means = {"train": 33.318421, "test": 33.791224}
    for split, count in counts.items():
        mnist.prepare(MNIST, tmp_path / "raw", split, tmp_path / f"{split}.npy")
        digits = np.load(tmp_path / f"{split}.npy", mmap_mode="r")
        assert digits.dtype == np.uint8
        assert digits.shape == (count, 1, 28, 28)
        assert digits.mean() == pytest.approx(means[split], abs=1e-5)
        index = pd.read_csv(tmp_path / f"{split}.csv")
        assert index.columns.tolist() == ["position", "key", "split", "label"]
        assert index["label"][:10].tolist() == first_labels[split]
        assert (index["key"] == np.arange(count)).all() and (index["position"] == np.arange(count)).all()
    written = {file for split in counts for file in Split(tmp_path / f"{split}.npy").files}
    assert set(tmp_path.iterdir()) == {tmp_path / "raw", *written}


def test_pixels_and_labels_keep_their_order_and_the_header_s_shape(raw, tmp_path):
    mnist.prepare(MNIST, raw, "train", tmp_path / "train.npy")
    assert np.array_equal(np.load(tmp_path / "train.npy"), np.arange(24).reshape(3, 1, 2, 4))
    assert (tmp_path / "train.csv").read_bytes() == b"position,key,split,label\n0,0,train,7\n1,1,train,0\n2,2,train,9\n"


def test_drawn_digits_are_scikit_learn_s_each_once(tmp_path):
    row = {**MNIST, "draw": {"images": 1797, "seed": 0}}
    fetch(row, tmp_path)
    drawn = []
    for split, count in {"train": 1438, "test": 359}.items():
        mnist.prepare(row, tmp_path, split, tmp_path / f"{split}.npy")
        digits, index = np.load(tmp_path / f"{split}.npy"), pd.read_csv(tmp_path / f"{split}.csv")
        assert digits.shape == (count, 1, 8, 8)
        assert set(index["label"]) == set(range(10))
        drawn += zip((digits.reshape(count, 64) / 255 * 16).round().astype(int).tolist(), index["label"], strict=True)
    original = load_digits()
    assert sorted(drawn) == sorted(zip(original.data.astype(int).tolist(), original.target.tolist(), strict=True))


def test_drawing_digits_twice_gives_the_same_bytes_and_another_seed_others(tmp_path, monkeypatch):
    other = {**MNIST, "draw": {"images": 200, "seed": 1}}
    fetch(TOY, tmp_path / "a")
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: 2e9)
        later.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
        fetch(TOY, tmp_path / "b")
    fetch(other, tmp_path / "c")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        assert file.read_bytes() != (tmp_path / "c" / file.name).read_bytes()


def test_more_digits_than_there_are_cannot_be_drawn(tmp_path):
    row = {**MNIST, "draw": {"images": 1798, "seed": 0}}
    with pytest.raises(UserError, match=r"1798.*at most 1797"):
        fetch(row, tmp_path)
    assert not any(tmp_path.iterdir())


FAULTS = {
    "wrong magic": ("images-idx3", idx(np.zeros((3, 2, 4)), magic=b"\0\0\x0d\3"), "0x00000d03"),
    "labels for images": ("images-idx3", idx([1, 2, 3]), "0x00000801"),
    "images for labels": ("labels-idx1", idx(np.zeros((3, 2, 4))), "0x00000803"),
    "empty": ("images-idx3", b"", "magic number"),
    "header cut": ("images-idx3", idx(np.zeros((3, 2, 4)))[:10], "header"),
    "one value short": ("images-idx3", idx(np.zeros((3, 2, 4)))[:-1], "23 values"),
    "one value more": ("images-idx3", idx(np.zeros((3, 2, 4))) + b"\0", "25 values"),
    "absurd size": ("images-idx3", b"\0\0\x08\3" + b"\xff" * 12, "0 values"),
    "no digits": ("images-idx3", idx(np.zeros((0, 28, 28))), "0x28x28"),
    "no such digit": ("labels-idx1", idx([7, 0, 10]), "label 10"),
    "a label missing": ("labels-idx1", idx([7, 0]), "2 labels"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_idx_file_is_named_with_what_is_wrong(fault, raw, tmp_path):
    part, content, words = FAULTS[fault]
    write(raw, part, content)
    sentence = refusal(raw, tmp_path)
    assert words in sentence and f"train-{part}-ubyte.gz" in sentence


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(bytes(1000))[:-6]], ids=["no gzip", "cut"])
def test_a_damaged_gzip_is_named(content, raw, tmp_path):
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(content)
    sentence = refusal(raw, tmp_path)
    assert "gzip" in sentence and "train-labels-idx1-ubyte.gz" in sentence


def test_a_missing_file_is_named(raw, tmp_path):
    (raw / "train-labels-idx1-ubyte.gz").unlink()
    sentence = refusal(raw, tmp_path)
    assert "missing" in sentence and str(raw / "train-labels-idx1-ubyte.gz") in sentence
