"""Learning curves: the energies of data and samples, and the entropy, against the training step."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddgm.errors import UserError
from ddgm.figures.style import DATA, ENTROPY, PAGE, SAMPLES, SMALL_PRINT, look, read_table, save

COLUMNS = 3
ROW = 1.75  # inches


def _seeds_and_mean(panel: Axes, history: pd.DataFrame, column: str, colour: str) -> None:
    """A thin line for each seed; their mean, thick, over the steps that all of them have reached."""
    by_seed = history.pivot_table(index="step", columns="seed", values=column, dropna=False)
    for seed in by_seed:
        line = by_seed[seed].dropna()
        panel.plot(line.index, line, color=colour, linewidth=0.4, alpha=0.45)
    mean = by_seed.dropna().mean(axis=1)
    panel.plot(mean.index, mean, color=colour, linewidth=1.2)


def _broken(name: str, width: int) -> str:
    """`name` in lines of at most `width` letters where it can be broken: after an underscore or a space."""
    return "\n".join(textwrap.wrap(name.replace("_", "_ "), width)).replace("_ ", "_")


def _draw_experiment(upper: Axes, lower: Axes, history: pd.DataFrame) -> None:
    _seeds_and_mean(upper, history, "energy_samples", SAMPLES)
    _seeds_and_mean(upper, history, "energy_data", DATA)
    seeds = history["seed"].nunique()
    upper.tick_params(labelbottom=False)
    if history["entropy"].notna().any():
        _seeds_and_mean(lower, history, "entropy", ENTROPY)
    else:
        lower.text(0.5, 0.5, "no entropy term", transform=lower.transAxes, ha="center", va="center", size=6)
        lower.set_yticks([])
    lower.locator_params(axis="x", nbins=4)
    if lower.get_yticks().size:
        lower.locator_params(axis="y", nbins=3)
    upper.locator_params(axis="y", nbins=5)
    upper.text(
        0.98, 0.97, f"{seeds} seed{'s' if seeds > 1 else ''}", transform=upper.transAxes, ha="right", va="top",
        size=6, color=SMALL_PRINT,
    )  # fmt: skip


def draw(histories: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """For each experiment E(x+) and E(x-) against the step, all seeds thin and their mean thick; entropy below.

    `histories` maps a name to its csv with the columns seed, step, energy_data, energy_samples, entropy (energies
    in nats; an entropy without any value means that there is none). Raises UserError for other tables.
    """
    if not histories:
        raise UserError("the learning curves have no experiment to draw; name at least one")
    wanted = ["seed", "step", "energy_data", "energy_samples", "entropy"]
    tables = {experiment: read_table(path, wanted) for experiment, path in histories.items()}
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
            upper.set_title(_broken(experiment, 90 // columns), size=7)
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
