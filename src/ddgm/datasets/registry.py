"""Which raw files a data set is made of, where they lie, and how to know them again.

The table is registry.csv, beside this file. The Snakefile imports this module: nothing heavy may be imported.
"""

import csv
from dataclasses import dataclass
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
    "four_spin": "ddgm.datasets.two_d",
    "two_spiral": "ddgm.datasets.two_d",
}


@dataclass(frozen=True)
class RawFile:
    """One line of registry.csv: a file as its authors publish it.

    `splits` are those whose preparation reads the file; `bytes` and `md5` are None where not known for
    certain. A mirror keeps the file at {mirror}/{mirror_folder}/{file}.
    """

    kind: str
    file: str
    splits: tuple[str, ...]
    version: str
    urls: tuple[str, ...]
    mirror_folder: str
    bytes: int | None
    md5: str | None
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
                bytes=int(line["bytes"]) if line["bytes"] else None,
                md5=line["md5"] or None,
                licence=line["licence"],
                citation=line["citation"],
            )
            for line in csv.DictReader(lines)
        )


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


def find(dataset: str, row: dict, file: str) -> RawFile:
    """The registry's line for one file of a data set; raises UserError if the data set has no such file."""
    entries = {entry.file: entry for entry in FILES if entry.kind == row["kind"]}
    if not entries:
        raise UserError(f"{dataset} is computed (kind {row['kind']}) and has no raw files: {file!r} cannot be fetched")
    if file not in entries:
        raise UserError(f"{dataset} has no raw file {file!r}: write one of {', '.join(entries)}")
    return entries[file]
