"""A random search over what a paper leaves open, with every trial in its table: nothing is tried off the record.

A trial is an experiment's row with some keys drawn at random. It is trained and measured as the row itself would be,
for the plan's steps and seeds, mostly fewer.
"""

import logging
import math
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddgm.device import choose_device
from ddgm.errors import DivergenceError, UserError
from ddgm.parameters import changed, contradictions
from ddgm.progress import log
from ddgm.provenance import checksum, opening_lines
from ddgm.reading import read_table
from ddgm.row import untitled
from ddgm.training import train
from ddgm.whole_file import whole_file


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
    threads: int = 1,
) -> None:
    """Train and measure plan["trials"] versions of experiment `name`; write a row for each, what diverged too.

    Trial t is the same whichever trials there are beside it. evaluate(name, model, table) measures a model. UserError,
    before anything is trained, where the keys of a trial cannot be together. KeyboardInterrupt or SystemExit where it
    is asked to end: nothing is kept then, and it begins again.
    """
    row = changed(untitled(row), {"seeds": plan["seeds"], "schedule.steps": plan["steps"], "schedule.snapshots": 0})
    sha256 = checksum(array)
    for line in opening_lines(name, row, array, sha256, choose_device(row["device"]), threads):
        log.info(line)
    drawn = [draw(plan["over"], np.random.default_rng([plan["seed"], trial])) for trial in range(plan["trials"])]
    for trial, values in enumerate(drawn, 1):
        for sentence in contradictions(f"trial {trial} of {name}", changed(row, values), dataset):
            raise UserError(f"{sentence} (the search draws {values})")
    rows = []
    for trial, values in enumerate(drawn):
        try:
            found = try_once(name, changed(row, values), plan, array, evaluate, threads, sha256)
        except (KeyboardInterrupt, SystemExit) as ending:
            log.warning(
                f"{name}: stopped in trial {trial + 1} of {plan['trials']}; a search is not gone on with, and the same "
                f"command begins with trial 1"
            )
            if isinstance(ending, SystemExit):
                # A training's code says that its state was saved.
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        log.info(f"{name}, trial {trial + 1} of {plan['trials']}: {values} gives {found}")
        rows.append({"experiment": name, "trial": trial, **values, **found})
    with whole_file(target) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4g")


def try_once(
    name: str,
    row: dict[str, Any],
    plan: dict[str, Any],
    array: Path,
    evaluate: Callable[[str, Path, Path], None],
    threads: int,
    sha256: str | None = None,
) -> dict[str, float]:
    """The means over seeds of what the plan ranks by and shows.

    Where training diverged, what is ranked by is infinite and what is shown not a number, as is what cannot be measured
    of a trial: lines between digits where all samples are one.
    """
    ranked, metrics = plan["ranked_by"], plan["ranked_by"] + plan["shown"]
    with tempfile.TemporaryDirectory() as folder:
        model, table = Path(folder) / "model", Path(folder) / "table.csv"
        model.mkdir()
        try:
            with silent_training():
                # No state is saved on the way: it would be gone with the folder.
                train(
                    name, row, array, model, Path(folder) / "state", threads, checkpoint_minutes=math.inf, sha256=sha256
                )
        except DivergenceError as error:
            log.warning(str(error))
            return dict.fromkeys(metrics, math.nan) | dict.fromkeys(ranked, math.inf)
        evaluate(name, model, table)
        # A mean over seeds of which one could not be measured is none.
        by_metric = read_table(table, ["metric", "value"]).groupby("metric")["value"]
        means = by_metric.agg(lambda values: values.mean(skipna=False))
    if missing := [metric for metric in metrics if metric not in means]:
        raise UserError(
            f"a search of {name} asks for '{missing[0]}', which is not measured: allowed are {', '.join(means.index)}"
        )
    return {metric: float(means[metric]) for metric in metrics} | {
        metric: math.inf if math.isnan(means[metric]) else float(means[metric]) for metric in ranked
    }


@contextmanager
def silent_training() -> Iterator[None]:
    """What a training says of its folder, and of going on from there, does not hold for a trial; its progress does."""

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
