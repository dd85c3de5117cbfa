"""Whether a raw file is the one that a data set means: by checksum, and in words that say what it is instead."""

import gzip
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddgm.datasets import registry
from ddgm.datasets.registry import RawFile
from ddgm.errors import UserError


class SourceError(UserError):
    """A fault of one address, which another address may not have."""


class WrongFileError(SourceError):
    """What came is not the file: none of it may be kept."""


@dataclass(frozen=True)
class Order:
    """One file to fetch: of which data set, how it is known, and where it goes."""

    dataset: str
    row: dict
    entry: RawFile
    target: Path

    @property
    def partial(self) -> Path:
        """The folder that holds what has come so far: gdown gives the file in it a name of its own."""
        return self.target.with_name(f".{self.target.name}.part")

    def kept(self) -> int:
        """How many bytes have come so far."""
        return sum(file.stat().st_size for file in self.partial.glob("*"))

    def by_hand(self) -> str:
        """What a person can do where the program cannot."""
        dataset, entry = self.dataset, self.entry
        browser = f"get it with a browser from {entry.urls[0]}, " if entry.urls and entry.version != "subset" else ""
        row = "" if dataset == "inception" else f"its folder as datasets.{dataset}.folder in params.yaml, or "
        return (
            f"{browser}name the place that has it ({row}DDGM_MIRROR with {entry.mirror_folder}/{entry.file} in it) and "
            f"run the same command again"
        )


def verify_raw_files(dataset: str, row: dict[str, Any], split: str, raw: Path) -> None:
    """Raise UserError unless each raw file of a split that is there is as it was published, or declared.

    Drawn files have no checksum, and missing ones are for the preparation to name. Raises it too for a split that the
    data set does not have.
    """
    files = registry.raw_files(row, split)
    if row["draw"] is None:
        for file in files:
            order = Order(dataset, row, registry.find(dataset, row, file), raw / file)
            if order.target.is_dir():
                raise UserError(f"{order.target} is a folder, and must be the file: remove it")
            if order.target.exists():
                verify(order, order.target, str(order.target), f"remove it and run 'ddgm fetch {dataset} {file}'")


def verify(order: Order, path: Path, source: str, advice: str) -> None:
    """Raise WrongFileError unless the file at `path`, which came from `source`, is the one that was ordered."""
    entry, size = order.entry, path.stat().st_size
    algorithm, expected = entry.checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found == expected and entry.bytes in (None, size):
        return
    refuse_page(order, path, source, advice)
    of_how_many = f" of {entry.bytes:,}" if entry.bytes else ""
    if _is_cut_short(path):
        raise WrongFileError(f"{source} is cut short, it has {size:,}{of_how_many} bytes: {advice}")
    line = f'checksums: {{{entry.file}: "{algorithm}:{found}"}}'
    if entry.version == "subset":
        raise WrongFileError(
            f"{source} is not the {entry.file} that datasets.{order.dataset}.subset declares, its {algorithm} is "
            f"{found} instead of {expected}: if it is the one you mean, write {line} there; if not, {advice}"
        )
    by_row = order.dataset != "inception" and source not in entry.urls
    subset = (
        f"if it is a subset on purpose, write in params.yaml, under datasets.{order.dataset}, "
        f'subset: {{says: "subset: what it is", {line}}}; if not, '
    )
    raise WrongFileError(
        f"{source} is not {entry.file} as published, its {algorithm} is {found} ({size:,} bytes) instead of {expected} "
        f"({entry.bytes:,} bytes): {subset if by_row else ''}{advice}"
    )


def refuse_page(order: Order, path: Path, source: str, advice: str) -> None:
    """Raise WrongFileError if a file, or what has come of it, is an HTML page."""
    with path.open("rb") as file:
        beginning = file.read(1024).lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        raise WrongFileError(
            f"{source} is an HTML page, not {order.entry.file}: open it in a browser to see what it wants, or {advice}"
        )


def _is_cut_short(path: Path) -> bool:
    """Whether a file is empty or an archive (by its content) without its end."""
    with path.open("rb") as file:
        beginning = file.read(4)
    if beginning[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                while file.read(2**20):
                    pass
        except EOFError:
            return True
        except (OSError, zlib.error):
            return False
    # A zip's table of contents is at its end.
    return not beginning or (beginning == b"PK\x03\x04" and not zipfile.is_zipfile(path))
