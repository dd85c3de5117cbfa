"""The paper's claims against what was measured: each is a few tests with a threshold, and verdicts that follow.

A verdict is of one recipe: what our additions make true says nothing of the paper's own, and rivals are no evidence for
either.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddgm.errors import UserError, again
from ddgm.parameters import CLAIM_TABLES, tested
from ddgm.reading import read_table
from ddgm.whole_file import whole_file

COLUMNS = [
    "claim", "says", "recipe", "experiment", "metric", "at", "seeds", "mean", "sd", "comparison", "threshold",
    "against", "wanted", "holds", "verdict",
]  # fmt: skip
OTHERS = "rivals"


def tables(about: dict[str, Any], folder: Path) -> dict[str, Path]:
    """What a claim's tests look at and its figure is drawn from, by experiment; `folder` is a branch's."""
    kind = CLAIM_TABLES[about["figure"]]
    return {name: folder / kind / f"{name}.csv" for name in tested(about)}


def read(path: Path) -> pd.DataFrame:
    """A table of measurements, a row each; raises UserError where it is none."""
    return read_table(path, ["seed", "metric", "value"])


def require_seeds(
    about: dict[str, Any], files: dict[str, Path], measured: dict[str, pd.DataFrame], seeds: dict[str, list[int]]
) -> None:
    """UserError where what a claim asks for is not there of just its experiment's seeds: a part of a table is gone.

    `files`, the tables in them and `seeds` are by experiment.
    """
    against = [test["threshold"] for test in about["tests"] if isinstance(test["threshold"], dict)]
    for asked in (*about["tests"], *against):
        name = asked["experiment"]
        found = sorted(values_of(asked, measured[name]).index)
        if found != sorted(seeds[name]):
            raise UserError(
                f"{files[name]} has {asked['metric']} of the seeds {', '.join(map(str, found))}, and experiments."
                f"{name}.seeds are {', '.join(map(str, seeds[name]))}: {again(files[name])}"
            )


def values_of(test: dict[str, Any], table: pd.DataFrame) -> pd.Series:
    """One value a seed: of the metric, at the first or last step of a trace, or of one sampler at its last step.

    Raises UserError for a metric or a place that the table does not have.
    """
    rows = table[table["metric"] == test["metric"]]
    if test["at"] in ("first", "last"):
        rows = rows[rows["step"] == (rows["step"].min() if test["at"] == "first" else rows["step"].max())]
    elif test["at"]:
        rows = rows[rows["sampler"] == test["at"]]
        rows = rows[rows["step"] == rows["step"].max()]
    if rows.empty:
        where = f" at '{test['at']}'" if test["at"] else ""
        raise UserError(
            f"a claim asks for {test['metric']}{where} of {test['experiment']}, and its table has none: "
            f"allowed are {', '.join(sorted(table['metric'].unique()))}"
        )
    return rows.set_index("seed")["value"]


def resolved(test: dict[str, Any], measured: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The test with its threshold as a number, where it is so many times what an experiment's metric is on average."""
    threshold = test["threshold"]
    if not isinstance(threshold, dict):
        return test | {"against": ""}
    other, metric, at = (threshold[key] for key in ("experiment", "metric", "at"))
    mean = values_of({"experiment": other, "metric": metric, "at": at}, measured[other]).mean(skipna=False)
    where = f" at {at}" if at != test["at"] else ""
    against = f"{threshold['times']:g} times {metric} of {other}{where}"
    return test | {"threshold": threshold["times"] * mean, "against": against}


def holds(test: dict[str, Any], values: pd.Series) -> bool:
    """Whether the seeds' mean, or as many seeds as the test wants, are on the threshold's right side.

    A mean over seeds of which one could not be measured is on neither.
    """
    side = np.less_equal if test["comparison"] == "at most" else np.greater_equal
    if test["seeds"] is None:
        return bool(side(values.mean(skipna=False), test["threshold"]))
    return bool(side(values, test["threshold"]).sum() >= test["seeds"])


def verdict(results: list[bool]) -> str:
    """Reproduced if every test holds, not if none does, else partly."""
    if all(results):
        return "reproduced"
    return "partly" if any(results) else "not reproduced"


def judge(
    claims: dict[str, Any], recipes: dict[str, list[str]], seeds: dict[str, list[int]], folder: Path, target: Path
) -> None:
    """Write a row for each test of each claim, with its recipe's verdict; `folder` is a branch's results.

    `recipes` says which experiments are by which recipe; those in none are rivals. `seeds` are each experiment's.
    Raises UserError where a table is missing or damaged, or lacks one of them.
    """
    recipe_of = {experiment: recipe for recipe, names in recipes.items() for experiment in names}
    read_once = cache(read)  # two claims may look at one table
    rows = []
    for claim, about in claims.items():
        files = tables(about, folder)
        measured = {name: read_once(path) for name, path in files.items()}
        require_seeds(about, files, measured, seeds)
        for test in about["tests"]:
            test = resolved(test, measured)
            values = values_of(test, measured[test["experiment"]])
            rows.append(
                {
                    "claim": claim,
                    "says": about["says"],
                    "recipe": recipe_of.get(test["experiment"], OTHERS),
                    **{key: test[key] for key in ("experiment", "metric", "at", "comparison", "threshold", "against")},
                    "wanted": "the mean" if test["seeds"] is None else f"{test['seeds']} seeds",
                    "seeds": len(values),
                    # Of the seeds that could be measured, where those are counted; else of all.
                    "mean": values.mean(skipna=test["seeds"] is not None),
                    "sd": values.std() if np.isfinite(values).all() else np.nan,
                    "holds": holds(test, values),
                }
            )
    tests = pd.DataFrame(rows, columns=COLUMNS).astype({"verdict": object})
    for _, of_recipe in tests.groupby(["claim", "recipe"]):
        tests.loc[of_recipe.index, "verdict"] = verdict(list(of_recipe["holds"]))
    with whole_file(target) as path:
        tests.to_csv(path, index=False, float_format="%.4g")
