"""Stand-ins drawn by code: in the originals' containers, the same bytes for the same seed."""

import time
import zipfile

import numpy as np
import pytest

from ddgm.datasets import celeba, download, drawn, images, registry

FACES = {"kind": "celeba", "draw": {"images": 20, "seed": 0}, "folder": None, "subset": None}
ROOMS = {"kind": "lsun", "draw": {"images": 10, "seed": 0}, "folder": None, "subset": None}


@pytest.fixture(scope="module")
def drawn_raw(tmp_path_factory):
    """The raw files of FACES and ROOMS, drawn once."""
    raw = tmp_path_factory.mktemp("raw")
    for row in (FACES, ROOMS):
        fetch(row, raw / row["kind"])
    return raw


def fetch(row, raw):
    for file in registry.files(row):
        download.fetch("toy", row, file, raw / file, None)


@pytest.mark.parametrize("row", [FACES, ROOMS], ids=["faces", "rooms"])
def test_drawing_twice_gives_the_same_bytes_and_another_seed_others(row, tmp_path, monkeypatch):
    row = {**row, "draw": {"images": 10, "seed": 0}}
    fetch(row, tmp_path / "a")
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: 2e9)
        later.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
        fetch(row, tmp_path / "b")
    fetch({**row, "draw": {"images": 10, "seed": 1}}, tmp_path / "c")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        if file.suffix == ".zip":
            assert file.read_bytes() != (tmp_path / "c" / file.name).read_bytes()


def test_a_drawn_picture_does_not_depend_on_how_many_are_drawn(drawn_raw, tmp_path):
    fetch({**FACES, "draw": {"images": 3, "seed": 0}}, tmp_path)
    member = "img_align_celeba/000003.jpg"
    with (
        zipfile.ZipFile(tmp_path / celeba.ARCHIVE) as few,
        zipfile.ZipFile(drawn_raw / "celeba" / celeba.ARCHIVE) as many,
    ):
        assert few.read(member) == many.read(member)


def test_drawn_pictures_have_the_originals_sizes_and_differ(drawn_raw):
    for i in range(5):
        assert drawn.face(0, i).size == (178, 218)
        assert min(drawn.room(0, i).size) == 256
    for draw in (drawn.face, drawn.room):
        squares = [images.square(draw(0, i), 64, None).astype(int) for i in range(5)]
        assert min(np.abs(a - b).mean() for a in squares for b in squares if a is not b) > 10


def test_drawn_containers_are_laid_out_like_the_originals(drawn_raw):
    with zipfile.ZipFile(drawn_raw / "celeba" / celeba.ARCHIVE) as archive:
        assert archive.namelist()[:2] == ["img_align_celeba/000001.jpg", "img_align_celeba/000002.jpg"]
        assert archive.read("img_align_celeba/000001.jpg")[:2] == b"\xff\xd8"
    assert (drawn_raw / "celeba" / celeba.PARTITION).read_bytes().startswith(b"000001.jpg 0\r\n000002.jpg 0\r\n")
    with zipfile.ZipFile(drawn_raw / "lsun" / "bedroom_val_lmdb.zip") as archive:
        assert archive.namelist() == ["bedroom_val_lmdb/data.mdb", "bedroom_val_lmdb/lock.mdb"]


def test_a_failed_drawing_leaves_nothing(tmp_path, monkeypatch):
    def fail(seed, i):
        raise RuntimeError("planted")

    monkeypatch.setattr(drawn, "room", fail)
    monkeypatch.setattr(drawn, "face", fail)
    for row, file in ((ROOMS, "bedroom_train_lmdb.zip"), (FACES, celeba.ARCHIVE)):
        with pytest.raises(RuntimeError, match="planted"):
            download.fetch("toy", row, file, tmp_path / file, None)
    assert not any(tmp_path.iterdir())
