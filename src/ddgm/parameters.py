"""params.yaml: read, checked against the schema, and a branch found. Imports nothing heavy: the Snakefile uses it."""

import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from ddgm.errors import UserError

SCHEMA = Path(__file__).parents[2] / "workflow" / "schemas" / "params.schema.yaml"
FIGURES = ("fig2", "fig3", "fig4")
BRANCHES = ("paper", "toy")


def load(source: str) -> dict[str, Any]:
    """Parameters from a YAML file's path, or from a JSON text of dotted keys as a Snakemake job carries it.

    A file is checked against the schema. Raises UserError with one sentence that says what to write instead.
    """
    if source.lstrip().startswith("{"):
        return nest(json.loads(source))
    path = Path(source)
    try:
        parameters = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"there is no parameter file {source} in {Path.cwd()}: go to the project's folder, or write --params FILE"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source} is not YAML{where}: {getattr(error, 'problem', error)}") from None
    check(parameters, source)
    return parameters


def nest(dotted: dict[str, Any]) -> dict[str, Any]:
    """{"experiments.mnist": row} -> {"experiments": {"mnist": row}}."""
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        level = nested
        for part in path:
            level = level.setdefault(part, {})
        level[last] = value
    return nested


def select(parameters: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; UserError names the keys there are and the nearest one."""
    value: Any = parameters
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            place = ".".join(walked) or "params.yaml"
            raise UserError(f"{place} has no entry '{part}'{nearest(part, value)}")
        value = value[part]
        walked.append(part)
    return value


def experiments(parameters: dict[str, Any], branch: str) -> list[str]:
    """The experiments of a branch, in the order of its figures, each once."""
    rows = select(parameters, f"branches.{branch}")
    return list(dict.fromkeys(name for figure in FIGURES for name in rows[figure]))


def mirror(file: str = "params.yaml") -> str | None:
    """Where original files are looked for first: DDGM_MIRROR, or the key `mirror` of the parameter file in the folder.

    It decides where bytes come from and never which bytes, since checksums do: so it is no parameter of a job.
    """
    if os.environ.get("DDGM_MIRROR"):
        return os.environ["DDGM_MIRROR"]
    path = Path(file)
    return (yaml.safe_load(path.read_text()) or {}).get("mirror") if path.exists() else None


def choose_branch(parameters: dict[str, Any], branch: str | None, experiment: str | None) -> str:
    """The branch that was asked for, else the one that shows the experiment, else `paper`."""
    if branch and branch not in BRANCHES:
        raise UserError(f"there is no branch '{branch}'{nearest(branch, list(BRANCHES))}")
    return branch or (branch_of(parameters, experiment) if experiment else "paper")


def branch_of(parameters: dict[str, Any], experiment: str) -> str:
    """The first branch that shows an experiment."""
    select(parameters, f"experiments.{experiment}")
    for branch in parameters["branches"]:
        if experiment in experiments(parameters, branch):
            return branch
    raise UserError(
        f"no branch shows the experiment '{experiment}': write its name into one figure's list under branches"
    )


def check(parameters: Any, source: str = "params.yaml") -> None:
    """Raise UserError for the first thing that the schema, or a name that points nowhere, refuses."""
    try:
        import jsonschema
    except ImportError:
        print(f"{source} is not checked against its schema: jsonschema is not installed here", file=sys.stderr)
        return
    schema = yaml.safe_load(SCHEMA.read_text())
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(parameters), key=_depth_first
    )
    if error:
        raise UserError(f"{source}: {_sentence(error)}")
    for branch, rows in parameters["branches"].items():
        for figure in FIGURES:
            for name in rows[figure]:
                if name not in parameters["experiments"]:
                    near = nearest(name, parameters["experiments"])
                    raise UserError(
                        f"{source}: branches.{branch}.{figure} shows '{name}', which is no experiment{near}"
                    )
        for name in rows["fig2"]:
            if parameters["experiments"][name]["range"] is not None:
                raise UserError(f"{source}: branches.{branch}.fig2 shows '{name}', whose data are not two-dimensional")
    for name, row in parameters["experiments"].items():
        if row["dataset"] not in parameters["datasets"]:
            near = nearest(row["dataset"], parameters["datasets"])
            raise UserError(f"{source}: experiments.{name}.dataset is '{row['dataset']}', which is no data set{near}")


def nearest(word: str, known: Any) -> str:
    """'; did you mean ...? There are ...', the end of a sentence about an unknown name."""
    names = [str(name) for name in known] if isinstance(known, dict | list) else []
    close = difflib.get_close_matches(word, names, 1)
    guess = f": did you mean '{close[0]}'?" if close else ":"
    return f"{guess} allowed are {', '.join(names) or 'none'}"


def _depth_first(error: Any) -> tuple:
    # An unknown key first: it is most often the cause of a missing one beside it.
    return (error.validator != "additionalProperties", -len(error.path))


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "the file"
    about = error.schema.get("description", "")
    meaning = f" ({about})" if about else ""
    value = json.dumps(error.instance, default=str)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in error.instance if name not in known)
        return f"{key} has an unknown key '{unknown}'{nearest(str(unknown), dict(known))}"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        about = error.schema.get("properties", {}).get(missing, {}).get("description", "")
        return f"{key} lacks the key '{missing}': write it{f' ({about})' if about else ''}"
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        number = _as_number(error.instance) if "number" in wanted or "integer" in wanted else None
        hint = f"; YAML reads {error.instance} as text, write {number}" if number else ""
        return f"{key} is {value}, and must be of type {wanted}{hint}{meaning}"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{key} is {value}{nearest(str(error.instance), [str(a) for a in allowed])}{meaning}"
    limits = {
        "minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below",
        "minItems": "a list of at least", "maxItems": "a list of at most", "pattern": "spelt as",
    }  # fmt: skip
    if error.validator in limits:
        return f"{key} is {value}, and must be {limits[error.validator]} {error.validator_value}{meaning}"
    return f"{key}: {error.message}{meaning}"


def _as_number(text: Any) -> str | None:
    try:
        mantissa, exponent = f"{float(text):e}".split("e")
    except (TypeError, ValueError):
        return None
    return f"{float(mantissa)}e{int(exponent):+d}"
