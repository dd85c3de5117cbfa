"""Learning curves of an image experiment: energies, how far apart data and samples are, and how much samples vary."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddgm.figures.curves import plot_seeds, read_history
from ddgm.figures.style import DATA, ENERGY, PAGE, SAMPLES, look, save
from ddgm.reading import read_table

TALL = 1.9  # inches


def scale_nats(panel: Axes, values: np.ndarray) -> None:
    """An axis of nats: linear to 1 and logarithmic beyond where values span two powers of ten or more, else linear.

    On the logarithmic one, values that lie close together would have no number beside them.
    """
    powers = np.sign(values) * np.log10(1 + np.abs(values))
    wide = np.ptp(powers) >= 2
    if wide:
        panel.set_yscale("symlog", linthresh=1)
    panel.set_ylabel("nats, linear below 1" if wide else "nats", size=7)


def draw(history: Path, outputs: Sequence[Path], title: str) -> None:
    """From a training's history.csv with the column `spread`: every seed thin, their mean thick.

    (a) E(x+) and E(x-), (b) E(x-) - E(x+), both in nats; (c) the variance of samples over that of the data. Raises
    UserError for other tables.
    """
    table = read_history(history).assign(spread=read_table(history, ["spread"])["spread"])
    table["gap"] = table["energy_samples"] - table["energy_data"]
    with look():
        figure = Figure(figsize=(PAGE, TALL))
        energies, gap, spread = figure.subplots(1, 3)
        plot_seeds(energies, table, "energy_samples", SAMPLES)
        plot_seeds(energies, table, "energy_data", DATA, (0, (2, 2)))  # What coincides is seen as two.
        scale_nats(energies, table[["energy_data", "energy_samples"]].to_numpy())
        energies.set_title("E of data (red), samples (blue)", size=7)
        plot_seeds(gap, table, "gap", ENERGY)
        scale_nats(gap, table["gap"].to_numpy())
        gap.set_title("E(samples) − E(data)", size=7)
        plot_seeds(spread, table, "spread", SAMPLES)
        spread.axhline(1, color=DATA, linewidth=0.6)
        spread.set_ylim(bottom=0)
        spread.set_title("variance of samples / of data", size=7)
        for panel in (energies, gap, spread):
            panel.set_xlabel("training step", size=7)
            panel.locator_params(axis="x", nbins=5)
        seeds = table["seed"].nunique()
        figure.suptitle(f"{title}: along training, {seeds} seed{'s' if seeds > 1 else ''}", size=8)
        save(figure, outputs)
