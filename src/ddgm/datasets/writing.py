"""Writing a prepared split (prepared.py): its tables, and the sheet that says what it was made from.

Apart from reading one, since a sheet names what the registry has of the raw files: an address that changes there makes
nothing due that reads a prepared array.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddgm.datasets import registry
from ddgm.datasets.prepared import Split, digest

FAULT_COLUMNS = ("position", "key", "fault", "detail")


def write(
    row: dict[str, Any], target: Path, array: np.ndarray, columns: Sequence[str] = (), values: Iterable[Sequence] = ()
) -> None:
    """Write a split that fits into memory: the key is the position in the original, `columns` are of each example.

    `row` is the data set's in params.yaml; `values` gives, for each example, what `columns` names.
    """
    split = Split(target)
    with split.whole() as (array_path, index, faults, sheet):
        np.save(array_path, array)
        lines = zip(range(len(array)), range(len(array)), [split.name] * len(array), strict=True)
        extra = values if columns else ((),) * len(array)
        write_table(index, index_columns(columns), ((*line, *more) for line, more in zip(lines, extra, strict=True)))
        write_table(faults, FAULT_COLUMNS, ())
        written = digest(array_path), digest(index), digest(faults)
        write_sheet(sheet, row, split, written, array.shape, array.dtype, entries=len(array), faults={})


def index_columns(more: Sequence[str] = ()) -> tuple[str, ...]:
    return ("position", "key", "split", *more)


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Sequence]) -> None:
    """A CSV file, a line at a time: memory does not grow with it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(lines)


def write_sheet(
    path: Path,
    row: dict[str, Any],
    split: Split,
    written: tuple[str, str, str],
    shape: Sequence[int],
    dtype: Any,
    entries: int,
    faults: dict[str, int],
) -> None:
    """What a split is and where it comes from; `entries` were read, `faults` counts them by fault.

    `written` are the digests of its array, its index and its table of faults.
    """
    facts = {
        "dataset": split.dataset,
        "split": split.name,
        "source": registry.source(row),
        "checksums": registry.checksums(row, split.name),
        "files": dict(zip((file.name for file in split.files), written, strict=False)),
        "shape": list(shape),
        "dtype": str(np.dtype(dtype)),
        "entries": entries,
        "left_out": entries - shape[0],
        "faults": dict(sorted(faults.items())),
        # Where the files lay on this machine changes nothing in them.
        "parameters": {key: value for key, value in row.items() if key != "folder"},
    }
    path.write_text(json.dumps(facts, indent=2) + "\n")
