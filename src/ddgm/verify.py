"""Whether what lies here is what it is said to be: every file that a record names, hashed again.

Four records: the registry's checksums of raw files, each net's account of the data and the parameters it was trained
with, dvc.lock, which has a checksum of every file that a finished job has read or written, and the jobs' own
(record.py).
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ddgm import record
from ddgm.checkpoint import differences
from ddgm.classifier import CLASSIFIER
from ddgm.datasets import registry
from ddgm.datasets.prepared import digest, read_sheet
from ddgm.datasets.verify import Order, WrongFileError
from ddgm.datasets.verify import verify as verify_file
from ddgm.errors import UserError, again
from ddgm.experiment import EXPERIMENT, WEIGHTS, provenance
from ddgm.provenance import checksum
from ddgm.row import untitled
from ddgm.stages import recorded_stages

# What lies in a branch's folder and is no result: records, and trainings on the way.
NO_RESULTS = (record.FOLDER, "state")


class Finding(NamedTuple):
    """One comparison: of which file, and what does not match, or None; or a recorded file that is `absent`."""

    file: Path
    fault: str | None
    absent: bool = False


def raw_files(params: dict[str, Any], raw: Path) -> Iterator[Finding]:
    """Raw files that are there, against the checksum that the registry, or the row of a subset, has of them."""
    sets = {"inception": registry.INCEPTION} | params["datasets"]
    for name, row in sets.items():
        for file in () if row.get("draw") else registry.files(row):
            path = raw / name / file
            if path.is_file():
                order = Order(name, row, registry.find(name, row, file), path)
                advice = f"remove it and run 'ddgm fetch {name} {file}'"
                try:
                    verify_file(order, path, str(path), advice)
                    yield Finding(path, None)
                except WrongFileError as error:
                    yield Finding(path, str(error))


def prepared_files(prepared: Path) -> Iterator[Finding]:
    """Prepared arrays, their indices and tables of faults, against the sheet beside them."""
    for sheet in sorted(prepared.glob("*/*.json")):
        array = sheet.with_suffix(".npy")
        try:
            files = read_sheet(array)["files"]
        except UserError as error:
            yield Finding(sheet, str(error))
            continue
        except KeyError:
            yield Finding(sheet, f"{sheet} is of an older version, without checksums: {again(array)}")
            continue
        for name, known in files.items():
            path = sheet.with_name(name)
            if path.is_file():
                other = digest(path) != known
                yield Finding(path, f"{path} is not what {sheet} says: {again(array)}" if other else None)


# Of each kind of trained net: its folder under a branch, the file of its row, and params.yaml's section.
NETS = (("models", EXPERIMENT, "experiments"), ("classifiers", CLASSIFIER, "classifiers"))


def nets(params: dict[str, Any], results: Path, prepared: Path) -> Iterator[Finding]:
    """Trained nets against the array they were trained on, and the row that params.yaml has of them now."""
    hashes: dict[Path, str] = {}
    for kind, file, section in NETS:
        for path in sorted(results.glob(f"*/{kind}/*/{file}")):
            yield from net(path, params[section], prepared, hashes)


def net(file: Path, rows: dict[str, Any], prepared: Path, hashes: dict[Path, str]) -> Iterator[Finding]:
    """One net, by the file of its row; `hashes` keeps the arrays' checksums."""
    directory = file.parent
    remake = f"train it again with 'snakemake {directory / WEIGHTS}'"
    try:
        trained = json.loads(file.read_text())["row"]
        about = provenance(directory)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        yield Finding(file, f"{file} is damaged: {remake}")
        return
    except UserError as error:
        yield Finding(file, str(error))
        return
    row = rows.get(directory.name)
    if row is None:
        yield Finding(file, f"{directory} is of a row that params.yaml does not have: delete it")
        return
    changed = next(differences(*map(untitled, (trained, row))), None)
    what = changed and "{} was trained with {} = {}, and params.yaml has {}: ".format(directory, *changed)
    yield Finding(file, what and what + remake)
    array = prepared / trained.get("dataset", directory.name) / "train.npy"
    if array.exists():
        hashes[array] = hashes.get(array) or checksum(array)
        other = hashes[array] != about["data_sha256"]
        yield Finding(array, f"{directory} was trained on another {array} than lies here: {remake}" if other else None)


def restores(path: Path) -> str:
    """What brings a result back as it was recorded, in half a sentence: tables that git keeps DVC has no copy of."""
    remake = f"delete it, and 'snakemake {path}' makes it"
    try:
        asked = subprocess.run(["git", "check-ignore", "--quiet", "--", path], capture_output=True).returncode
    except OSError:  # no git
        return remake
    ignored, kept = 0, 1
    if asked == ignored:
        return f"'dvc checkout --force {path}' restores it, after 'dvc fetch {path}' where it was made elsewhere"
    return f"'git checkout {path}' restores it if it was committed; else {remake}" if asked == kept else remake


def recorded(stages: dict[str, Any], lock: Path) -> Iterator[Finding]:
    """Files that dvc.lock names, against its checksums, and the results among them that are not here, once each."""
    seen: set[tuple[Path, str | None]] = set()
    for stage, content in stages.items():
        outs = content.get("outs", [])
        for entry in [*outs, *content.get("deps", ())]:
            path, expected = Path(entry["path"]), entry.get("md5")
            if (path, expected) in seen:
                continue
            seen.add((path, expected))
            if not path.is_file():
                if entry in outs:
                    yield Finding(path, None, absent=True)
                continue
            if expected is None:
                continue
            found = checksum(path, "md5")
            if found == expected:
                yield Finding(path, None)
                continue
            advice = restores(path) if entry in outs else f"'dvc repro {stage}' follows it"
            yield Finding(path, f"{path} has the md5 {found}, and {lock} has {expected} (stage {stage}): {advice}")


def unrecorded(stages: dict[str, Any], lock: Path, results: Path) -> Iterator[Finding]:
    """Results that dvc.lock does not name: against the record of the job that made them, if there is one."""
    known = {Path(entry["path"]) for content in stages.values() for entry in content.get("outs", ())}
    records: dict[Path, set[str]] = {}
    for _, about in record.read(results):
        for file, md5 in about["files"].items():
            records.setdefault(Path(file), set()).add(md5)
    for path in sorted(results.glob("*/**/*")):
        place = path.relative_to(results).parts[1]
        if path in known or place in NO_RESULTS or path.name.startswith(".") or not path.is_file():
            continue
        if path not in records:
            yield Finding(
                path, f"{path} is in no record, neither {lock} nor its job's: make it with 'snakemake {path}'"
            )
            continue
        other = checksum(path, "md5") not in records[path]
        yield Finding(
            path, f"{path} is not what its job wrote: delete it and make it with 'snakemake {path}'" if other else None
        )


def verify(params: dict[str, Any], raw: Path, prepared: Path, results: Path, lock: Path) -> list[Finding]:
    """Every comparison that can be made here."""
    stages = recorded_stages(lock)
    return [
        *raw_files(params, raw),
        *prepared_files(prepared),
        *nets(params, results, prepared),
        *recorded(stages, lock),
        *unrecorded(stages, lock, results),
    ]
