"""params.yaml: read, checked against the schema, and a branch found. Imports nothing heavy: the Snakefile uses it."""

import difflib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ddgm.datasets import registry
from ddgm.errors import UserError
from ddgm.metrics.names import in_words, is_in
from ddgm.variant import PLANAR, changed, contradictions

# libyaml's is ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SCHEMA = Path(__file__).parents[2] / "workflow" / "schemas" / "params.schema.yaml"
FIGURES = ("fig2", "fig3", "fig4")
# Lists of a branch whose experiments are trained and measured: the figures', and those the claims compare.
SHOWN = (*FIGURES, "compared")
BRANCHES = ("paper", "toy")
# Which kinds of evidence a list may hold, and what their data are called.
KINDS_SHOWN = {
    "fig2": ("density",), "fig3": ("digits",), "fig4": ("images",), "compared": ("density", "digits", "images"),
    "traced": ("density",), "mixed": ("density",), "annealed": ("density", "digits", "images"),
}  # fmt: skip
# JSON Schema's types, as one says what to write.
TYPES = {
    "array": "a list", "object": "a mapping of keys to values", "string": "text", "integer": "a whole number",
    "number": "a number", "boolean": "true or false", "null": "null",
}  # fmt: skip
# Names of a branch's files that an experiment's would lie in the place of.
TAKEN = {"claims": "the claims' own table", "search": "the folder that searches go on from"}
# What of a row a search takes as it is, or sets itself, and from where.
NOT_DRAWN = {
    "title": "the experiment's", "dataset": "the experiment's", "devices": "the experiment's",
    "threads": "the experiment's", "seeds": "the search's own",
}  # fmt: skip
LISTED = 24  # of the names that are allowed, in a sentence that says so
WORDS = {"density": "two-dimensional", "digits": "digits", "images": "colour images"}
# The tables that each kind of a claim's figure is drawn from, and its tests look at.
CLAIM_TABLES = {"measures": "metrics", "traces": "traces", "mixing": "mixing"}
# Where in such a table a test may look, in words, and whether a test's `at` is one of them.
PLACES: dict[str, tuple[str, Callable[[str | None], bool]]] = {
    "measures": ("null", lambda at: at is None),
    "traces": ("first, or at: last", lambda at: at in ("first", "last")),
    "mixing": ("a sampler's name, as generator", lambda at: at not in (None, "first", "last")),
}


class KeysOnce(LOADER):
    """YAML with each key once in its mapping: PyYAML lets the last of two win, and says nothing."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Before a part that `<<` names is put in, whose keys the mapping's own ones may override.
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if (first := seen.setdefault((key.tag, str(key.value)), key)) is not key:
                says = f"the key '{key.value}' is at line {first.start_mark.line + 1} too, rename or delete one of them"
                raise yaml.constructor.ConstructorError(None, None, says, key.start_mark)
        super().flatten_mapping(node)
        # A part that two mappings name comes here again, with what it overrides itself.
        node.value = list({(key.tag, str(key.value)): (key, value) for key, value in node.value}.values())


def load(source: str) -> dict[str, Any]:
    """Parameters from a YAML file's path, or from a JSON text of dotted keys as a Snakemake job carries it.

    A file is checked against the schema. Raises UserError with one sentence that says what to write instead.
    """
    if source.lstrip().startswith("{"):
        try:
            return nest(json.loads(source))
        except json.JSONDecodeError as error:
            raise UserError(f"--params is neither a file nor JSON: {error}") from None
    parameters = read(source)
    check(parameters, source)
    return parameters


def read(source: str) -> Any:
    """What a YAML file holds. Raises UserError with one sentence, of a slip with its line and column."""
    try:
        return yaml.load(Path(source).read_text(), KeysOnce)
    except FileNotFoundError:
        raise UserError(
            f"there is no parameter file {source} in {Path.cwd()}: go to the project's folder, or write --params FILE"
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(f"{source} is no text file: write --params with the name of a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source} is not YAML{where}: {getattr(error, 'problem', error)}") from None
    except ValueError as error:
        # What looks like a date, and is none.
        raise UserError(f"{source} has a value that cannot be read ({error}): write it in quotes") from None


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
    """The experiments of a branch, in the order of its figures and then of what is compared, each once."""
    rows = select(parameters, f"branches.{branch}")
    return list(dict.fromkeys(name for shown in SHOWN for name in rows[shown]))


def datasets(parameters: dict[str, Any], branch: str) -> list[str]:
    """The data sets of a branch's experiments, each once."""
    rows = select(parameters, "experiments")
    return list(dict.fromkeys(rows[name]["dataset"] for name in experiments(parameters, branch)))


def place_of_files(dataset: str, file: str = "params.yaml") -> tuple[str | None, str | None]:
    """Where a data set's original files are looked for: its `folder`, and the mirror (DDGM_MIRROR, or `mirror`).

    Both come from a parameter file: they decide where bytes come from and never which bytes, since
    checksums do, so that they are no parameters of a job.
    """
    parameters = (read(file) or {}) if Path(file).exists() else {}
    folder = parameters.get("datasets", {}).get(dataset, {}).get("folder")
    return folder, os.environ.get("DDGM_MIRROR") or parameters.get("mirror")


def evidence(dataset: dict[str, Any]) -> str:
    """The metrics module that measures a data set's experiments: densities where the data's is known, else digits by
    their classifier, else images.
    """
    return "density" if dataset["kind"] in PLANAR else "digits" if dataset["kind"] == "mnist" else "images"


def refuse_experiment(parameters: dict[str, Any], what: str, name: str, shown: str | None) -> None:
    """UserError where an experiment's data are not of the kind that a branch's list `shown` may hold, for `what`."""
    # A job's excerpt has no data set.
    dataset = parameters.get("experiments", {}).get(name, {}).get("dataset")
    if dataset and shown in KINDS_SHOWN:
        refuse_kind(parameters, what, name, dataset, KINDS_SHOWN[shown])


def refuse_kind(parameters: dict[str, Any], what: str, name: str, dataset: str, kinds: tuple[str, ...]) -> None:
    """UserError where a data set, the one of `name`, is none that a verb or a figure, `what`, is for."""
    rows = parameters.get("datasets", {})
    if dataset in rows and (kind := evidence(rows[dataset])) not in kinds:
        fitting = ", ".join(other for other, row in rows.items() if evidence(row) in kinds)
        wanted, found = WORDS[kinds[0]], WORDS[kind]
        raise UserError(
            f"{what} is for data that are {wanted}, and those of {name} are {found}: such data sets are {fitting}"
        )


def tested(claim: dict[str, Any]) -> list[str]:
    """The experiments that a claim's tests look at, and those that they are compared with, each once."""
    names = []
    for test in claim["tests"]:
        names.append(test["experiment"])
        if isinstance(test["threshold"], dict):
            names.append(test["threshold"]["experiment"])
    return list(dict.fromkeys(names))


def search_of(parameters: dict[str, Any], branch: str, experiment: str) -> str:
    """The name of the search of a branch that varies an experiment."""
    searches = select(parameters, f"branches.{branch}.searches")
    for name, plan in searches.items():
        # A job's excerpt has one search, without the list of what it varies.
        if experiment in plan.get("experiments", [experiment]):
            return name
    known = [experiment for plan in searches.values() for experiment in plan["experiments"]]
    raise UserError(f"no search of branch {branch} varies '{experiment}'{nearest(experiment, known)}")


def choose_branch(parameters: dict[str, Any], branch: str | None, kind: str, name: str | None) -> str:
    """The branch that was asked for, else the first that shows the experiment, dataset, claim or search of a `name`.

    Where nothing is named, or no branch shows it, `paper`; UserError for an experiment that none shows.
    """
    if branch and branch not in BRANCHES:
        raise UserError(f"there is no branch '{branch}'{nearest(branch, list(BRANCHES))}")
    if branch or not name:
        return branch or "paper"
    if kind == "experiment":
        return branch_of(parameters, name)
    # A job's excerpt has none.
    branches = parameters.get("branches", {})
    lists = {"claim": "claims", "search": "searches"}
    shown = {one: row[lists[kind]] if kind in lists else datasets(parameters, one) for one, row in branches.items()}
    return next((one for one, names in shown.items() if name in names), "paper")


def branch_of(parameters: dict[str, Any], experiment: str) -> str:
    """The first branch that shows an experiment."""
    select(parameters, f"experiments.{experiment}")
    for branch in parameters["branches"]:
        if experiment in experiments(parameters, branch):
            return branch
    raise UserError(
        f"no branch shows the experiment '{experiment}': write --branch and one of {', '.join(BRANCHES)}, or its name "
        f"into one figure's list under branches"
    )


def check(parameters: Any, source: str = "params.yaml") -> None:
    """Raise UserError for the first thing that the schema, or a name that points nowhere, refuses."""
    try:
        import jsonschema
    except ImportError:
        print(f"{source} is not checked against its schema: jsonschema is not installed here", file=sys.stderr)
        return
    if not SCHEMA.exists():
        print(f"{source} is not checked against its schema: there is no {SCHEMA}", file=sys.stderr)
        return
    schema = yaml.load(SCHEMA.read_text(), LOADER)
    error = jsonschema.exceptions.best_match(
        _validator(jsonschema)(schema).iter_errors(parameters), key=_unknown_key_first
    )
    if error:
        raise UserError(f"{source}: {_sentence(error)}")
    for sentence in _contradictions(parameters):
        raise UserError(f"{source}: {sentence}")
    of_parts = _validator(jsonschema)(
        {"$defs": schema["$defs"], "properties": schema["$defs"]["experiment"]["properties"]}
    )
    checked: list[dict[str, Any]] = []
    for drawn, part in _drawn(parameters):
        # A search's experiments are alike in most of what it draws.
        if part in checked:
            continue
        checked.append(part)
        error = jsonschema.exceptions.best_match(of_parts.iter_errors(part), key=_unknown_key_first)
        if error:
            raise UserError(f"{source}: {drawn}, and {_sentence(error)}")


def _drawn(parameters: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each value that a search may draw, in words, and its part of the row with it; of a range the two ends."""
    for branch, shown in parameters["branches"].items():
        for search, plan in shown["searches"].items():
            for key, choice in plan["over"].items():
                here = f"branches.{branch}.searches.{search}.over.{key}"
                ends = isinstance(choice, dict)
                # What is drawn from a range is no whole number.
                for value in [float(choice["low"]), float(choice["high"])] if ends else choice:
                    advice = " (whole numbers are drawn from a list)" if ends else ""
                    for name in plan["experiments"]:
                        part = key.partition(".")[0]
                        row = {part: parameters["experiments"][name][part]}
                        words = f"{here} draws {json.dumps(value, default=str)} for {name}{advice}"
                        yield words, changed(row, {key: value})


def nearest(word: str, known: Any) -> str:
    """': did you mean ...? allowed are ...', the end of a sentence about an unknown name; of many, the nearest."""
    names = [str(name) for name in known] if isinstance(known, dict | list) else []
    close = difflib.get_close_matches(word, names, 1)
    guess = f": did you mean '{close[0]}'?" if close else ":"
    more = len(names) - LISTED
    if more > 1:
        nearest_of_all = difflib.get_close_matches(word, names, LISTED, cutoff=0.0)
        names = [name for name in names if name in nearest_of_all]
    return f"{guess} allowed are {', '.join(names) or 'none'}" + (f" and {more} more" if more > 1 else "")


def _unknown_key_first(error: Any) -> tuple:
    # jsonschema takes the largest. A misspelt key is the cause of the missing one beside it.
    return (error.validator == "additionalProperties", -len(error.path))


def _validator(jsonschema: Any) -> Any:
    """JSON Schema with stricter numbers: 2.0 is no integer, NaN and infinity are no numbers."""
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: type(value) in (int, float) and math.isfinite(value),
        }
    )
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)


def _contradictions(parameters: dict[str, Any]) -> Iterator[str]:
    """What each key allows by itself and the keys together do not, a sentence each."""
    rows, datasets = parameters["experiments"], parameters["datasets"]
    for name, row in datasets.items():
        if row.get("crop") is not None and row["crop"] < row["side"]:
            yield (
                f"datasets.{name}.crop is {row['crop']}, below side, {row['side']}: nothing is enlarged, write a crop "
                f"of at least {row['side']}, or null"
            )
    for name, row in datasets.items():
        for key in ("folder", "subset"):
            if row.get("draw") and row[key]:
                yield f"datasets.{name} has both draw and {key}, and what is drawn is not fetched: write null for one"
        for file in (row.get("subset") or {}).get("checksums", ()):
            if file not in registry.files(row):
                near = nearest(file, registry.files(row))
                yield f"datasets.{name}.subset.checksums names '{file}', which is none of its files{near}"
    for name in parameters["classifiers"]:
        digits = [other for other, row in datasets.items() if evidence(row) == "digits"]
        if name not in digits:
            yield f"classifiers.{name} judges no data set of digits{nearest(name, digits)}"
    for name, row in rows.items():
        key = f"experiments.{name}"
        if name in TAKEN:
            yield f"{key} has the name of {TAKEN[name]}: write another"
        if row["dataset"] not in datasets:
            near = nearest(row["dataset"], datasets)
            yield f"{key}.dataset is '{row['dataset']}', which is no data set{near}"
            continue
        objective = row["objective"]
        # Of a row alone: a search may draw a penalty of 0, which is none throughout, beside any end.
        if not objective["penalty"] and objective["penalty_end"]:
            yield (
                f"{key}.objective has a penalty of 0 and a penalty_end of {objective['penalty_end']:g}, which nothing "
                f"leads to: write 0 for both, or for none"
            )
        yield from contradictions(key, row, datasets[row["dataset"]])
    for branch, shown in parameters["branches"].items():
        for figure in KINDS_SHOWN:
            for name in shown[figure]:
                here = f"branches.{branch}.{figure} names '{name}'"
                if name not in rows:
                    yield f"{here}, which is no experiment{nearest(name, rows)}"
                    continue
                kind = evidence(datasets[rows[name]["dataset"]])
                if kind not in KINDS_SHOWN[figure]:
                    yield f"{here}, whose data are not {WORDS[KINDS_SHOWN[figure][0]]}"
                elif kind == "digits" and rows[name]["dataset"] not in parameters["classifiers"]:
                    yield (f"{here}, whose digits nothing judges: write a row classifiers.{rows[name]['dataset']}")
                elif figure == "traced" and not rows[name]["schedule"]["snapshots"]:
                    yield f"{here}, whose schedule.snapshots is 0: write how often its weights are kept"
                elif figure == "fig4" and not rows[name]["schedule"]["pictures"]:
                    yield f"{here}, whose schedule.pictures is 0: write at how many steps its samples are kept"
        for name, other in shown["images"]["others"].items():
            for wanted in (name, other):
                if wanted not in datasets or evidence(datasets[wanted]) != "images":
                    here = f"branches.{branch}.images.others names '{wanted}', which is no data set of colour images"
                    yield f"{here}{nearest(wanted, [n for n, row in datasets.items() if evidence(row) == 'images'])}"
            if name == other:
                yield f"branches.{branch}.images.others names '{other}' for itself: write another data set"
            sides = [datasets.get(one, {}).get("side") for one in (name, other)]
            if None not in sides and sides[0] != sides[1]:
                yield (
                    f"branches.{branch}.images.others names '{other}' for '{name}', with a side of {sides[1]} and "
                    f"{sides[0]} pixels: write one side for both"
                )
        yield from _too_few(f"branches.{branch}", shown, experiments(parameters, branch), parameters)
        yield from _not_fresh(f"branches.{branch}", shown, experiments(parameters, branch), rows, datasets)
        yield from _unsearchable(f"branches.{branch}.searches", shown["searches"], rows, datasets)
        yield from _untestable(f"branches.{branch}", shown, experiments(parameters, branch), rows, datasets)


def _too_few(branch: str, shown: dict[str, Any], measured: list[str], parameters: dict[str, Any]) -> Iterator[str]:
    """Where too few samples are compared for what is measured of them."""
    used = {"digits": (shown["digits"], measured), "images": (shown["images"], measured)}
    for name, plan in shown["searches"].items():
        used[f"searches.{name}.evaluation"] = (plan["evaluation"], plan["experiments"])
    rows = parameters["experiments"]
    for name, (chosen, of) in used.items():
        if chosen.get("neighbours", 0) >= chosen["samples"]:
            yield (
                f"{branch}.{name}.neighbours is {chosen['neighbours']}, and must be below samples, "
                f"{chosen['samples']}, among which they are looked for"
            )
        # Of a colour image no classifier sees anything, nor of a point.
        judged = {rows[one]["dataset"] for one in of if one in rows} & parameters["classifiers"].keys()
        for dataset in sorted(judged) if name != "images" else ():
            if chosen["samples"] <= (features := parameters["classifiers"][dataset]["features"]):
                yield (
                    f"{branch}.{name}.samples is {chosen['samples']}, and a Fréchet distance between the {features} "
                    f"features of classifiers.{dataset} needs more: write {features + 1} or more"
                )


def _not_fresh(
    branch: str, shown: dict[str, Any], measured: list[str], rows: dict[str, Any], datasets: dict[str, Any]
) -> Iterator[str]:
    """Where points that are drawn anew to measure by would be those that were trained on, or each other's."""
    used = {name: (shown[name], measured) for name in ("evaluation", "tracing", "mixing")}
    for name, plan in shown["searches"].items():
        used[f"searches.{name}.evaluation"] = (plan["evaluation"], plan["experiments"])
    for name, (chosen, of) in used.items():
        if chosen.get("transport", 0) > chosen.get("samples", math.inf):
            yield (
                f"{branch}.{name}.transport is {chosen['transport']}, and only {chosen['samples']} samples are drawn: "
                f"write at most {chosen['samples']}, or more samples"
            )
        if 2 * chosen.get("transport", 0) > chosen.get("points", math.inf):
            most = chosen["points"] // 2
            yield (
                f"{branch}.{name}.transport is {chosen['transport']}, and two sets of so many are compared: write at "
                f"most {most}, half of points"
            )
        planar = {rows[name]["dataset"] for name in of if name in rows and rows[name]["range"] is None}
        for dataset in sorted(planar):
            if datasets[dataset]["seed"] == chosen["seed"]:
                yield (
                    f"{branch}.{name}.seed is {chosen['seed']}, as is that of datasets.{dataset}, and would draw for "
                    f"seed 0 the points that were trained on: write another"
                )


def _unsearchable(
    here: str, searches: dict[str, Any], rows: dict[str, dict[str, Any]], datasets: dict[str, Any]
) -> Iterator[str]:
    """What searches ask for and cannot have, a sentence each."""
    searched: dict[str, str] = {}
    for search, plan in searches.items():
        for name in plan["experiments"]:
            if name not in rows:
                yield f"{here}.{search} names '{name}', which is no experiment{nearest(name, rows)}"
                continue
            if name in searched:
                yield f"{here}.{search} names '{name}', which {here}.{searched[name]} varies: write it in one of them"
            searched[name] = search
            kind = evidence(datasets[rows[name]["dataset"]])
            if kind == "images":
                yield f"{here}.{search} names '{name}', whose data are colour images: a search is over points or digits"
            elif ("compared" in plan["evaluation"]) != (kind == "digits"):
                like = "digits" if kind == "digits" else "evaluation"
                yield f"{here}.{search}.evaluation does not fit '{name}': write the keys that the branch's {like} has"
            for key in ("ranked_by", "shown") if kind in ("density", "digits") else ():
                for metric in plan[key]:
                    if not is_in(metric, kind):
                        yield f"{here}.{search}.{key} has {_unmeasured(metric, kind, name)}"
            if rows[name]["devices"] > 1:
                yield f"{here}.{search} names '{name}', which is trained on several devices: a search is of one process"
            for key in plan["over"]:
                if key in NOT_DRAWN:
                    yield f"{here}.{search}.over draws '{key}', which a search does not vary: it is {NOT_DRAWN[key]}"
                    continue
                try:
                    select(rows[name], key)
                except UserError:
                    yield f"{here}.{search}.over draws '{key}', which experiments.{name} does not have"
        for key, choice in plan["over"].items():
            if isinstance(choice, dict) and choice["low"] >= choice["high"]:
                ends = f"low {choice['low']:g} and high {choice['high']:g}"
                yield f"{here}.{search}.over.{key} has {ends}: write the smaller number as low"


def _untestable(
    branch: str,
    shown: dict[str, Any],
    measured: list[str],
    rows: dict[str, dict[str, Any]],
    datasets: dict[str, Any],
) -> Iterator[str]:
    """What claims test and the branch does not measure, a sentence each."""
    lists = {"metrics": measured, "traces": shown["traced"], "mixing": shown["mixed"]}
    recipe_of: dict[str, str] = {}
    for recipe, names in shown["recipes"].items():
        for name in names:
            here = f"{branch}.recipes '{recipe}' names '{name}'"
            if name not in rows:
                yield f"{here}, which is no experiment{nearest(name, rows)}"
            elif name in recipe_of:
                yield f"{here}, which is by '{recipe_of[name]}': write it in one of them"
            recipe_of[name] = recipe
    for claim, about in shown["claims"].items():
        table = CLAIM_TABLES[about["figure"]]
        unknown = [name for name in tested(about) if name not in lists[table]]
        for name in unknown:
            here = f"{branch}.claims.{claim} tests {table} of '{name}'"
            yield f"{here}, of which none are made{nearest(name, lists[table])}"
        place, fits = PLACES[about["figure"]]
        for test in about["tests"]:
            if test["experiment"] in unknown:
                continue
            asked = [test, test["threshold"]] if isinstance(test["threshold"], dict) else [test]
            for one in asked:
                if one["experiment"] in unknown:
                    continue
                kind = table if table != "metrics" else evidence(datasets[rows[one["experiment"]]["dataset"]])
                if not is_in(one["metric"], kind):
                    words = _unmeasured(one["metric"], kind, one["experiment"])
                    yield f"{branch}.claims.{claim} tests {words}"
            for at in {one["at"] for one in asked}:
                if not fits(at):
                    here = f"{branch}.claims.{claim} has a test at {json.dumps(at)}"
                    yield f"{here}, and its figure is {about['figure']}: write at: {place}"
            if test["seeds"] and test["seeds"] > len(rows[test["experiment"]]["seeds"]):
                trained = len(rows[test["experiment"]]["seeds"])
                here = f"{branch}.claims.{claim} wants {test['seeds']} seeds of '{test['experiment']}'"
                yield f"{here}, which has {trained}: write at most {trained}"


def _unmeasured(metric: str, kind: str, experiment: str) -> str:
    return f"'{metric}', which is not measured of '{experiment}': write one of {in_words(kind)}"


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
        wanted = _types(error)
        number = _as_number(error.instance) if isinstance(error.instance, str) and "number" in wanted else None
        hint = f"; YAML reads {error.instance} as text, write {number}" if number else ""
        return f"{key} is {value}, and must be {_in_words(wanted)}{hint}{meaning}"
    if error.validator == "anyOf":
        ways: dict[int, list[Any]] = {}
        for fault in error.context:
            ways.setdefault(fault.schema_path[0], []).append(fault)
        # Of the ways to write it, that which has what is written most right.
        fitting = [faults for faults in ways.values() if faults[0].validator != "type" or faults[0].path]
        if fitting:
            return _sentence(min(fitting, key=len)[0])
        wanted = [name for faults in ways.values() for name in _types(faults[0])]
        return f"{key} is {value}, and must be {_in_words(wanted)}{meaning}"
    if error.validator == "uniqueItems":
        twice = next(one for n, one in enumerate(error.instance) if one in error.instance[:n])
        return f"{key} has {json.dumps(twice, default=str)} twice: write it once{meaning}"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{key} is {value}{nearest(str(error.instance), [str(a) for a in allowed])}{meaning}"
    limits = {
        "minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below",
        "minItems": "a list of at least", "maxItems": "a list of at most", "minLength": "text of a length of at least",
        "minProperties": "a mapping with at least", "pattern": "spelt as",
    }  # fmt: skip
    if error.validator in limits:
        return f"{key} is {value}, and must be {limits[error.validator]} {error.validator_value}{meaning}"
    return f"{key}: {error.message}{meaning}"


def _types(error: Any) -> list[str]:
    """The names of the types that a value of the wrong type might have."""
    wanted = error.validator_value
    return [wanted] if isinstance(wanted, str) else list(wanted)


def _in_words(types: list[str]) -> str:
    return " or ".join(TYPES[name] for name in dict.fromkeys(types))


def _as_number(text: Any) -> str | None:
    try:
        mantissa, exponent = f"{float(text):e}".split("e")
    except (TypeError, ValueError):
        return None
    return f"{float(mantissa)}e{int(exponent):+d}"
