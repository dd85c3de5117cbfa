"""LSUN bedrooms, or pictures in their format: a zip of one LMDB environment a split, of encoded images."""

import shutil
from pathlib import Path
from typing import Any

from ddgm.datasets import registry, stream
from ddgm.datasets.containers import lmdb_container, unpack
from ddgm.errors import UserError


def prepare(row: dict[str, Any], raw: Path, split: str, target: Path, workers: int) -> None:
    """Write the split `target` (prepared.py): pictures (N, 3, side, side), their keys the environment's.

    `raw` is the folder of the zips; the pictures come in the order of their keys, the first row["max_images"] of them
    if that is given. LMDB has to map its file into memory, so the one file of the environment is unpacked from the
    zip into a hidden folder beside `target`, as large as the zip (46 GB for the official training set), and removed
    when the split is done; after an interruption it is not unpacked again. Raises UserError if the zip is missing or
    damaged.
    """
    (path,) = (raw / name for name in registry.raw_files(row, split))
    unpacked = target.with_name(f".{split}_lmdb")
    with stream.alone(unpacked, target):
        try:
            data = unpacked / "data.mdb"
            unpack(path, f"bedroom_{split}_lmdb/data.mdb", data)
            stream.prepare(row, lmdb_container(path, data, row["max_images"]), target, workers)
        except stream.ResumableError:
            raise
        except UserError:
            shutil.rmtree(unpacked, ignore_errors=True)
            raise
        shutil.rmtree(unpacked)
