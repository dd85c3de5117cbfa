"""A table of one experiment that may hold no row, such as that of paths between digits where all samples are one."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ddgm.errors import UserError
from ddgm.reading import read_table


def read_experiment(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The csv file `path`; raises UserError if it lacks one of `columns` or holds more than one `experiment`."""
    table = read_table(path, columns, may_be_empty=True)
    experiments = table["experiment"].unique()
    if len(experiments) > 1:
        raise UserError(
            f"{path} holds {', '.join(map(str, experiments))}, but the figure draws one; give its own table"
        )
    return table
