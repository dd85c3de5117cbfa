"""Tidy tables: one row for each experiment, seed and metric, and their summary over seeds."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ddgm.reading import read_table
from ddgm.whole_file import all_or_none, whole_file

COLUMNS = ["experiment", "seed", "metric", "value"]


def write(rows: list[tuple[Any, ...]], target: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write rows, of (experiment, seed, metric, value) if no other columns are given, as CSV, six digits."""
    with whole_file(target) as path:
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False, float_format="%.6g")


def tabulate(tables: list[Path], titles: dict[str, str], target: Path) -> None:
    """Gather tables into one row for each experiment and metric: n seeds, mean, sd (empty for one seed).

    The means go beside it as JSON too, experiment by experiment, the form that `dvc metrics` compares.
    """
    rows = pd.concat([read_table(table, COLUMNS) for table in tables])
    summary = rows.groupby(["experiment", "metric"], sort=False)["value"].agg(["count", "mean", "std"]).reset_index()
    summary.insert(1, "title", summary["experiment"].map(titles))
    means: dict[str, dict[str, float]] = {}
    for experiment, metric, mean in summary[["experiment", "metric", "mean"]].itertuples(index=False):
        if math.isfinite(mean):  # JSON has no word for the others
            means.setdefault(experiment, {})[metric] = float(f"{mean:.4g}")
    with all_or_none([target, target.with_suffix(".json")]):
        with whole_file(target.with_suffix(".json")) as path:
            path.write_text(json.dumps(means, indent=1) + "\n")
        with whole_file(target) as path:
            named = summary.rename(columns={"count": "seeds", "std": "sd"})
            named.to_csv(path, index=False, float_format="%.4g")
