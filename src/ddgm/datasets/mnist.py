"""MNIST, or digits in its format: two gzipped idx files a split become one array and its index of labels.

An idx file is big-endian: two zero bytes, the type (8: unsigned byte), the number of dimensions, each
dimension in 4 bytes, then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ddgm.datasets import registry
from ddgm.datasets.writing import write
from ddgm.errors import UserError

UNSIGNED_BYTE = 0x08


def prepare(row: dict[str, Any], raw: Path, split: str, target: Path, workers: int = 1) -> None:
    """Write the split `target` (prepared.py): digits (N, 1, H, W), each with its label in the index.

    `raw` is the folder of the .gz files. H and W are what the file says: 28x28 for MNIST, 8x8 for the toy
    digits. The key is the digit's position in its file. One process does it all in a second: `workers` is not
    used. Raises UserError if a file is missing, damaged or contradictory.
    """
    images_file, labels_file = (raw / name for name in registry.raw_files(row, split))
    digits = read_idx(images_file, dimensions=3)
    labels = read_idx(labels_file, dimensions=1)
    if len(digits) != len(labels):
        raise UserError(
            f"{images_file} holds {len(digits)} digits and {labels_file} {len(labels)} labels: delete both "
            "and fetch them again"
        )
    if labels.max() > 9:
        raise UserError(f"{labels_file} holds the label {labels.max()}, and a digit is 0 to 9: fetch it again")
    write(row, target, digits[:, None], ("label",), ((int(label),) for label in labels))


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The values of a gzipped idx file of unsigned bytes, as a uint8 array of that many dimensions.

    Raises UserError, naming the file, if it is missing, not whole, or its header and size contradict each
    other.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it first, with 'snakemake {path}'") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip file ({error}): delete it and fetch it again") from error
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if content[:4] != expected:
        raise UserError(
            f"{path} begins with the magic number 0x{content[:4].hex()}, and an idx file of bytes "
            f"in {dimensions} dimensions with 0x{expected.hex()}: delete it and fetch it again"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise UserError(f"{path} ends within its idx header, after {len(content)} bytes: fetch it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if 0 in shape:
        raise UserError(f"{path} has the dimensions {'x'.join(map(str, shape))}, an empty array: fetch it again")
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} holds {len(content) - start} values, and its header says {'x'.join(map(str, shape))}, "
            f"{math.prod(shape)}: delete it and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
