"""Learning curves in two dimensions: how far data, energy model and generator are apart along training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddgm.errors import UserError
from ddgm.figures.curves import plot_seeds, read_history
from ddgm.figures.style import DATA, ENERGY, ENTROPY, PAGE, SAMPLES, look, save, wrapped
from ddgm.reading import read_table

COLUMNS = 4
ROW = 2.3  # inches
# Another than the samples' below: it is a distance, and no energy.
MISSED = "#aa3377"
DIVERGENCES = {
    "kl_data_model": ("KL(D‖T)", ENERGY),
    "kl_data_generator": ("KL(D‖G)", MISSED),
    "kl_generator_model": ("KL(G‖T)", ENTROPY),
}


def read_trace(path: Path) -> pd.DataFrame:
    """A row for each seed and step, a column for each of DIVERGENCES. Raises UserError if the table has none."""
    table = read_table(path, ["seed", "step", "metric", "value"])
    table = table[table["metric"].isin(DIVERGENCES)]
    if table.empty:
        raise UserError(f"{path} has none of {', '.join(DIVERGENCES)}: make it again with 'ddgm trace {path.stem}'")
    wide = table.pivot(index=["seed", "step"], columns="metric", values="value").reset_index()
    return wide.replace([np.inf, -np.inf], np.nan)


def draw(
    traces: Mapping[str, Path], histories: Mapping[str, Path], titles: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """For each experiment the divergences in nats against the step, and below E(x+) and E(x-); seeds thin, mean thick.

    traces     csv each: experiment, seed, step, metric, value; what is infinite is left out
    histories  csv each, as learning curves take them
    titles     what stands above the panels

    Raises UserError for other tables.
    """
    if not traces:
        raise UserError("no experiment of this branch is traced: write its name into the branch's list 'traced'")
    tables = {name: (read_trace(path), read_history(histories[name])) for name, path in traces.items()}
    columns = min(COLUMNS, len(tables))
    rows = -(-len(tables) // columns)
    with look():
        figure = Figure(figsize=(PAGE, 0.35 + rows * ROW))
        lattice = figure.add_gridspec(2 * rows, columns, height_ratios=[2, 1.2] * rows)
        seen = np.concatenate([trace[list(DIVERGENCES)].to_numpy().ravel() for trace, _ in tables.values()])
        seen = seen[seen > 0]
        for number, (name, (trace, history)) in enumerate(tables.items()):
            row, column = divmod(number, columns)
            upper = figure.add_subplot(lattice[2 * row, column])
            lower = figure.add_subplot(lattice[2 * row + 1, column], sharex=upper)
            upper.set_title("\n".join(wrapped(titles[name], (PAGE - 0.6) / columns - 0.1, 7)), size=7)
            for metric, (_, colour) in DIVERGENCES.items():
                plot_seeds(upper, trace, metric, colour)
            for column_name, colour in (("energy_samples", SAMPLES), ("energy_data", DATA)):
                plot_seeds(lower, history, column_name, colour)
            # One scale for all: what is far apart here is far apart there.
            upper.set(yscale="log", ylim=(0.8 * seen.min(), 1.25 * seen.max()))
            upper.tick_params(labelbottom=False, labelleft=column == 0)
            lower.locator_params(axis="x", nbins=3)
            lower.locator_params(axis="y", nbins=3)
            if column == 0:
                upper.set_ylabel("nats", size=7)
                lower.set_ylabel("energy", size=7)
            if number + columns >= len(tables):
                lower.set_xlabel("training step", size=7)
        meanings = [*DIVERGENCES.values(), ("below: E(x⁺), data", DATA), ("E(x⁻), samples", SAMPLES)]
        figure.legend(
            [Line2D([], [], color=colour, linewidth=1.2) for _, colour in meanings],
            [words for words, _ in meanings],
            loc="outside upper center",
            ncols=len(meanings),
            fontsize=7,
        )
        save(figure, outputs)
