"""A table of one experiment that may hold no row, such as that of paths between digits where all samples are one."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ddgm.errors import UserError


def read_experiment(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The csv file `path`; raises UserError if it lacks one of `columns` or holds more than one `experiment`."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} cannot be read as a csv file: {fault}") from fault
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; a header {','.join(columns)} is needed")
    experiments = table["experiment"].unique()
    if len(experiments) > 1:
        raise UserError(
            f"{path} holds {', '.join(map(str, experiments))}, but the figure draws one; give its own table"
        )
    return table
