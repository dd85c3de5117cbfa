"""Faces and rooms: containers, real or drawn, become one array and one index, cropped as the lab cropped."""

import hashlib
import io
import logging
import os
import time
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.transforms import v2

from ddgm.datasets import celeba, download, drawn, images, lsun, registry
from ddgm.errors import UserError

FACES = {"kind": "celeba", "draw": {"images": 20, "seed": 0}, "side": 64, "crop": None, "max_images": None}
ROOMS = {"kind": "lsun", "draw": {"images": 10, "seed": 0}, "side": 64, "crop": None, "max_images": None}
MIRROR = Path(os.environ.get("DDGM_MIRROR") or Path(__file__).parents[1] / ".." / "shared" / "mirror")
MODULES = {"celeba": celeba, "lsun": lsun}


@pytest.fixture(scope="module")
def drawn_raw(tmp_path_factory):
    """The raw files of FACES and ROOMS, drawn once."""
    raw = tmp_path_factory.mktemp("raw")
    for row in (FACES, ROOMS):
        fetch(row, raw / row["kind"])
    return raw


def fetch(row, raw):
    for file in {file for split in registry.splits(row) for file in registry.raw_files(row, split)}:
        download.fetch("toy", row, file, raw / file, None)


def prepare(row, raw, split, target):
    MODULES[row["kind"]].prepare(row, raw, split, target)
    array = np.load(target, mmap_mode="r")
    assert array.dtype == np.uint8
    index = pd.read_csv(target.with_suffix(".csv"), dtype={"key": str})
    assert index.columns.tolist() == ["position", "key"]
    assert index["position"].tolist() == list(range(len(array)))
    # Nothing else is left beside the two: no temporary file, no unpacked environment.
    assert {path.name for path in target.parent.iterdir()} == {target.name, target.with_suffix(".csv").name}
    return array, index["key"].tolist()


def refusal(row, raw, split, target):
    """What a failing preparation says; it must leave neither array nor index nor anything else."""
    with pytest.raises(UserError) as caught:
        MODULES[row["kind"]].prepare(row, raw, split, target)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or not any(target.parent.iterdir())
    return str(caught.value)


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour=(200, 30, 90), size=(178, 218), mode="RGB"):
    return Image.new(mode, size, colour)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "prepared" / "train.npy"


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
        environment = lmdb.open(str(tmp_path / "environment"), map_size=2**26)
        with environment, environment.begin(write=True) as transaction:
            for key, content in pictures.items():
                transaction.put(key.encode(), content)
        with zipfile.ZipFile(raw / "bedroom_train_lmdb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, change((tmp_path / "environment" / "data.mdb").read_bytes()))
        return raw

    return write


# The crop


def yardstick(crop, side):
    """The same preparation by torchvision."""
    resize = v2.Resize(side, v2.InterpolationMode.LANCZOS)
    return v2.Compose([resize, v2.CenterCrop(side)] if crop is None else [v2.CenterCrop(crop), resize])


@pytest.mark.parametrize("crop", [None, 108, 140, 148, 178])
@pytest.mark.parametrize("side", [32, 64])
def test_the_crop_is_torchvision_s_resize_and_center_crop(crop, side):
    for picture in (drawn.face(0, 1), drawn.room(0, 2), drawn.room(0, 3)):
        ours = images.square(picture, side, crop).astype(int)
        theirs = np.asarray(yardstick(crop, side)(picture)).transpose(2, 0, 1).astype(int)
        assert ours.shape == (3, side, side)
        if crop is None and (side * max(picture.size) // min(picture.size) - side) % 2:
            # torchvision rounds an odd margin to the even number, the lab down: at most one pixel apart.
            shifted = [np.roll(theirs, (dy, dx), (1, 2)) for dy in (0, 1) for dx in (0, 1)]
            difference = min(np.abs(ours - other)[:, 1:, 1:].mean() for other in shifted)
        else:
            difference = np.abs(ours - theirs).mean()
        assert difference < 0.5


def test_the_crop_keeps_the_middle_and_cuts_a_tall_picture_at_both_ends():
    # Three horizontal bands: red 77 pixels, green 64, blue 77 of 218; the lab keeps rows 7 to 71 of 78.
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[:77, :, 0], pixels[77:141, :, 1], pixels[141:, :, 2] = 255, 255, 255
    square = images.square(Image.fromarray(pixels), 64, None)
    band = square.argmax(axis=0)
    assert (band == band[:, :1]).all()
    assert [int((band[:, 0] == channel).sum()) for channel in range(3)] == [21, 22, 21]
    assert set(np.unique(images.square(Image.fromarray(pixels), 64, 64).argmax(axis=0))) == {1}


@pytest.mark.parametrize("size", [(64, 64), (64, 65), (256, 341), (341, 256), (30, 50), (1000, 64)])
def test_every_size_gives_a_full_square(size):
    square = images.square(plain(size=size), 64, None)
    assert square.shape == (3, 64, 64)
    assert (square == np.array([200, 30, 90], dtype=np.uint8)[:, None, None]).all()


def test_resizing_is_antialiased():
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    square = images.square(Image.fromarray(stripes), 64, None)
    assert square.std() < 8 and abs(square.mean() - 127.5) < 2


def test_a_crop_larger_than_the_picture_is_refused_with_the_largest_allowed():
    with pytest.raises(UserError, match=r"crop: 200 .*178x218.*at most 178"):
        images.square(plain(), 64, 200)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (200, 30, 90, 10), (200, 30, 90)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_other_colour_modes_become_rgb(mode, colour, expected):
    picture = images.decode(encoded(plain(colour, mode=mode), "TIFF"), "it")
    assert picture.mode == "RGB"
    assert picture.getpixel((5, 5)) == expected


def test_a_palette_becomes_rgb():
    picture = plain().quantize(4)
    assert picture.mode == "P"
    assert images.decode(encoded(picture), "it").getpixel((0, 0)) == (200, 30, 90)


@pytest.mark.parametrize("kept", [0, 10, 1000], ids=["empty", "header only", "cut"])
def test_an_undecodable_picture_is_named(kept):
    with pytest.raises(UserError, match=r"the name cannot be decoded"):
        images.decode(encoded(drawn.face(0, 0), "JPEG")[:kept], "the name")


# Writing


def test_the_array_is_streamed_and_can_be_memory_mapped(tmp_path):
    seen = []

    def pictures():
        for i in range(5):
            seen.append(sorted(path.suffix for path in tmp_path.iterdir()))
            yield np.full((3, 4, 4), i, dtype=np.uint8), (f"k{i}",)

    images.write(tmp_path / "a.npy", (5, 3, 4, 4), ("key",), pictures())
    assert seen[0] == [".csv", ".npy"]  # the temporary files are there while the pictures come
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert isinstance(array, np.memmap)
    assert array[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert (tmp_path / "a.csv").read_text() == "position,key\n0,k0\n1,k1\n2,k2\n3,k3\n4,k4\n"


@pytest.mark.parametrize("given", [2, 4], ids=["too few", "too many"])
def test_a_wrong_number_of_pictures_leaves_nothing(given, tmp_path):
    pictures = ((np.zeros((1, 2, 2), dtype=np.uint8), (i,)) for i in range(given))
    with pytest.raises(ValueError):
        images.write(tmp_path / "a.npy", (3, 1, 2, 2), ("key",), pictures)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("failing", [".npy", ".csv"])
def test_if_one_of_the_two_files_fails_neither_is_left(failing, tmp_path, monkeypatch):
    for name in ("a.npy", "a.csv"):
        (tmp_path / name).write_text("of an earlier run")
    replace = Path.replace

    def refuse(path, to):
        if path.suffix == failing:
            raise OSError(28, "No space left on device")
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        images.write(tmp_path / "a.npy", (1, 1, 2, 2), ("key",), [(np.zeros((1, 2, 2), dtype=np.uint8), (0,))])
    assert not any(tmp_path.iterdir())


def test_the_array_takes_its_place_last(tmp_path, monkeypatch):
    order = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: (order.append(to.name), replace(path, to))[1])
    images.write(tmp_path / "a.npy", (1, 1, 2, 2), ("key",), [(np.zeros((1, 2, 2), dtype=np.uint8), (0,))])
    assert order == ["a.csv", "a.npy"]


def test_the_disk_space_is_claimed_before_the_first_picture(tmp_path):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system cannot claim disk space")
    blocks = []

    def pictures():
        (path,) = tmp_path.glob(".*.npy")
        blocks.append(path.stat().st_blocks * 512)
        yield np.zeros((3, 1000, 1000), dtype=np.uint8), (0,)

    images.write(tmp_path / "a.npy", (1, 3, 1000, 1000), ("key",), pictures())
    assert blocks[0] >= 3_000_000


# CelebA


def test_drawn_faces_make_the_whole_way_through_celeba_s_container(drawn_raw, tmp_path):
    expected = {"train": range(16), "val": range(16, 18), "test": range(18, 20)}
    for split, numbers in expected.items():
        array, keys = prepare(FACES, drawn_raw / "celeba", split, tmp_path / split / f"{split}.npy")
        assert keys == [f"{i + 1:06d}.jpg" for i in numbers]
        assert array.shape == (len(keys), 3, 64, 64)
        for picture, i in zip(array, numbers, strict=True):
            # Up to what JPEG loses.
            assert np.abs(picture.astype(int) - images.square(drawn.face(0, i), 64, None)).mean() < 3


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


def test_crop_and_side_of_the_row_are_used(drawn_raw, target):
    array, _ = prepare({**FACES, "crop": 108, "side": 32, "max_images": 1}, drawn_raw / "celeba", "train", target)
    with zipfile.ZipFile(drawn_raw / "celeba" / celeba.ARCHIVE) as archive:
        picture = Image.open(io.BytesIO(archive.read("img_align_celeba/000001.jpg")))
    assert np.array_equal(array[0], images.square(picture, 32, 108))


def test_a_zip_with_fewer_faces_than_listed_is_used_with_a_warning(faces, target, caplog):
    raw = faces({"000001.jpg": (0, encoded(plain())), "000002.jpg": (0, None)})
    with caplog.at_level(logging.WARNING):
        _, keys = prepare(FACES, raw, "train", target)
    assert keys == ["000001.jpg"]
    assert "holds 1 of the 2 faces listed" in caplog.text


def test_an_undecodable_face_is_named(faces, target):
    raw = faces({"000001.jpg": (0, encoded(plain())), "000002.jpg": (0, b"no picture")})
    assert "000002.jpg" in refusal(FACES, raw, "train", target)


def test_a_damaged_member_is_named(faces, target):
    content = encoded(plain(), "JPEG")
    raw = faces({"000001.jpg": (0, content)})
    archive = (raw / celeba.ARCHIVE).read_bytes()
    (raw / celeba.ARCHIVE).write_bytes(archive.replace(content[100:120], bytes(20), 1))
    sentence = refusal(FACES, raw, "train", target)
    assert "000001.jpg" in sentence and "cannot be read" in sentence


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


@pytest.mark.skipif(not (MIRROR / "celeba").is_dir(), reason="no folder with CelebA's files: set DDGM_MIRROR to one")
def test_real_celeba_photographs_are_prepared(target):
    array, keys = prepare({**FACES, "max_images": 50}, MIRROR / "celeba", "train", target)
    assert array.shape == (50, 3, 64, 64)
    with zipfile.ZipFile(MIRROR / "celeba" / celeba.ARCHIVE) as archive:
        picture = Image.open(io.BytesIO(archive.read(f"img_align_celeba/{keys[49]}")))
    theirs = np.asarray(yardstick(None, 64)(picture)).transpose(2, 0, 1)
    assert np.abs(array[49].astype(int) - theirs).mean() < 0.5


# LSUN


def test_drawn_rooms_make_the_whole_way_through_lsun_s_container(drawn_raw, tmp_path):
    for split, numbers in {"train": range(8), "val": range(8, 10)}.items():
        array, keys = prepare(ROOMS, drawn_raw / "lsun", split, tmp_path / split / f"{split}.npy")
        expected = {hashlib.sha1(b"0 %d" % i).hexdigest(): i for i in numbers}
        assert keys == sorted(expected)
        assert array.shape == (len(keys), 3, 64, 64)
        for picture, key in zip(array, keys, strict=True):
            # Up to what WebP loses.
            own = images.square(drawn.room(0, expected[key]), 64, None)
            assert np.abs(picture.astype(int) - own).mean() < 6


def test_rooms_come_in_key_order_and_max_images_takes_the_first(rooms, target):
    raw = rooms({key: encoded(plain((grey,) * 3)) for key, grey in {"c0": 30, "a1": 10, "b2": 20}.items()})
    array, keys = prepare({**ROOMS, "max_images": 2}, raw, "train", target)
    assert keys == ["a1", "b2"]
    assert array[:, 0, 0, 0].tolist() == [10, 20]


def test_more_max_images_than_rooms_takes_all(rooms, target):
    _, keys = prepare({**ROOMS, "max_images": 100}, rooms({"a1": encoded(plain())}), "train", target)
    assert keys == ["a1"]


def test_the_environment_is_unpacked_beside_the_target_and_nowhere_else(rooms, target, tmp_path, monkeypatch):
    raw = rooms({"a1": encoded(plain())})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    prepare(ROOMS, raw, "train", target)


def test_an_undecodable_room_is_named_and_the_environment_removed(rooms, target):
    raw = rooms({"a1": encoded(plain()), "b2": b"no picture"})
    assert "picture b2 in" in refusal(ROOMS, raw, "train", target)


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


@pytest.mark.skipif(not (MIRROR / "lsun").is_dir(), reason="no folder with LSUN's container: set DDGM_MIRROR to one")
def test_photographs_in_lsun_s_container_are_prepared(target):
    array, keys = prepare(ROOMS, MIRROR / "lsun", "val", target.with_name("val.npy"))
    assert array.shape == (100, 3, 64, 64)
    assert keys == sorted(keys)
    assert array.std(axis=(1, 2, 3)).min() > 5  # no picture is blank


# Drawing


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
