"""CelebA's zip and LSUN's LMDB, real or with faults planted in them, become a prepared split."""

import csv
import functools
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from conftest import wait_for
from ddgm.datasets import celeba, containers, drawn, lsun, registry, stream
from ddgm.datasets.download import fetch
from ddgm.datasets.images import develop, square
from ddgm.datasets.prepared import Split, read_sheet
from ddgm.errors import UserError

COMMON = {"folder": None, "subset": None, "side": 64, "crop": None, "draft": True, "max_images": None}
FACES = {"kind": "celeba", "draw": {"images": 20, "seed": 0}, **COMMON}
ROOMS = {"kind": "lsun", "draw": {"images": 10, "seed": 0}, **COMMON}
MODULES = {"celeba": celeba, "lsun": lsun}


@pytest.fixture(scope="module")
def drawn_raw(tmp_path_factory):
    """The raw files of FACES and ROOMS, drawn once."""
    raw = tmp_path_factory.mktemp("raw")
    for row in (FACES, ROOMS):
        for file in registry.files(row):
            fetch("toy", row, file, raw / row["kind"] / file, None)
    return raw


@pytest.fixture
def target(tmp_path):
    return tmp_path / "prepared" / "train.npy"


@pytest.fixture
def lenient(monkeypatch):
    """A few pictures among a few may be left out."""
    monkeypatch.setattr(stream, "MOST_LEFT_OUT", 0.9)


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour=(200, 30, 90), size=(178, 218), mode="RGB"):
    return Image.new(mode, size, colour)


@pytest.fixture
def faces(tmp_path):
    """Writes a CelebA folder from {name: (split number or None, bytes)} and returns it."""

    def write(pictures, folder="img_align_celeba/"):
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        with zipfile.ZipFile(raw / celeba.ARCHIVE, "w") as archive:
            for name, (_, content) in pictures.items():
                if content is not None:
                    archive.writestr(folder + name, content)
        lines = [f"{name} {number}\r\n" for name, (number, _) in pictures.items() if number is not None]
        (raw / celeba.PARTITION).write_bytes("".join(lines).encode())
        return raw

    return write


@pytest.fixture
def rooms(tmp_path):
    """Writes an LSUN folder from {key: bytes} and returns it; `change` alters data.mdb."""

    def write(pictures, change=lambda data: data, member="bedroom_train_lmdb/data.mdb"):
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        environment = lmdb.open(str(tmp_path / "environment"), map_size=2**28)
        with environment, environment.begin(write=True) as transaction:
            for key, content in pictures.items():
                transaction.put(key.encode(), content)
        with zipfile.ZipFile(raw / "bedroom_train_lmdb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, change((tmp_path / "environment" / "data.mdb").read_bytes()))
        return raw

    return write


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def prepare(row, raw, split, target, workers=1):
    """The array and the keys, after a look at all that was written."""
    MODULES[row["kind"]].prepare(row, raw, split, target, workers)
    array = np.load(target, mmap_mode="r")
    assert isinstance(array, np.memmap) and array.dtype == np.uint8
    assert array.shape[1:] == (3, row["side"], row["side"])
    index = lines(target.with_suffix(".csv"))
    assert [line["position"] for line in index] == [str(i) for i in range(len(array))]
    assert all(line["split"] == split for line in index)
    sheet = read_sheet(target)
    assert sheet["shape"] == list(array.shape) and sheet["entries"] - sheet["left_out"] == len(array)
    # Nothing else is left: no partial array, no journal, no unpacked environment.
    assert {path for path in target.parent.iterdir()} == set(Split(target).files)
    return array, [line["key"] for line in index]


def faults(target):
    return [tuple(line.values()) for line in lines(Split(target).faults)]


def refusal(row, raw, split, target):
    """What a failing preparation says; it must leave nothing."""
    with pytest.raises(UserError) as caught:
        MODULES[row["kind"]].prepare(row, raw, split, target, 1)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or not any(target.parent.iterdir())
    return str(caught.value)


# CelebA


def test_drawn_faces_make_the_whole_way_through_celeba_s_container(drawn_raw, tmp_path):
    expected = {"train": range(16), "val": range(16, 18), "test": range(18, 20)}
    for split, numbers in expected.items():
        array, keys = prepare(FACES, drawn_raw / "celeba", split, tmp_path / split / f"{split}.npy")
        assert keys == [f"{i + 1:06d}.jpg" for i in numbers]
        for picture, i in zip(array, numbers, strict=True):
            # Up to what JPEG loses.
            assert np.abs(picture.astype(int) - square(drawn.face(0, i), 64, None)).mean() < 3


def test_faces_come_in_name_order_split_by_the_list_whatever_the_zip_s_order(faces, target):
    colours = {"000003.jpg": 3, "000001.jpg": 1, "000002.jpg": 2, "000004.jpg": 4}
    numbers = {"000003.jpg": 0, "000001.jpg": 0, "000002.jpg": 1, "000004.jpg": 0}
    raw = faces({name: (numbers[name], encoded(plain((50 * grey,) * 3))) for name, grey in colours.items()})
    array, keys = prepare(FACES, raw, "train", target)
    assert keys == ["000001.jpg", "000003.jpg", "000004.jpg"]
    assert array[:, 0, 0, 0].tolist() == [50, 150, 200]


def test_max_images_takes_the_first_names(drawn_raw, target):
    _, keys = prepare({**FACES, "max_images": 3}, drawn_raw / "celeba", "train", target)
    assert keys == ["000001.jpg", "000002.jpg", "000003.jpg"]


def test_crop_side_and_draft_of_the_row_are_used(drawn_raw, target):
    row = {**FACES, "crop": 108, "side": 32, "max_images": 1, "draft": False}
    array, _ = prepare(row, drawn_raw / "celeba", "train", target)
    with zipfile.ZipFile(drawn_raw / "celeba" / celeba.ARCHIVE) as archive:
        picture = Image.open(io.BytesIO(archive.read("img_align_celeba/000001.jpg")))
    assert np.array_equal(array[0], square(picture, 32, 108))


def test_a_zip_with_fewer_faces_than_listed_is_used_with_a_warning(faces, target, caplog):
    raw = faces({"000001.jpg": (0, encoded(plain())), "000002.jpg": (0, None)})
    _, keys = prepare(FACES, raw, "train", target)
    assert keys == ["000001.jpg"]
    assert "holds 1 of the 2 faces listed" in caplog.text


def test_a_folder_of_faces_that_does_not_fit_is_refused_in_a_sentence(faces, target):
    picture = encoded(plain())
    good = {"000001.jpg": (0, picture)}
    assert "no members img_align_celeba/000001.jpg" in refusal(FACES, faces(good, folder="elsewhere/"), "train", target)
    assert "no face of the split 'val'" in refusal(FACES, faces(good), "val", target)
    assert "000002.jpg, which" in refusal(FACES, faces({**good, "000002.jpg": (None, picture)}), "train", target)

    raw = faces(good)
    (raw / celeba.PARTITION).write_text("000001.jpg 0\n000002.jpg 3\n")
    sentence = refusal(FACES, raw, "train", target)
    assert "line 2" in sentence and "'000002.jpg 3'" in sentence
    (raw / celeba.PARTITION).unlink()
    assert f"{raw / celeba.PARTITION} is missing" in refusal(FACES, raw, "train", target)

    raw = faces(good)
    (raw / celeba.ARCHIVE).write_bytes(b"<html>no zip</html>")
    assert f"{raw / celeba.ARCHIVE} is no whole zip" in refusal(FACES, raw, "train", target)
    (raw / celeba.ARCHIVE).unlink()
    assert f"{raw / celeba.ARCHIVE} is missing" in refusal(FACES, raw, "train", target)


def test_real_celeba_photographs_are_prepared(mirror, target):
    row = {**FACES, "draw": None, "max_images": 50, "draft": False}
    array, keys = prepare(row, mirror / "celeba", "train", target)
    assert array.shape == (50, 3, 64, 64)
    with zipfile.ZipFile(mirror / "celeba" / celeba.ARCHIVE) as archive:
        picture = Image.open(io.BytesIO(archive.read(f"img_align_celeba/{keys[49]}")))
    assert np.array_equal(array[49], square(picture, 64, None))


# LSUN


def test_drawn_rooms_make_the_whole_way_through_lsun_s_container(drawn_raw, tmp_path):
    for split, numbers in {"train": range(8), "val": range(8, 10)}.items():
        array, keys = prepare(ROOMS, drawn_raw / "lsun", split, tmp_path / split / f"{split}.npy")
        expected = {hashlib.sha1(b"0 %d" % i).hexdigest(): i for i in numbers}
        assert keys == sorted(expected)
        for picture, key in zip(array, keys, strict=True):
            # Up to what WebP loses.
            assert np.abs(picture.astype(int) - square(drawn.room(0, expected[key]), 64, None)).mean() < 6


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"draw": None, "max_images": 50}, "original files, the first 50 pictures of each split"),
        ({"draw": None, "max_images": None}, "original files"),
        ({"draw": None, "max_images": 5, "subset": {"says": "subset: a part"}}, "subset: a part, the first 5 pictures"),
        ({"draw": {"images": 90, "seed": 3}, "max_images": None}, "drawn by code: 90 pictures, seed 3"),
    ],
)
def test_what_is_measured_says_that_it_is_a_part_or_drawn(row, says):
    assert registry.source({**FACES, **row}).startswith(says)


def test_rooms_come_in_key_order_and_max_images_takes_the_first(rooms, target):
    raw = rooms({key: encoded(plain((grey,) * 3)) for key, grey in {"c0": 30, "a1": 10, "b2": 20}.items()})
    array, keys = prepare({**ROOMS, "max_images": 2}, raw, "train", target)
    assert keys == ["a1", "b2"]
    assert array[:, 0, 0, 0].tolist() == [10, 20]


def test_more_max_images_than_rooms_takes_all(rooms, target):
    _, keys = prepare({**ROOMS, "max_images": 100}, rooms({"a1": encoded(plain())}), "train", target)
    assert keys == ["a1"]


@pytest.mark.parametrize("error", [RuntimeError("password required"), NotImplementedError("compression method")])
def test_a_zip_with_a_password_or_packed_in_another_way_is_refused_in_a_sentence(error, rooms, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    path = rooms({"a1": encoded(plain())}) / "bedroom_train_lmdb.zip"
    monkeypatch.setattr(zipfile.ZipFile, "open", refuse)
    sentence = rf"bedroom_train_lmdb\.zip cannot be unpacked here \({error}\): pack it again as a plain zip"
    with pytest.raises(UserError, match=sentence):
        containers.unpack(path, "bedroom_train_lmdb/data.mdb", tmp_path / "data.mdb")
    assert not (tmp_path / "data.mdb").exists()
    with containers.open_zip(path) as archive, pytest.raises(UserError, match=sentence):
        list(containers.zip_container(path, archive, archive.namelist()).entries(0))


@pytest.mark.parametrize("start", [0, 1, 255, 256, 600])
def test_an_environment_is_read_in_key_order_from_any_entry(start, rooms, tmp_path):
    raw = rooms({f"{i:04x}": b"%d" % i for i in range(700)})
    data = tmp_path / "data.mdb"
    containers.unpack(raw / "bedroom_train_lmdb.zip", "bedroom_train_lmdb/data.mdb", data)
    container = containers.lmdb_container(raw / "bedroom_train_lmdb.zip", data, 650)
    assert [entry.data for entry in container.entries(start)] == [b"%d" % i for i in range(start, 650)]


def test_the_environment_is_unpacked_beside_the_target_and_nowhere_else(rooms, target, tmp_path, monkeypatch):
    raw = rooms({"a1": encoded(plain())})
    before = sorted(raw.rglob("*"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    monkeypatch.chdir(tmp_path / "raw")
    prepare(ROOMS, raw, "train", target)
    assert sorted(raw.rglob("*")) == before


def test_an_environment_larger_than_the_free_disk_is_refused_before_it_is_unpacked(rooms, target, monkeypatch):
    raw = rooms({"a1": encoded(plain())})
    monkeypatch.setattr(containers.shutil, "disk_usage", lambda _: FreeDisk(1000))
    assert "has to be unpacked" in refusal(ROOMS, raw, "train", target)


class FreeDisk:
    def __init__(self, free):
        self.free = free


@pytest.mark.parametrize(
    "change",
    [lambda data: b"no environment" * 1000, lambda data: data[: len(data) // 2], lambda data: b""],
    ids=["other bytes", "cut in half", "empty"],
)
def test_a_damaged_environment_is_refused_and_does_not_kill_the_process(change, rooms, target):
    raw = rooms({f"{i:02d}": encoded(drawn.room(0, i), "WEBP") for i in range(4)}, change)
    assert "bedroom_train_lmdb.zip" in refusal(ROOMS, raw, "train", target)


def test_a_container_that_does_not_fit_is_refused_in_a_sentence(rooms, target):
    raw = rooms({"a1": encoded(plain())}, member="church_train_lmdb/data.mdb")
    archive = raw / "bedroom_train_lmdb.zip"
    assert "no member bedroom_train_lmdb/data.mdb" in refusal(ROOMS, raw, "train", target)
    archive.write_bytes(b"no zip")
    assert f"{archive} is no whole zip" in refusal(ROOMS, raw, "train", target)
    archive.unlink()
    assert f"{archive} is missing" in refusal(ROOMS, raw, "train", target)


def test_an_environment_without_pictures_is_refused(rooms, target):
    assert "no pictures" in refusal(ROOMS, rooms({}), "train", target)


def test_a_damaged_zip_of_rooms_is_named(rooms, target):
    raw = rooms({"a1": encoded(drawn.room(0, 0), "WEBP")})
    archive = raw / "bedroom_train_lmdb.zip"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    assert "bedroom_train_lmdb/data.mdb in" in refusal(ROOMS, raw, "train", target)


def test_photographs_in_lsun_s_container_are_prepared(mirror, target):
    array, keys = prepare({**ROOMS, "draw": None}, mirror / "lsun", "val", target.with_name("val.npy"))
    assert array.shape == (100, 3, 64, 64)
    assert keys == sorted(keys)
    assert array.std(axis=(1, 2, 3)).min() > 5  # no picture is blank


# Faults among the entries


PLANTED = {
    "000001.jpg": encoded(drawn.face(0, 1), "JPEG"),
    "000002.jpg": b"no picture",
    "000003.jpg": encoded(drawn.face(0, 3), "JPEG")[:3000],
    "000004.jpg": encoded(drawn.face(0, 4).convert("L"), "JPEG"),
    "000005.jpg": encoded(drawn.face(0, 5).convert("CMYK"), "JPEG"),
    "000006.jpg": encoded(plain(size=(40, 50)), "JPEG"),
    "000007.jpg": encoded(Image.new("1", (20_000, 20_000))),
    "000008.jpg": encoded(drawn.face(0, 1), "JPEG"),
    "000009.jpg": encoded(drawn.face(0, 9), "JPEG"),
    "000010.jpg": encoded(drawn.face(0, 4).convert("L"), "JPEG"),
    "000011.jpg": b"",
}
EXPECTED = [
    ("", "000002.jpg", "undecodable"),
    ("", "000003.jpg", "undecodable"),
    ("1", "000004.jpg", "grey"),
    ("2", "000005.jpg", "cmyk"),
    ("", "000006.jpg", "tiny"),
    ("", "000007.jpg", "huge"),
    ("3", "000008.jpg", "duplicate"),
    ("5", "000010.jpg", "grey"),
    ("5", "000010.jpg", "duplicate"),
    ("", "000011.jpg", "undecodable"),
]


@pytest.mark.parametrize("kind", ["celeba", "lsun"])
def test_every_planted_fault_is_listed_counted_and_left_out_or_converted(kind, faces, rooms, target, lenient, caplog):
    if kind == "celeba":
        raw, row = faces({name: (0, content) for name, content in PLANTED.items()}), FACES
    else:
        raw, row = rooms(PLANTED), ROOMS
    array, keys = prepare(row, raw, "train", target)
    assert [found[:3] for found in faults(target)] == EXPECTED
    assert keys == ["000001.jpg", "000004.jpg", "000005.jpg", "000008.jpg", "000009.jpg", "000010.jpg"]
    for picture, i in zip(array, (1, 4, 5, 1, 9, 4), strict=True):
        grey = {4: "L", 5: "CMYK"}.get(i, "RGB")
        assert np.abs(picture.astype(int) - square(drawn.face(0, i).convert(grey).convert("RGB"), 64, None)).mean() < 4
    sheet = read_sheet(target)
    assert sheet["faults"] == {"cmyk": 1, "duplicate": 2, "grey": 2, "huge": 1, "tiny": 1, "undecodable": 3}
    assert sheet["left_out"] == 5
    assert "the same bytes as 000004.jpg" in Split(target).faults.read_text()
    assert "000006.jpg in" in caplog.text and "tiny: 40x50 pixels" in caplog.text


def test_a_member_damaged_in_the_zip_is_listed(faces, target, lenient):
    content = encoded(plain(), "JPEG")
    raw = faces({"000001.jpg": (0, content), "000002.jpg": (0, encoded(drawn.face(0, 0), "JPEG"))})
    archive = (raw / celeba.ARCHIVE).read_bytes()
    (raw / celeba.ARCHIVE).write_bytes(archive.replace(content[100:120], bytes(20), 1))
    _, keys = prepare(FACES, raw, "train", target)
    assert keys == ["000002.jpg"]
    ((position, key, fault, detail),) = faults(target)
    assert (position, key, fault) == ("", "000001.jpg", "undecodable") and "damaged in the zip" in detail


def test_entries_that_were_not_read_repeat_nothing(faces, target, lenient, monkeypatch):
    monkeypatch.setattr(containers, "LARGEST_ENTRY", 50_000)
    good = {"000003.jpg": (0, encoded(drawn.face(0, 0), "JPEG"))}
    raw = faces({"000001.jpg": (0, bytes(60_000)), "000002.jpg": (0, bytes(70_000)), **good})
    prepare(FACES, raw, "train", target)
    assert [found[2] for found in faults(target)] == ["huge", "huge"]


def test_pictures_after_one_that_was_left_out_close_up(faces, tmp_path, lenient):
    pictures = many(400) | {f"{i:06d}.jpg": (0, b"no picture") for i in (3, 130, 131, 399)}
    raw = faces(pictures)
    for workers in (1, 3):
        array, keys = prepare(FACES, raw, "train", tmp_path / str(workers) / "faces" / "train.npy", workers)
        assert len(array) == 396
        for position in (0, 2, 3, 126, 127, 128, 129, 200, 395):
            number = int(keys[position][:6])
            expected, _ = develop(face(number % 40), 64, None, True)
            assert np.array_equal(array[position], expected)


def test_an_entry_too_large_for_a_photograph_is_not_read(faces, target, lenient, monkeypatch):
    monkeypatch.setattr(containers, "LARGEST_ENTRY", 50_000)
    raw = faces({"000001.jpg": (0, bytes(60_000)), "000002.jpg": (0, encoded(drawn.face(0, 0), "JPEG"))})
    prepare(FACES, raw, "train", target)
    assert faults(target) == [("", "000001.jpg", "huge", "60000 bytes")]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_picture_in_a_thousand_is_left_out_and_two_stop_with_a_sentence(workers, faces, target):
    good = encoded(plain(size=(64, 64)), "JPEG")
    pictures = {f"{i:06d}.jpg": (0, good) for i in range(1000)}
    pictures["000500.jpg"] = (0, b"no picture")
    array, _ = prepare(FACES, faces(pictures), "train", target, workers)
    assert len(array) == 999
    assert [found[:3] for found in faults(target) if found[2] != "duplicate"] == [("", "000500.jpg", "undecodable")]

    pictures["000700.jpg"] = (0, encoded(plain(size=(30, 30))))
    with pytest.raises(UserError) as caught:
        celeba.prepare(FACES, faces(pictures), "train", target, workers)
    sentence = str(caught.value)
    assert "2 of the 1000 pictures" in sentence and "1 tiny, 1 undecodable" in sentence and "0.1%" in sentence
    assert "000500.jpg" in sentence
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


# Workers, interruptions


@functools.cache
def face(i):
    return encoded(drawn.face(1, i), "JPEG", quality=50 + i)


def many(count):
    """Faces, 40 different ones again and again."""
    return {f"{i:06d}.jpg": (0, face(i % 40)) for i in range(count)}


def written(target):
    return {file.name: file.read_bytes() for file in Split(target).files}


def test_the_bytes_of_all_four_files_are_the_same_whatever_the_number_of_workers(faces, tmp_path):
    raw = faces(many(300) | {"000299.jpg": (0, encoded(drawn.face(0, 0).convert("L"), "JPEG"))})
    results = []
    for workers in (1, 2, 5):
        target = tmp_path / str(workers) / "faces" / "train.npy"
        prepare(FACES, raw, "train", target, workers)
        results.append(written(target))
    assert results[0] == results[1] == results[2]


class PlantedError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("kind", ["celeba", "lsun"])
def test_an_interrupted_preparation_goes_on_where_it_was(kind, after, faces, rooms, tmp_path, monkeypatch):
    pictures = many(300)
    raw, row = (
        (faces(pictures), FACES) if kind == "celeba" else (rooms({k: v for k, (_, v) in pictures.items()}), ROOMS)
    )
    whole, target = tmp_path / "a" / "faces" / "train.npy", tmp_path / "b" / "faces" / "train.npy"
    prepare(row, raw, "train", whole)

    seen = []
    develop = stream.develop_chunk

    def counted(part, *work):
        if len(seen) == after:
            raise PlantedError
        seen.append(len(part))
        return develop(part, *work)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "develop_chunk", counted)
        with pytest.raises(PlantedError):
            MODULES[kind].prepare(row, raw, "train", target, 1)
    assert not target.exists()
    developed = []
    with monkeypatch.context() as patch:
        patch.setattr(
            stream, "develop_chunk", lambda part, *work: (developed.append(len(part)), develop(part, *work))[1]
        )
        prepare(row, raw, "train", target)
    assert sum(developed) == 300 - sum(seen)
    assert written(target) == written(whole)


def interrupted(raw, target, monkeypatch):
    """Leave a partial array of one chunk at `target`."""
    develop, calls = stream.develop_chunk, []

    def once(part, *work):
        if calls:
            raise PlantedError
        calls.append(1)
        return develop(part, *work)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "develop_chunk", once)
        with pytest.raises(PlantedError):
            celeba.prepare(FACES, raw, "train", target, 1)


@pytest.mark.parametrize(
    "harm",
    [
        "a line cut off",
        "zeros in the journal",
        "pictures lost",
        "other crop",
        "another zip",
        "other code",
        "no journal",
    ],
)
def test_what_an_interruption_left_is_used_only_if_it_is_whole_and_of_the_same_making(
    harm, faces, tmp_path, monkeypatch
):
    raw, target = faces(many(200)), tmp_path / "b" / "faces" / "train.npy"
    interrupted(raw, target, monkeypatch)
    partial = target.with_name(".train.part.npy")
    journal = partial.with_suffix(".jsonl")
    row = FACES
    if harm == "a line cut off":
        journal.write_text(journal.read_text()[:-10])
    elif harm == "zeros in the journal":
        journal.write_text(journal.read_text() + "\0" * 50 + "\n")
    elif harm == "other code":
        monkeypatch.setattr(stream, "images_version", lambda: "another")
    elif harm == "pictures lost":
        content = partial.read_bytes()
        partial.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    elif harm == "other crop":
        row = {**FACES, "crop": 108}
    elif harm == "another zip":
        raw = faces(many(199))
    else:
        journal.unlink()
    prepare(row, raw, "train", target)
    fresh = tmp_path / "c" / "faces" / "train.npy"
    prepare(row, raw, "train", fresh)
    assert written(target) == written(fresh)


def test_two_preparations_of_one_split_at_once_are_refused(faces, target, monkeypatch):
    raw = faces(many(10))
    develop = stream.develop_chunk

    def meanwhile(part, *work):
        with pytest.raises(UserError, match=r"another process prepares .*train.npy"):
            celeba.prepare(FACES, raw, "train", target, 1)
        return develop(part, *work)

    monkeypatch.setattr(stream, "develop_chunk", meanwhile)
    prepare(FACES, raw, "train", target)


def test_an_array_larger_than_the_free_disk_is_refused_at_once(faces, target, monkeypatch):
    raw = faces(many(10))
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda _: FreeDisk(100_000))
    with pytest.raises(UserError, match=r"needs 0.0 GB more .* has 0.0 GB free"):
        celeba.prepare(FACES, raw, "train", target, 1)


def test_a_worker_that_is_killed_is_said_in_a_sentence_and_what_was_done_is_kept(faces, target):
    raw = faces(many(5000))
    process = start(raw, target)
    try:
        workers = working(process, target)
        os.kill(workers[-1], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "was killed, perhaps for want of memory" in said
    assert journal_lines(target) > 2
    prepare(FACES, raw, "train", target, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_preparation_that_is_asked_to_stop_ends_with_its_workers_and_goes_on_afterwards(number, faces, target):
    raw = faces(many(5000))
    process = start(raw, target, start_new_session=True)
    try:
        workers = working(process, target)
        os.killpg(process.pid, number)
        process.communicate(timeout=60)
        wait_for(lambda: not any(alive(worker) for worker in workers))
    finally:
        process.kill()
    assert process.returncode != 0 and not target.exists() and journal_lines(target) > 2
    prepare(FACES, raw, "train", target, 2)


def test_a_killed_preparation_leaves_no_process_and_goes_on_afterwards(faces, target, tmp_path):
    raw = faces(many(5000))
    process = start(raw, target)
    try:
        workers = working(process, target)
    finally:
        process.kill()
    process.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))
    assert not target.exists() and journal_lines(target) > 2
    prepare(FACES, raw, "train", target, 2)
    fresh = tmp_path / "fresh" / "prepared" / "train.npy"
    prepare(FACES, raw, "train", fresh)
    assert written(target) == written(fresh)


def alive(process):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(raw, target, **options):
    """A preparation by two workers in a process of its own, slow enough to be met at work on a busy machine."""
    code = (
        "import json, sys, time; from pathlib import Path; from ddgm.datasets import celeba, stream\n"
        "row, raw, target = sys.argv[1:]\n"
        "chunks = stream.chunks\n"
        "stream.chunks = lambda entries: (time.sleep(0.3) or part for part in chunks(entries))\n"
        "celeba.prepare(json.loads(row), Path(raw), 'train', Path(target), 2)"
    )
    command = [sys.executable, "-c", code, json.dumps(FACES), str(raw), str(target)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def journal_lines(target):
    journal = target.with_name(".train.part.jsonl")
    return journal.read_text().count("\n") if journal.exists() else 0


def workers_of(process):
    """The processes that develop beside the first: grandchildren, by way of the fork server."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(process).children(recursive=True) if child.ppid() != process]
    except psutil.NoSuchProcess:
        return []


def working(process, target):
    """Wait until a preparation has done a few chunks and has a worker, and give its workers."""
    wait_for(lambda: journal_lines(target) > 2 and workers_of(process.pid), process)
    return workers_of(process.pid)


def test_what_was_unpacked_is_unpacked_again_only_from_a_newer_zip(tmp_path, monkeypatch):
    path, target = tmp_path / "rooms.zip", tmp_path / "kept/data.mdb"
    target.parent.mkdir()

    def pack(content, seconds):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rooms/data.mdb", content)
        os.utime(path, (seconds, seconds))

    pack(b"first", 1000)
    containers.unpack(path, "rooms/data.mdb", target)
    assert target.read_bytes() == b"first"
    target.write_bytes(b"FIRST")
    containers.unpack(path, "rooms/data.mdb", target)
    assert target.read_bytes() == b"FIRST", "46 GB are not unpacked twice"
    pack(b"other", target.stat().st_mtime + 10)
    containers.unpack(path, "rooms/data.mdb", target)
    assert target.read_bytes() == b"other", "of the same size, and another file"
