"""Photographs become one array: decoded, cropped and resized as the lab did, streamed into {split}.npy.

The lab (the paper's first author's repository, FACTS section 1) decodes the whole picture, resizes the
shorter side to 64 with Pillow's `thumbnail(..., ANTIALIAS)` and takes the middle 64x64. ANTIALIAS is
today's LANCZOS; `thumbnail` now defaults to BICUBIC with a reducing gap of 2, so it is not called here:
`resize` with LANCZOS and no gap is the lab's filter. JPEG draft decoding is not used either: faster, but
other pixels (0.8/255).
"""

import csv
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddgm.errors import UserError
from ddgm.whole_file import whole_file


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file, open for reading; UserError if it is missing or no whole zip."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it first") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is no whole zip file ({error}): delete it and fetch it again") from error


def read_member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    """One member of a zip, checked against its checksum; UserError, with `name` in it, if it is damaged."""
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{name} cannot be read ({error}): delete the zip and fetch it again") from error


def decode(data: bytes, name: str) -> Image.Image:
    """An encoded picture (JPEG, WebP, ...) as an RGB image; grey, CMYK and palettes converted, alpha dropped.

    `name` says in the error which picture it was. Raises UserError if the bytes are no whole picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(
            f"{name} cannot be decoded as a picture ({len(data)} bytes; {error}): delete the archive and fetch it again"
        ) from error


def square(picture: Image.Image, side: int, crop: int | None, name: str = "the picture") -> np.ndarray:
    """The middle of an RGB picture as a uint8 array (3, side, side), values 0 to 255.

    crop None: the shorter side is resized to `side` pixels, then the middle side x side is taken. crop a
    number: the middle crop x crop pixels are taken, then resized to side x side. Odd margins lose the
    smaller half on the left and at the top. Unlike `thumbnail`, small pictures are enlarged, and square
    ones are resized like others. Raises UserError if `crop` is larger than the picture.
    """
    if crop is None:
        shorter = min(picture.size)
        width, height = (side * length // shorter for length in picture.size)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        picture = _middle(picture, side)
    else:
        if crop > min(picture.size):
            raise UserError(
                f"crop: {crop} is larger than {name}, {picture.width}x{picture.height} pixels: "
                f"write a crop of at most {min(picture.size)}, or crop: null"
            )
        picture = _middle(picture, crop)
        if crop != side:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _middle(picture: Image.Image, side: int) -> Image.Image:
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def write(
    target: Path,
    shape: tuple[int, int, int, int],
    columns: Sequence[str],
    pictures: Iterable[tuple[np.ndarray, Sequence[object]]],
) -> None:
    """Write a split: `target`, a uint8 array (N, C, H, W), and beside it {split}.csv, its index.

    `pictures` gives, N times, an array (C, H, W) and the index's values for `columns`; the index's first
    column, `position`, counts the pictures from 0. Pictures are streamed to the disk: memory does not grow
    with N. The array takes its place last, and on any failure neither file is there.
    """
    index = target.with_suffix(".csv")
    try:
        # An index must never stand beside the array of an earlier run.
        target.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        with whole_file(target) as array_path, whole_file(index) as index_path:
            array = np.lib.format.open_memmap(array_path, mode="w+", dtype=np.uint8, shape=shape)
            _reserve(array_path)
            with index_path.open("w", newline="", encoding="utf-8") as lines:
                rows = csv.writer(lines, lineterminator="\n")
                rows.writerow(("position", *columns))
                for position, (picture, values) in zip(range(shape[0]), pictures, strict=True):
                    array[position] = picture
                    rows.writerow((position, *values))
            array.flush()
    except BaseException:
        target.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        raise


def _reserve(path: Path) -> None:
    """Claim the disk space of a file now: a full disk met by a memory map would kill the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
