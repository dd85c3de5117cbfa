"""Tables, records and npz files of results, read and checked: one that is damaged or of another make is one sentence.

Figures and metrics read by it: nothing here imports torch.
"""

import errno
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddgm.errors import UserError, again

# What NumPy raises for an npz file that was cut or has other bytes than were written.
UNREADABLE = (EOFError, ValueError, TypeError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error)

# The columns that hold numbers in whatever table has them.
NUMBERS = ("seed", "step", "value")


def read_arrays(path: Path, wanted: Mapping[str, tuple[str | int, ...]], others: bool = False) -> dict[str, np.ndarray]:
    """The arrays of the npz `path` that `wanted` names, each with its shape checked, and with `others` the rest too.

    A shape is given as numbers and words: a number must be met, a word stands for any length from 1 up, and the
    same word for the same length in all arrays of the file. Raises UserError naming file, array and shape.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in wanted if name not in archive]
            if missing:
                raise UserError(f"{path} holds no array {missing[0]!r}, only {sorted(archive)}: {again(path)}")
            arrays = {name: archive[name] for name in (archive if others else wanted)}
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with 'snakemake {path}'") from None
    except (OSError, *UNREADABLE) as fault:
        # EINVAL: a place that a cut file lacks. Of a disk's fault, or of rights, the command says another thing.
        if isinstance(fault, OSError) and fault.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{path} cannot be read as an npz file ({fault}): {again(path)}") from fault
    lengths: dict[str, int] = {}
    for name, shape in wanted.items():
        require_shape(path, name, arrays[name], shape, lengths)
    return arrays


def require_shape(
    path: Path, name: str, array: np.ndarray, shape: tuple[str | int, ...], lengths: dict[str, int] | None = None
) -> None:
    """Raise UserError, naming file and shape, unless `array` has `shape` (as in `read_arrays`).

    `lengths` holds what the words of `shape` stand for so far, and takes up new ones.
    """
    lengths = {} if lengths is None else lengths
    fits = len(array.shape) == len(shape) and all(
        length >= 1 and length == (lengths.setdefault(word, length) if isinstance(word, str) else word)
        for length, word in zip(array.shape, shape, strict=True)
    )
    if not fits:
        needed = ", ".join(f"{word}={lengths[word]}" if word in lengths else str(word) for word in shape)
        raise UserError(f"{path}: {name!r} has the shape {array.shape}, but ({needed}) is needed: {again(path)}")


def read_record(path: Path) -> dict[str, Any]:
    """A record, settings or provenance, kept as JSON: UserError where it is damaged."""
    try:
        about = json.loads(path.read_text())
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise UserError(f"{path} is damaged: restore it, or make again what it is a record of")
    return about


def read_table(path: Path, columns: Sequence[str], may_be_empty: bool = False, as_text: bool = False) -> pd.DataFrame:
    """The csv file `path`, its numbers too `as_text` if asked for.

    Raises UserError if it lacks one of `columns`, has no row though it must, or what is no number in one of NUMBERS.
    """
    try:
        table = pd.read_csv(path, **({"dtype": str, "keep_default_na": False} if as_text else {}))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with 'snakemake {path}'") from None
    except ValueError as fault:
        why = " ".join(str(fault).split())
        raise UserError(f"{path} cannot be read as a csv file ({why}): {again(path)}") from fault
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; a header {','.join(columns)} is needed: {again(path)}")
    if table.empty and not may_be_empty:
        raise UserError(f"{path} has a header but no row: {again(path)}")
    for column in () if as_text or table.empty else (name for name in NUMBERS if name in table.columns):
        if not pd.api.types.is_numeric_dtype(table[column]):
            wrong = table.loc[pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna(), column]
            # None where each is a number, and one too long for any.
            says = repr(wrong.iloc[0]) if len(wrong) else "a number out of range"
            raise UserError(f"{path} has {says} under {column}, where numbers stand: {again(path)}")
    return table
