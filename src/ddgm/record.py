"""What each finished job leaves beside its results: its command, code, libraries, device, time and their checksums.

A record is a small text file, results/{branch}/provenance/**/*.json, that goes into git with dvc.lock. In the results
themselves it would make their bytes depend on the commit, and all that is made from them be made again with each.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddgm.provenance import checksum, device_in_use, versions
from ddgm.whole_file import whole_file

FOLDER = "provenance"
LEFT_OUT = ("--params", "--log")  # what dvc.lock has in full, and what changes no byte


def write(command: list[str], files: Iterable[Path], results: Path, seconds: float) -> None:
    """Record a job by those of the `files` it wrote that are left in a branch's folder of `results`; none, no record.

    The record's name is that of the first of them.
    """
    left = sorted({file for file in files if file.is_relative_to(results) and file.is_file()})
    if not left:
        return
    branch, *place = left[0].relative_to(results).parts
    about = {
        "command": " ".join(asked(command)),
        "files": {file.as_posix(): checksum(file, "md5") for file in left},
        "versions": versions(),
        "device": device_in_use(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }
    with whole_file(results.joinpath(branch, FOLDER, *place[:-1], f"{place[-1]}.json")) as path:
        path.write_text(json.dumps(about, indent=2) + "\n")


def asked(command: list[str]) -> Iterator[str]:
    """The words of a command without the options LEFT_OUT and their values."""
    words = iter(command)
    for word in words:
        if word in LEFT_OUT:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in LEFT_OUT)):
            yield word


def read(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record that lies here, with its file; what is no record any more is passed over."""
    for file in sorted(results.glob(f"*/{FOLDER}/**/*.json")):
        try:
            about = json.loads(file.read_text())
            _ = about["files"], about["versions"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            continue
        yield file, about


def of_file(result: Path, md5: str, results: Path) -> dict[str, Any] | None:
    """The record of the job that made this version of a result, or None."""
    found = (about for _, about in read(results) if about["files"].get(result.as_posix()) == md5)
    return next(found, None)
