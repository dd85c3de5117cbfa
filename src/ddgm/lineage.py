"""Where a result comes from: its job, code, parameters and inputs by dvc.lock, what it ran on by the job's record, and
the data and nets behind it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddgm import record
from ddgm.classifier import CLASSIFIER
from ddgm.datasets.prepared import source_of
from ddgm.errors import UserError
from ddgm.experiment import EXPERIMENT, PROVENANCE, WEIGHTS
from ddgm.provenance import checksum
from ddgm.stages import recorded_stages

# What belongs to the code of a job, whatever else it reads.
CODE = ("src/", "workflow/")
DATA = "data"
PREPARED = Path(DATA, "prepared")
# What each kind of net keeps its parameters in.
SETTINGS = {"models": EXPERIMENT, "classifiers": CLASSIFIER}  # by the folder of such nets


def lines(result: Path, lock: Path, results: Path) -> Iterator[str]:
    """What `ddgm provenance` says of a result. Raises UserError for one that `lock` does not know."""
    stages = recorded_stages(lock)
    makers = {entry["path"]: name for name, stage in stages.items() for entry in stage.get("outs", ())}
    path = result.as_posix()
    if path not in makers:
        if not path.startswith((f"{results}/", f"{DATA}/")):
            raise UserError(
                f"{result} is made by no job: write a file in {results}/ or {DATA}/, as dvc.yaml names them"
            )
        raise UserError(
            f"{result} is no result that {lock} has recorded: make it with 'snakemake {result}', "
            "or record what is finished with 'python workflow/engines.py sync'"
        )
    stage = stages[makers[path]]
    (md5,) = [entry["md5"] for entry in stage["outs"] if entry["path"] == path]
    yield f"{result}: made by {makers[path]}, md5 {md5}{state(result, md5)}"
    job = record.of_file(result, md5, results)
    yield f"  {ran(job) if job else 'no record here of when and on what its job ran'}"
    read = {Path(entry["path"]): entry["md5"] for entry in stage.get("deps", ()) if "md5" in entry}
    for file, md5 in sorted(read.items()):
        yield f"  {'code ' if file.as_posix().startswith(CODE) else 'input'} {file}, md5 {md5}{state(file, md5)}"
    for key, value in stage.get("params", {}).get("params.yaml", {}).items():
        yield f"  parameter {key}: {json.dumps(value)}"
    outs = outputs_behind(path, stages, makers)
    for array in sorted(file for file in outs if file.is_relative_to(PREPARED) and file.suffix == ".npy"):
        yield f"  data {array.parent.name}, split {array.stem}: {source_of(array)}, md5 {outs[array]}"
    for folder in sorted(file.parent for file in outs if file.name == PROVENANCE):
        yield f"  net {folder.parent.name}/{folder.name}: {told(folder)}"
        weights = folder / WEIGHTS
        if weights != result:
            yield f"      its parameters: 'ddgm provenance {weights}'"


def ran(job: dict[str, Any]) -> str:
    """The record of a job in a line."""
    return (
        f"'{job['command']}' in {job['seconds']} s, finished {job['finished']}; {in_words(job['versions'])}; "
        f"{job['device']}"
    )


def in_words(versions: dict[str, str]) -> str:
    return ", ".join(f"{library} {version}" for library, version in versions.items())


def state(file: Path, md5: str) -> str:
    """What has become of a file since it was recorded, in words to append."""
    if not file.is_file():
        return ", not here"
    return "" if checksum(file, "md5") == md5 else ", and another one lies here now"


def outputs_behind(path: str, stages: dict[str, Any], makers: dict[str, str]) -> dict[Path, str]:
    """All outputs, with their md5, of a result's job and of those that made what it read, and so on.

    What trained nets lie behind a result, an energy and generator or a classifier, and what data, is among them.
    """
    waiting, seen = [path], set()
    outs: dict[Path, str] = {}
    while waiting:
        name = makers.get(waiting.pop())
        if name is None or name in seen:
            continue
        seen.add(name)
        outs |= {Path(entry["path"]): entry["md5"] for entry in stages[name].get("outs", ())}
        waiting += [entry["path"] for entry in stages[name].get("deps", ())]
    return outs


def told(folder: Path) -> str:
    """What a net's own record says, in a line."""
    chosen = folder / SETTINGS[folder.parent.name]
    try:
        about, settings = json.loads((folder / PROVENANCE).read_text()), json.loads(chosen.read_text())
    except FileNotFoundError:
        return f"its record is not here: 'dvc pull {folder / PROVENANCE} {chosen}' fetches it"
    except json.JSONDecodeError:
        return f"its record is damaged: 'dvc checkout --force {folder / PROVENANCE} {chosen}' restores it"
    seeds = ", ".join(str(seed) for seed in settings.get("row", settings)["seeds"])
    # What records that are older than these two keys lack.
    earlier, held = about.get("earlier_code"), about.get("data_held")
    begun = f"begun with ddgm {', '.join(earlier)}; " if earlier else ""
    return (
        f"seeds {seeds}; {in_words(about['versions'])}; {begun}{about['device']}; "
        f"data {about['data_source']}, sha256 {about['data_sha256']}{f', {held}' if held else ''}; {about['seconds']} s"
    )
