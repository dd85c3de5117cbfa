"""LSUN bedrooms, or pictures in their format: a zip of one LMDB environment a split, of encoded images."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np

from ddgm.datasets import images, registry
from ddgm.errors import UserError


def prepare(row: dict, raw: Path, split: str, target: Path) -> None:
    """Write `target` ({split}.npy, uint8 (N, 3, side, side), 0 to 255) and its index: position, key.

    `raw` is the folder of the zips; the pictures come in the order of their keys (hex digests), the first
    row["max_images"] of them if that is given. A zip cannot be memory-mapped, so the environment is
    unpacked beside `target` (as large as the zip: 43 GB for the official training set) and removed at the
    end, also after a failure. Raises UserError if the zip is missing or damaged or a picture in it cannot
    be decoded.
    """
    (archive_path,) = (raw / name for name in registry.raw_files(row, split))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{split}_lmdb.") as folder:
        _unpack(archive_path, f"bedroom_{split}_lmdb/data.mdb", Path(folder) / "data.mdb")
        try:
            _write(row, Path(folder), archive_path, target)
        except lmdb.Error as error:
            raise UserError(
                f"{archive_path} holds no readable LMDB environment ({error}): delete it and fetch it again"
            ) from error


def _unpack(archive_path: Path, member: str, data: Path) -> None:
    with images.open_zip(archive_path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{archive_path} has no member {member}: delete it and fetch it again")
        try:
            with archive.open(member) as source, data.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**24)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{member} in {archive_path} cannot be read ({error}): delete the zip and fetch it again"
            ) from error


def _write(row: dict, folder: Path, archive_path: Path, target: Path) -> None:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment:
        pages = environment.info()["last_pgno"] + 1
        if pages * environment.stat()["psize"] > (folder / "data.mdb").stat().st_size:
            # Reading past the end of a memory map would kill the process (SIGBUS).
            raise UserError(f"data.mdb in {archive_path} is cut short: delete the zip and fetch it again")
        count = environment.stat()["entries"]
        if row["max_images"] is not None:
            count = min(count, row["max_images"])
        if count == 0:
            raise UserError(f"data.mdb in {archive_path} holds no pictures: delete the zip and fetch it again")

        def rooms() -> Iterator[tuple[np.ndarray, tuple[str]]]:
            with environment.begin() as transaction, transaction.cursor() as cursor:
                for (key, value), _ in zip(cursor, range(count), strict=False):
                    name = key.decode("ascii", "backslashreplace")
                    where = f"picture {name} in {archive_path}"
                    yield images.square(images.decode(value, where), row["side"], row["crop"], where), (name,)

        images.write(target, (count, 3, row["side"], row["side"]), ("key",), rooms())
