"""What dvc.yaml and dvc.lock say of each stage. Read without DVC, which takes a second to import, at each run."""

from pathlib import Path
from typing import Any

import yaml

from ddgm.errors import UserError
from ddgm.parameters import LOADER


def stages_of(file: Path) -> dict[str, Any]:
    """What dvc.yaml or dvc.lock says of each stage, nothing where it is missing or empty; YAMLError if damaged."""
    try:
        content = (yaml.load(file.read_text(), LOADER) if file.exists() else None) or {}
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"{file} is no text") from error
    stages = (content.get("stages") or {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
        raise yaml.YAMLError(f"{file} has no table of stages")
    return stages


def recorded_stages(lock: Path) -> dict[str, Any]:
    """What dvc.lock says of each finished job, none if there is no such file. Raises UserError for a damaged one."""
    try:
        return stages_of(lock)
    except yaml.YAMLError:
        raise UserError(f"{lock} is damaged: {restored(lock)}") from None


def restored(lock: Path) -> str:
    """What to do about a damaged dvc.lock, as a merge left half-done leaves it: the end of a sentence."""
    back = f"restore it with 'git checkout HEAD {lock}', or delete it if it was never committed"
    return f"finish a merge as docs/engines.md says, {back}"
