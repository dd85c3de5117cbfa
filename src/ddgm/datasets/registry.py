"""Which raw files a data set is made of, where they lie, and how to know them again.

The table is registry.csv, beside this file. The Snakefile imports this module: nothing heavy may be imported.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from ddgm.errors import UserError

SPLITS = {
    "mnist": ("train", "test"),
    "celeba": ("train", "val", "test"),
    "lsun": ("train", "val"),
    "four_spin": ("train", "test"),
    "two_spiral": ("train", "test"),
}

MODULES = {
    "mnist": "ddgm.datasets.mnist",
    "celeba": "ddgm.datasets.celeba",
    "lsun": "ddgm.datasets.lsun",
    "four_spin": "ddgm.datasets.drawn_points",
    "two_spiral": "ddgm.datasets.drawn_points",
}


@dataclass(frozen=True)
class RawFile:
    """One line of registry.csv: a file as its authors publish it, or, from `find`, as a data set declares it.

    `splits` are those whose preparation reads the file; `checksum` is "md5:..." or "sha256:..."; `bytes` is None
    for a declared subset. A mirror keeps the file at {mirror}/{mirror_folder}/{file}.
    """

    kind: str
    file: str
    splits: tuple[str, ...]
    version: str
    urls: tuple[str, ...]
    mirror_folder: str
    bytes: int | None
    checksum: str
    licence: str
    citation: str


def _read(table: Path) -> tuple[RawFile, ...]:
    with table.open(newline="", encoding="utf-8") as lines:
        return tuple(
            RawFile(
                kind=line["kind"],
                file=line["file"],
                splits=tuple(line["split"].split()),
                version=line["version"],
                urls=tuple(line["url"].split()),
                mirror_folder=line["mirror_folder"],
                bytes=int(line["bytes"]),
                checksum=line["checksum"],
                licence=line["licence"],
                citation=line["citation"],
            )
            for line in csv.DictReader(lines)
        )


# What a net that others trained is fetched as: like a data set, with no row of its own in params.yaml.
INCEPTION = {"kind": "inception", "draw": None, "folder": None, "subset": None}
FILES = _read(Path(__file__).with_name("registry.csv"))


def splits(row: dict) -> tuple[str, ...]:
    """The names of the splits of a data set (a row of params.yaml)."""
    return SPLITS[row["kind"]]


def module(row: dict) -> str:
    """The full name of the module that prepares a data set (a row of params.yaml)."""
    return MODULES[row["kind"]]


def raw_files(row: dict, split: str) -> list[str]:
    """The names of the files in data/raw/{dataset}/ which the preparation of one split reads.

    Empty for the 2D sets, which are computed. Raises UserError for a split that the data set does not have.
    """
    if split not in splits(row):
        raise UserError(
            f"a data set of kind {row['kind']} has no split {split!r}: write one of {', '.join(splits(row))}"
        )
    return [entry.file for entry in FILES if entry.kind == row["kind"] and split in entry.splits]


def files(row: dict) -> list[str]:
    """The names of all raw files of a data set, whatever the split; empty for the 2D sets."""
    return [entry.file for entry in FILES if entry.kind == row["kind"]]


def find(dataset: str, row: dict, file: str) -> RawFile:
    """How to know one file of a data set: the registry's line, with the row's own checksum where a subset is declared.

    Raises UserError if the data set has no such file.
    """
    if not files(row):
        raise UserError(f"{dataset} is computed (kind {row['kind']}) and has no raw files: {file!r} cannot be fetched")
    if file not in files(row):
        raise UserError(f"{dataset} has no raw file {file!r}: write one of {', '.join(files(row))}")
    entry = next(entry for entry in FILES if entry.kind == row["kind"] and entry.file == file)
    if is_subset(row, file):
        return replace(entry, version="subset", bytes=None, checksum=row["subset"]["checksums"][file])
    return entry


def is_subset(row: dict, file: str) -> bool:
    """Whether a data set declares that its copy of a file is not the published one."""
    return row["draw"] is None and row["subset"] is not None and file in row["subset"]["checksums"]


def checksums(row: dict, split: str) -> dict[str, str]:
    """The raw files of one split, and the checksum that each was verified with; empty where nothing is fetched."""
    if row.get("draw"):
        return {}
    return {file: find(row["kind"], row, file).checksum for file in raw_files(row, split)}


def source(row: dict) -> str:
    """What a data set's pictures or points are, in one phrase for provenance and reports."""
    if not files(row):
        return "computed"
    if row["draw"]:
        # Those of MNIST's stand-in were written by hand.
        what = "scikit-learn's digits" if row["kind"] == "mnist" else "drawn by code"
        return f"{what}: {row['draw']['images']} pictures, seed {row['draw']['seed']}"
    what = row["subset"]["says"] if row["subset"] else "original files"
    return f"{what}, the first {row['max_images']} pictures of each split" if row.get("max_images") else what
