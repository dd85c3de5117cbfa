"""Learning curves: the energies of data and samples, and the entropy, against the training step."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddgm.errors import UserError
from ddgm.figures.style import DATA, ENTROPY, PAGE, SAMPLES, look, save
from ddgm.reading import read_table

COLUMNS = 3
ROW = 1.75  # inches


def by_seed(history: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.Series]:
    """`column` with a row for each step and a column for each seed; and the seeds' mean.

    The mean is over the steps at which every seed has a value: it ends where the first seed stops, rather than
    jump to the mean of those that went on.
    """
    seeds = history.pivot(index="step", columns="seed", values=column)
    return seeds, seeds.dropna().mean(axis=1)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """`value` over seeds at each step that all of them have: columns mean, least, greatest."""
    seeds = table.pivot_table(index="step", columns="seed", values="value").dropna()
    return pd.DataFrame({"mean": seeds.mean(axis=1), "least": seeds.min(axis=1), "greatest": seeds.max(axis=1)})


def plot_seeds(panel: Axes, history: pd.DataFrame, column: str, colour: str, style: Any = "-") -> None:
    """A column of a table along its steps: each seed thin, their mean thick."""
    seeds, mean = by_seed(history, column)
    for seed in seeds:
        line = seeds[seed].dropna()
        panel.plot(line.index, line, color=colour, linestyle=style, linewidth=0.4, alpha=0.45)
    panel.plot(mean.index, mean, color=colour, linestyle=style, linewidth=1.2)


def read_history(path: Path) -> pd.DataFrame:
    """A training's history.csv, checked."""
    history = read_table(path, ["seed", "step", "energy_data", "energy_samples", "entropy"])
    twice = history[history.duplicated(["seed", "step"])]
    if not twice.empty:
        seed, step = twice.iloc[0][["seed", "step"]]
        raise UserError(f"{path} has two rows for seed {seed:.0f} at step {step:.0f}; train this experiment again")
    return history


def _broken(name: str, width: int) -> str:
    """`name` in lines of at most `width` letters where it can be broken: after an underscore or a space."""
    return "\n".join(textwrap.wrap(name.replace("_", "_ "), width)).replace("_ ", "_")


def _draw_experiment(upper: Axes, lower: Axes, history: pd.DataFrame) -> None:
    plot_seeds(upper, history, "energy_samples", SAMPLES)
    plot_seeds(upper, history, "energy_data", DATA)
    upper.tick_params(labelbottom=False)
    if history["entropy"].fillna(0).any():
        plot_seeds(lower, history, "entropy", ENTROPY)
    else:
        lower.text(0.5, 0.5, "no entropy term", transform=lower.transAxes, ha="center", va="center", size=6)
        lower.set_yticks([])
    lower.locator_params(axis="x", nbins=4)
    if lower.get_yticks().size:
        lower.locator_params(axis="y", nbins=3)
    upper.locator_params(axis="y", nbins=5)


def draw(histories: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """For each experiment E(x+) and E(x-) against the step, all seeds thin and their mean thick; entropy below.

    `histories` maps a name to its csv with the columns seed, step, energy_data, energy_samples, entropy (energies
    in nats; an entropy without any value, or of 0 throughout, means that there is none). Raises UserError for other
    tables.
    """
    if not histories:
        raise UserError("the learning curves have no experiment to draw; name at least one")
    tables = {experiment: read_history(path) for experiment, path in histories.items()}
    columns = min(COLUMNS, len(tables))
    rows = -(-len(tables) // columns)
    with look():
        figure = Figure(figsize=(PAGE, 0.22 + rows * ROW))
        # One lattice for all, so that axes line up across experiments whatever stands in their labels.
        lattice = figure.add_gridspec(2 * rows, columns, height_ratios=[2.4, 1] * rows)
        for number, (experiment, history) in enumerate(tables.items()):
            row, column = divmod(number, columns)
            upper = figure.add_subplot(lattice[2 * row, column])
            lower = figure.add_subplot(lattice[2 * row + 1, column], sharex=upper)
            seeds = history["seed"].nunique()
            words = f"{experiment}, {seeds} seed{'s' if seeds > 1 else ''}"
            upper.set_title(_broken(words, 90 // columns), size=7)
            _draw_experiment(upper, lower, history)
            if column == 0:
                upper.set_ylabel("energy (nats)", size=7)
                lower.set_ylabel("entropy", size=7)
            if number + columns >= len(tables):
                lower.set_xlabel("training step", size=7)
        meanings = [("E(x⁺), training data", DATA), ("E(x⁻), samples", SAMPLES), ("entropy term", ENTROPY)]
        figure.legend(
            [Line2D([], [], color=colour, linewidth=1.2) for _, colour in meanings],
            [words for words, _ in meanings],
            loc="outside upper center",
            ncols=3,
            fontsize=7,
        )
        save(figure, outputs)
