"""A random search over what a paper leaves open, with every trial in its table: nothing is tried off the record.

A trial is an experiment's row with some keys drawn at random. It is trained and measured as the row itself would be,
for the plan's steps and seeds, mostly fewer.
"""

import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddgm import checkpoint
from ddgm.device import choose_device
from ddgm.errors import DivergenceError, UserError
from ddgm.progress import log
from ddgm.provenance import checksum, opening_lines
from ddgm.reading import read_table
from ddgm.row import untitled
from ddgm.training import train
from ddgm.variant import changed, contradictions
from ddgm.whole_file import whole_file

# In the folder of a trial, once it is finished.
FOUND = "found.json"


def draw(space: dict[str, Any], stream: np.random.Generator) -> dict[str, Any]:
    """A value for each dotted key: one of a list, or log-uniform between `low` and `high`, three digits."""
    values: dict[str, Any] = {}
    for key, choice in space.items():
        if isinstance(choice, list):
            values[key] = choice[int(stream.integers(len(choice)))]
        else:
            logarithm = stream.uniform(math.log(choice["low"]), math.log(choice["high"]))
            values[key] = float(f"{math.exp(logarithm):.2e}")
    return values


def search(
    name: str,
    row: dict[str, Any],
    dataset: dict[str, Any],
    plan: dict[str, Any],
    array: Path,
    evaluate: Callable[[str, Path, Path], None],
    target: Path,
    state_path: Path,
    threads: int = 1,
    judged_by: Sequence[Path] = (),
) -> None:
    """Train and measure plan["trials"] versions of experiment `name`; write a row for each, what diverged too.

    Trial t is the same whichever trials there are beside it. evaluate(name, model, table) measures a model, with what
    the files `judged_by` hold. Finished trials, and the state of the one in training, are kept in the folder
    `state_path` until the table is there: the same search, interrupted, goes on from them. UserError, before anything
    is trained, where the keys of a trial cannot be together, or another process searches here. KeyboardInterrupt or
    SystemExit where it is asked to end.
    """
    row = changed(untitled(row), {"seeds": plan["seeds"], "schedule.steps": plan["steps"], "schedule.snapshots": 0})
    device = choose_device(row["device"])
    # What decides over every trial's numbers, beside its row: a table is made by one version of the code.
    about = {"code": sources(), "device": device.type, "metrics": plan["ranked_by"] + plan["shown"]}
    about |= {"dataset": dataset, "evaluation": plan["evaluation"]}
    about |= {"data": (sha256 := checksum(array)), "files": [checksum(file) for file in judged_by]}
    for line in opening_lines(name, row, array, sha256, device, threads):
        log.info(line)
    drawn = [draw(plan["over"], np.random.default_rng([plan["seed"], trial])) for trial in range(plan["trials"])]
    for trial, values in enumerate(drawn, 1):
        for sentence in contradictions(f"trial {trial} of {name}", changed(row, values), dataset):
            raise UserError(f"{sentence} (the search draws {values})")
    rows = []
    with checkpoint.only_trainer(state_path):
        for trial, values in enumerate(drawn):
            version = changed(row, values)
            folder = state_path / identity(about | {"row": version})
            try:
                found = earlier(folder) or try_once(name, version, plan, array, evaluate, folder, threads, sha256)
            except (KeyboardInterrupt, SystemExit):
                log.warning(
                    f"{name}: stopped in trial {trial + 1} of {plan['trials']}; the same command goes on from there"
                )
                raise
            log.info(f"{name}, trial {trial + 1} of {plan['trials']}: {values} gives {found}")
            rows.append({"experiment": name, "trial": trial, **values, **found})
        with whole_file(target) as path:
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4g")
        checkpoint.remove(state_path)


def sources() -> str:
    """The package's code in one digest: a commit may change a document alone, and uncommitted code has none."""
    package = Path(__file__).parent
    return identity({path.relative_to(package).as_posix(): checksum(path) for path in sorted(package.rglob("*.py"))})


def identity(about: dict[str, Any]) -> str:
    """The same few letters for the same settings, and others for others."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def earlier(folder: Path) -> dict[str, float] | None:
    """What a trial gave that was finished before the search was interrupted."""
    if not (path := folder / FOUND).exists():
        return None
    return json.loads(path.read_text())


def try_once(
    name: str,
    row: dict[str, Any],
    plan: dict[str, Any],
    array: Path,
    evaluate: Callable[[str, Path, Path], None],
    folder: Path,
    threads: int,
    sha256: str | None = None,
) -> dict[str, float]:
    """The means over seeds of what the plan ranks by and shows; kept in `folder`, as is a training's state on the way.

    Where training diverged, what is ranked by is infinite and what is shown not a number, as is what cannot be measured
    of a trial: lines between digits where all samples are one.
    """
    ranked, metrics = plan["ranked_by"], plan["ranked_by"] + plan["shown"]
    with tempfile.TemporaryDirectory() as temporary:
        model, table = Path(temporary) / "model", Path(temporary) / "table.csv"
        model.mkdir()
        try:
            with silent_training():
                train(name, row, array, model, folder / "state", threads, sha256=sha256)
        except DivergenceError as error:
            log.warning(str(error))
            checkpoint.remove(folder / "state")
            means = pd.Series(dict.fromkeys(metrics, math.nan))
        else:
            evaluate(name, model, table)
            # A mean over seeds of which one could not be measured is none.
            by_metric = read_table(table, ["metric", "value"]).groupby("metric")["value"]
            means = by_metric.agg(lambda values: values.mean(skipna=False))
    if missing := [metric for metric in metrics if metric not in means]:
        raise UserError(
            f"a search of {name} asks for '{missing[0]}', which is not measured: allowed are {', '.join(means.index)}"
        )
    found = {metric: float(means[metric]) for metric in metrics}
    found |= {metric: math.inf for metric in ranked if math.isnan(found[metric])}
    with whole_file(folder / FOUND) as path:
        path.write_text(json.dumps(found) + "\n")
    return found


@contextmanager
def silent_training() -> Iterator[None]:
    """A trial's training says nothing of its folder, which lasts until it is measured; its progress shows."""

    def wanted(record: logging.LogRecord) -> bool:
        return record.module != "training" or record.levelno > logging.INFO

    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)


def rank(tables: list[Path], plan: dict[str, Any], target: Path) -> None:
    """Gather the searches of several experiments, the best trial first: the least sum of what `ranked_by` names.

    Of all experiments together if one setting is to serve them all (`together`), else of each on its own.
    """
    columns = ["experiment", "trial", *plan["ranked_by"]]
    rows = pd.concat([read_table(table, columns) for table in tables])
    rows["score"] = rows[plan["ranked_by"]].sum(axis=1)
    if plan["together"]:
        rows["score"] = rows["score"].groupby(rows["trial"]).transform("sum")
    else:
        rows["place"] = pd.Categorical(rows["experiment"], plan["experiments"])
    order = ["score", "trial"] if plan["together"] else ["place", "score", "trial"]
    with whole_file(target) as path:
        ordered = rows.sort_values(order, kind="stable").drop(columns="place", errors="ignore")
        ordered.to_csv(path, index=False, float_format="%.4g")
