"""Whether what lies here is what it is said to be: every file that a record names, hashed again.

Three records: the registry's checksums of raw files, each model's account of the data and the parameters it was trained
with, and dvc.lock, which has a checksum of every file that a finished job has read or written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ddgm.checkpoint import differences
from ddgm.datasets import registry
from ddgm.datasets.verify import Order, WrongFileError
from ddgm.datasets.verify import verify as verify_file
from ddgm.errors import UserError
from ddgm.experiment import describe, provenance
from ddgm.provenance import checksum


class Finding(NamedTuple):
    """One comparison: of which file, and what does not match, or None."""

    file: Path
    fault: str | None


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


def models(params: dict[str, Any], results: Path, prepared: Path) -> Iterator[Finding]:
    """Trained models against the array they were trained on, and the row that params.yaml has of them now."""
    hashes: dict[Path, str] = {}
    for directory in sorted(path.parent for path in results.glob("*/models/*/experiment.json")):
        about = describe(directory)
        row = params["experiments"].get(about["name"])
        remake = f"train it again with 'snakemake {directory}/weights.safetensors'"
        if row is None:
            yield Finding(directory, f"{directory} is of an experiment that params.yaml does not have: delete it")
            continue
        changed = next(differences(about["row"], row), None)
        what = changed and "{} was trained with {} = {}, and params.yaml has {}: ".format(directory, *changed)
        yield Finding(directory / "experiment.json", what and what + remake)
        array = prepared / about["row"]["dataset"] / "train.npy"
        if array.exists():
            hashes[array] = hashes.get(array) or checksum(array)
            other = hashes[array] != provenance(directory)["data_sha256"]
            yield Finding(
                array, f"{directory} was trained on another {array} than lies here: {remake}" if other else None
            )


def recorded_stages(lock: Path) -> dict[str, Any]:
    """What dvc.lock says of each finished job, none if there is no such file. Raises UserError for a damaged one."""
    try:
        return (yaml.load(lock.read_text(), yaml.CSafeLoader) or {}).get("stages", {})
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, AttributeError):
        raise UserError(f"{lock} is damaged: restore it with 'git checkout {lock}'") from None


def recorded(lock: Path) -> Iterator[Finding]:
    """Files that dvc.lock names and that are there, against its checksums; a file of several stages once."""
    stages = recorded_stages(lock)
    seen: set[tuple[Path, str]] = set()
    for stage, content in stages.items():
        for entry in [*content.get("outs", ()), *content.get("deps", ())]:
            path, expected = Path(entry["path"]), entry.get("md5")
            if expected is None or not path.is_file() or (path, expected) in seen:
                continue
            seen.add((path, expected))
            found = checksum(path, "md5")
            made = entry in content.get("outs", ())
            advice = f"'dvc checkout {path}' restores it" if made else f"'dvc repro {stage}' makes what depends on it"
            fault = f"{path} has the md5 {found}, and {lock} has {expected} (stage {stage}): {advice}"
            yield Finding(path, None if found == expected else fault)


def verify(params: dict[str, Any], raw: Path, prepared: Path, results: Path, lock: Path) -> list[Finding]:
    """Every comparison that can be made here."""
    return [*raw_files(params, raw), *models(params, results, prepared), *recorded(lock)]
