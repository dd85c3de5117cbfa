"""What is said of a prepared data set: its sheet, its table, its contact sheet, and where results carry it on."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddgm.datasets import prepared, writing
from ddgm.datasets.writing import write
from ddgm.errors import UserError
from ddgm.figures import sheet
from ddgm.metrics import dataset
from ddgm.metrics.dataset import channel_statistics, describe
from ddgm.sampling import sample
from ddgm.training import train

SUBSET = {"says": "subset: 20 of 100 faces", "checksums": {"img_align_celeba.zip": "md5:0123456789abcdef"}}
ROW = {"kind": "celeba", "draw": None, "folder": "/somewhere", "subset": SUBSET, "side": 8, "crop": None}


@pytest.fixture
def splits(tmp_path):
    """Two prepared splits of a subset, 20 and 5 pictures."""
    stream = np.random.default_rng(0)
    arrays = [tmp_path / "faces" / f"{name}.npy" for name in ("train", "test")]
    for path, count in zip(arrays, (20, 5), strict=True):
        path.parent.mkdir(exist_ok=True)
        write(ROW, path, stream.integers(0, 256, (count, 3, 8, 8), np.uint8))
    return arrays


def test_a_sheet_says_what_a_split_is_and_where_it_comes_from(splits):
    facts = prepared.read_sheet(splits[0])
    assert facts["dataset"] == "faces" and facts["split"] == "train" and facts["shape"] == [20, 3, 8, 8]
    assert facts["source"] == "subset: 20 of 100 faces"
    assert facts["checksums"]["img_align_celeba.zip"] == "md5:0123456789abcdef"
    assert facts["checksums"]["list_eval_partition.txt"] == "md5:d32c9cbf5e040fd4025c592c306e6668"
    assert "/somewhere" not in splits[0].with_suffix(".json").read_text()


@pytest.mark.parametrize(
    "harm",
    [lambda path: path.unlink(), *(lambda path, text=text: path.write_text(text) for text in ("{", "[]", "{}"))],
    ids=["missing", "cut", "a list", "without a key"],
)
def test_a_missing_or_damaged_sheet_is_named(harm, splits):
    harm(splits[0].with_suffix(".json"))
    with pytest.raises(UserError, match=r"train\.json is (missing|damaged)"):
        describe(splits, splits[0].with_name("table.csv"))
    assert not splits[0].with_name("table.csv").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing: make it with 'snakemake "),
        (b"no array", "is damaged: delete it, "),
        (np.zeros((4, 2)), r"holds float64 \(4, 2\), but points, float32 \(N, 2\), or pictures"),
        (np.zeros((4, 3), np.float32), r"holds float32 \(4, 3\), but"),
        (np.zeros((0, 2), np.float32), r"holds float32 \(0, 2\), but .*at least one"),
        (np.zeros((4, 8, 8), np.uint8), r"holds uint8 \(4, 8, 8\), but"),
        (np.float32([[0, 1], [np.nan, 2]]), "holds points that are no finite numbers: delete it"),
    ],
    ids=["missing", "no array", "precision", "columns", "empty", "channels", "nan"],
)
@pytest.mark.parametrize("mode", [None, "r"])
def test_an_array_that_is_no_split_is_refused_in_a_sentence(content, says, mode, tmp_path):
    array = tmp_path / "train.npy"
    if isinstance(content, bytes):
        array.write_bytes(content)
    elif content is not None:
        np.save(array, content)
    with pytest.raises(UserError, match="^" + re.escape(str(array)) + f" {says}"):
        prepared.read(array, mode)


def test_an_archive_under_an_array_s_name_is_refused_in_a_sentence(tmp_path):
    array = tmp_path / "train.npy"
    with array.open("wb") as file:
        np.savez(file, x=np.zeros((4, 2), np.float32))
    with pytest.raises(UserError, match=r"holds an archive .* are needed"):
        prepared.read(array)


def test_if_one_of_the_four_files_fails_none_is_left(tmp_path, monkeypatch):
    target = tmp_path / "train.npy"
    write(ROW, target, np.zeros((2, 3, 8, 8), np.uint8))
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(writing, "write_sheet", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write(ROW, target, np.zeros((2, 3, 8, 8), np.uint8))
    assert not any(tmp_path.iterdir())


def test_the_array_takes_its_place_last(tmp_path, monkeypatch):
    from pathlib import Path

    order = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: (order.append(to.name), replace(path, to))[1])
    write(ROW, tmp_path / "train.npy", np.zeros((2, 3, 8, 8), np.uint8))
    assert order == ["train.json", "train_faults.csv", "train.csv", "train.npy"]


def test_channel_statistics_are_exact_whatever_is_read_at_once(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 9, 9), np.uint8)
    monkeypatch.setattr(dataset, "AT_ONCE", 7)
    mean, sd = channel_statistics(pixels)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert sd == pytest.approx(pixels.std((0, 2, 3)), rel=1e-9)
    points = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    mean, sd = channel_statistics(points)
    assert mean == pytest.approx(points.mean(0), abs=1e-6) and sd == pytest.approx(points.std(0), rel=1e-5)


def test_the_table_has_a_row_for_each_split_and_measure(splits, tmp_path):
    facts = json.loads(splits[1].with_suffix(".json").read_text())
    facts |= {"entries": 3033042, "left_out": 2, "faults": {"grey": 1, "undecodable": 2}}
    splits[1].with_suffix(".json").write_text(json.dumps(facts))
    describe(splits, tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.columns.tolist() == ["dataset", "split", "source", "measure", "value"]
    assert set(table["source"]) == {"subset: 20 of 100 faces"}
    test = table[table["split"] == "test"].set_index("measure")["value"]
    assert test["examples"] == 5 and test["entries"] == 3033042 and test["left_out"] == 2
    assert test["fault_grey"] == 1 and test["fault_undecodable"] == 2
    assert test["mean_green"] == pytest.approx(np.load(splits[1])[:, 1].mean(), rel=1e-5)
    assert not [name for name in table[table["split"] == "train"]["measure"] if name.startswith("fault")]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_the_first_pictures_of_each_split(channels, tmp_path):
    path = tmp_path / "set" / "train.npy"
    path.parent.mkdir()
    pictures = np.zeros((70, channels, 12, 12), np.uint8)
    pictures[:64] = np.linspace(60, 250, 64, dtype=np.uint8)[:, None, None, None]
    write(ROW, path, pictures)
    outputs = [tmp_path / "sheet.png", tmp_path / "sheet.pdf"]
    sheet.draw([path], outputs)
    drawn = np.asarray(Image.open(outputs[0]).convert("RGB"))
    found = set(np.unique(drawn[(drawn == drawn[..., :1]).all(-1)]))
    assert set(np.linspace(60, 250, 64, dtype=np.uint8)) <= found, "all 64 of them"
    assert outputs[1].read_bytes().startswith(b"%PDF")


def test_a_contact_sheet_of_points_and_of_few_pictures_is_drawn(splits, tmp_path):
    sheet.draw(splits, [tmp_path / "few.png"])
    points = tmp_path / "points" / "train.npy"
    points.parent.mkdir()
    write({"kind": "four_spin"}, points, np.random.default_rng(0).standard_normal((99, 2)).astype(np.float32))
    sheet.draw([points], [tmp_path / "points.png"])
    assert (tmp_path / "few.png").stat().st_size > 1000 and (tmp_path / "points.png").stat().st_size > 1000


def test_a_sheet_of_a_damaged_array_is_refused_in_a_sentence(splits, tmp_path):
    splits[0].write_bytes(b"no array")
    with pytest.raises(UserError, match=r"train\.npy is damaged: delete it"):
        sheet.draw(splits, [tmp_path / "few.png"])


def test_a_model_and_its_samples_carry_the_word_subset(image_row, tmp_path):
    array = tmp_path / "faces" / "train.npy"
    array.parent.mkdir()
    write(ROW, array, np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), np.uint8))
    train("faces", image_row, array, tmp_path / "model", tmp_path / "faces.pt")
    provenance = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert provenance["data_source"] == "subset: 20 of 100 faces"
    settings = {"seed": 0, "samples": 4, "images": 4, "rows": 2, "steps": 3, "grid": 10}
    sample(tmp_path / "model", settings, {}, tmp_path / "samples.npz")
    assert str(np.load(tmp_path / "samples.npz")["source"]) == "subset: 20 of 100 faces"
