"""A prepared split on the disk: the array, its index, the entries with a fault, and a sheet that says what it all is.

    {split}.npy           the examples; pictures are uint8 (N, C, H, W), points float32 (N, 2)
    {split}.csv           a line an example: position, key (its name in the original files), split, and labels
    {split}_faults.csv    a line an entry with something wrong: position (empty if left out), key, fault, detail
    {split}.json          data set, split, source ("subset: ..." where it is one), checksums of the raw files and of the
                          other three, counts, parameters

The same raw files and parameters give the same bytes in all four.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddgm.errors import UserError, again
from ddgm.whole_file import whole_file


@dataclass(frozen=True)
class Split:
    """The paths of a split's four files, by the path of its array, data/prepared/{dataset}/{split}.npy."""

    array: Path

    @property
    def dataset(self) -> str:
        return self.array.parent.name

    @property
    def name(self) -> str:
        return self.array.stem

    @property
    def index(self) -> Path:
        return self.array.with_suffix(".csv")

    @property
    def faults(self) -> Path:
        return self.array.with_name(f"{self.name}_faults.csv")

    @property
    def sheet(self) -> Path:
        return self.array.with_suffix(".json")

    @property
    def files(self) -> tuple[Path, ...]:
        """All four, the array first."""
        return self.array, self.index, self.faults, self.sheet

    @contextmanager
    def whole(self) -> Iterator[tuple[Path, ...]]:
        """Give four temporary paths; on success they take their places, the array last, on failure none is there."""
        try:
            # An index must never stand beside the array of an earlier run.
            self.remove()
            with ExitStack() as stack:
                yield tuple(stack.enter_context(whole_file(file)) for file in self.files)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        for file in self.files:
            file.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """A file's checksum as a sheet has it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_sheet(array: Path, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """The sheet of a prepared array; UserError if it is missing, damaged, or lacks one of the keys `wanted`."""
    path = Split(array).sheet
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: make it with 'snakemake {path}'") from None
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or not facts.keys() >= set(wanted):
        raise UserError(f"{path} is damaged: {again(path)}")
    return facts


def read(array: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """A prepared array, in memory or, with "r", left on the disk.

    Raises UserError if it is missing or damaged, or holds other things than points or pictures, or none of them, or
    what is no finite number.
    """
    try:
        examples = np.load(array, mmap_mode=mmap_mode)
    except FileNotFoundError:
        raise UserError(f"{array} is missing: make it with 'snakemake {array}'") from None
    # A file that begins as a zip is one to NumPy.
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{array} is damaged: {again(array)}") from None
    # A whole zip gives an archive of arrays.
    shape, dtype = getattr(examples, "shape", ()), str(getattr(examples, "dtype", "an archive"))
    points = dtype == "float32" and shape[1:] == (2,)
    if not shape or not shape[0] or not (points or (dtype == "uint8" and len(shape) == 4)):
        raise UserError(
            f"{array} holds {dtype} {shape}, but points, float32 (N, 2), or pictures, uint8 (N, C, H, W), are needed, "
            f"at least one: {again(array)}"
        )
    if points and not np.isfinite(examples).all():
        raise UserError(f"{array} holds points that are no finite numbers: {again(array)}")
    return examples


def source_of(array: Path) -> str:
    """What a prepared array was made from, in one phrase: "original files", "subset: ...", "drawn by code: ...", ..."""
    return (
        read_sheet(array, ["source"])["source"]
        if Split(array).sheet.exists()
        else "unknown: there is no sheet beside the array"
    )
