"""Figure 2: the 2D experiments: do samples, energy and data agree (section 4)?

The paper's two panels a row, and beside them the densities that the energy stands for and that the data have.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from ddgm.errors import UserError
from ddgm.figures.style import (
    DATA,
    PAGE,
    SAMPLES,
    SMALL_PRINT,
    blank_page,
    look,
    read_arrays,
    read_table,
    require_shape,
    save,
)

HIGHEST = 15.0  # nats above the lowest energy in the box where the colour scale ends: exp(-15) is 3e-7
POINTS = 5000  # of the data and of the samples each
# Steps of half a nat and of 1/64, which the eye reads as contours. Both scales are safe for the colour-blind.
ENERGY_COLOURS = matplotlib.colormaps["RdYlBu_r"].resampled(30)  # blue low, red high, as in the paper
DENSITY_COLOURS = LinearSegmentedColormap.from_list(
    "white to magma", ["white", *matplotlib.colormaps["magma_r"](np.linspace(0.1, 1, 9))], N=64
)

# The page, inches.
LEFT, BETWEEN, RIGHT = 0.33, 0.07, 0.03
PANEL = (PAGE - LEFT - RIGHT - 3 * BETWEEN) / 4
HEAD, NUMBERS, FOOT = 0.33, 0.34, 0.56
ROW = PANEL + NUMBERS


@dataclass(frozen=True)
class Row:
    """One experiment, its first seed's arrays and the numbers of all its seeds."""

    title: str
    data: np.ndarray  # (points, 2)
    samples: np.ndarray  # (n, 2)
    axis: np.ndarray  # (g,), the same along both sides of the box
    energy: np.ndarray  # (g, g), nats, indexed [iy, ix]
    model_density: np.ndarray  # (g, g), per unit area
    data_density: np.ndarray  # (g, g), per unit area
    metrics: pd.DataFrame  # columns seed, metric, value
    seeds: int

    @property
    def count(self) -> int:
        """How many training points, and how many samples, are drawn."""
        return min(POINTS, len(self.data), len(self.samples))


def read_row(experiment: str, title: str, samples: Path, metrics: Path, data: Path) -> Row:
    """Read one experiment's files (formats: see `draw`) and keep the first seed's arrays.

    The first seed is the first in the arrays and the first in the table. Raises UserError for a file with other
    shapes, with energies that are no numbers, or without this experiment's log_partition.
    """
    arrays = read_arrays(
        samples,
        {
            "samples": ("S", "n", 2),
            "axis": ("g",),
            "energy": ("S", "g", "g"),
            "data_density": ("g", "g"),
        },
    )
    try:
        points = np.load(data, allow_pickle=False)
    except (OSError, EOFError, ValueError) as fault:
        raise UserError(f"{data} cannot be read as an npy file ({fault}); prepare the data again") from fault
    require_shape(data, "the data", points, ("points", 2))
    energy, first, axis = arrays["energy"][0].astype(np.float64), arrays["samples"][0], arrays["axis"]
    if np.isnan(energy).any() or np.isneginf(energy).any() or not np.isfinite(first).all():
        raise UserError(
            f"{samples}: the first seed's energies {energy.shape} or samples {first.shape} hold NaN or infinity"
        )
    peak = arrays["data_density"].max()
    if not 0 < peak < np.inf:
        raise UserError(f"{samples}: 'data_density' {arrays['data_density'].shape} has the highest value {peak}")
    if len(axis) < 2 or not np.allclose(np.diff(axis), axis[1] - axis[0], rtol=1e-3) or axis[1] <= axis[0]:
        raise UserError(f"{samples}: 'axis' {axis.shape} must rise in equal steps, as np.linspace(-3, 3, 151) does")

    table = read_table(metrics, ["experiment", "seed", "metric", "value"])
    table = table[table["experiment"] == experiment]
    log_partition = table.loc[table["metric"] == "log_partition", "value"]
    if log_partition.empty or not np.isfinite(log_partition.iloc[0]):
        raise UserError(f"{metrics} has no finite log_partition of {experiment}'s first seed; evaluate it again")
    return Row(
        title=title,
        data=points,
        samples=first,
        axis=axis,
        energy=energy,
        model_density=np.exp(-energy - log_partition.iloc[0]),
        data_density=arrays["data_density"],
        metrics=table,
        seeds=table["seed"].nunique(),
    )


def mean_and_spread(row: Row, metric: str) -> str:
    """The mean over seeds, with ± standard deviation if there are two seeds or more; a dash if not measured."""
    values = row.metrics.loc[row.metrics["metric"] == metric, "value"].to_numpy()
    if len(values) == 0 or np.isnan(values).all():
        return "–"
    if not np.isfinite(values).all():
        # Neither a mean nor a spread exists; for how many seeds is what can be said.
        word = "∞" if np.isinf(values).any() else "none"
        return f"{word} in {(~np.isfinite(values)).sum()} of {len(values)}"
    digits = 3 if abs(values.mean()) < 9.9995 else 1
    mean = f"{values.mean():.{digits}f}".replace("-", "−")
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def _scatter(panel: Axes, row: Row) -> None:
    """Equally many training points and samples, in random order, so that neither colour covers the other."""
    points = np.concatenate([row.data[: row.count], row.samples[: row.count]])
    colours = np.repeat([DATA, SAMPLES], row.count)
    order = np.random.default_rng(0).permutation(len(points))
    panel.scatter(*points[order].T, c=colours[order], s=0.8, alpha=0.35, marker="o", linewidths=0, rasterized=True)
    low, high = row.axis[0], row.axis[-1]
    outside = ((row.samples < low) | (row.samples > high)).any(1).mean()
    if outside >= 0.005:
        _remark(panel, f"{outside:.0%} of samples outside")


def _heat(panel: Axes, row: Row, values: np.ndarray, colours: Colormap, scale: Normalize) -> None:
    # A grid's values stand at the middles of its cells, so the picture reaches half a cell beyond the box.
    half = (row.axis[1] - row.axis[0]) / 2
    low, high = row.axis[0] - half, row.axis[-1] + half
    # Far above the scale all is one colour; infinities would spoil the interpolation beside them.
    panel.imshow(
        values.clip(max=2 * scale.vmax), origin="lower", extent=(low, high, low, high), cmap=colours, norm=scale,
        interpolation="bilinear", interpolation_stage="data",
    )  # fmt: skip


def _remark(panel: Axes, words: str) -> None:
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
    panel.text(0.5, 0.03, words, transform=panel.transAxes, ha="center", va="bottom", size=6, bbox=box)


def _numbers(panel: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Under a panel, a line each: the name on the left, the number on the right."""
    for line, (name, number) in enumerate(lines):
        y = -(0.035 + 0.13 * line) / PANEL
        panel.text(0, y, name, transform=panel.transAxes, ha="left", va="top", size=7)
        panel.text(1, y, number, transform=panel.transAxes, ha="right", va="top", size=7)


def _draw_row(panels: Sequence[Axes], row: Row, energy_scale: Normalize, density_scale: Normalize) -> None:
    points, energy, model, data = panels
    _scatter(points, row)
    _heat(energy, row, row.energy - row.energy.min(), ENERGY_COLOURS, energy_scale)
    peak = row.data_density.max()
    _heat(model, row, row.model_density / peak, DENSITY_COLOURS, density_scale)
    _heat(data, row, row.data_density / peak, DENSITY_COLOURS, density_scale)

    cell = (row.axis[1] - row.axis[0]) ** 2
    inside = row.model_density.sum() * cell
    if abs(inside - 1) >= 0.02:
        _remark(model, f"mass in the box {inside:.2f}")

    for panel, pair, ends in (
        (points, "D‖G", "data_generator"),
        (energy, "G‖T", "generator_model"),
        (model, "D‖T", "data_model"),
    ):
        numbers = [("KL", f"kl_{ends}"), ("TV", f"tv_{ends}")]
        shown = [(f"{name}({pair})" if name == "KL" else name, mean_and_spread(row, m)) for name, m in numbers]
        _numbers(panel, shown)
    _numbers(data, [("highest density", f"{peak:.3g}"), ("seeds", f"n = {row.seeds}")])

    for panel in panels:
        low, high = row.axis[0], row.axis[-1]
        panel.set(xlim=(low, high), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
        panel.spines[["top", "right"]].set_visible(True)
    # Two lines of the usual letters or three of smaller ones fit the margin.
    lines, size = textwrap.wrap(row.title, 22), 8.0
    if len(lines) > 2:
        lines, size = textwrap.wrap(row.title, 27, max_lines=3, placeholder=" …"), 6.5
    points.text(
        -0.05, 0.5 - NUMBERS / PANEL / 2, "\n".join(lines), transform=points.transAxes, ha="right", va="center",
        rotation=90, multialignment="center", size=size,
    )  # fmt: skip


def draw(
    samples: Mapping[str, Path],
    metrics: Mapping[str, Path],
    data: Mapping[str, Path],
    titles: Mapping[str, str],
    outputs: Sequence[Path],
) -> None:
    """A row of four panels for each experiment, in the order of `samples`; the first seed is drawn, never the best.

    From left to right: training points (red) and samples (blue); the energy above its lowest value, linear and
    clipped at 15 nats; the density exp(-E)/Z of the energy model; the exact density of the data. The two
    densities share a scale, in units of the data's highest. Below: KL in nats and total variation between data
    D, energy model T and generator G, mean ± standard deviation over seeds.

    For each experiment:
      samples  npz: samples (S, n, 2); axis (g,), the grid along each side of a square box; energy (S, g, g) in
               nats, indexed [seed, iy, ix]; data_density (g, g) per unit area
      metrics  csv: experiment, seed, metric, value; log_partition must be among the metrics
      data     npy: the training points (points, 2)
      titles   the row's name

    Raises UserError for a missing experiment and as `read_row` does.
    """
    for name, others in (("metrics", metrics), ("data", data), ("titles", titles)):
        missing = [experiment for experiment in samples if experiment not in others]
        if missing:
            raise UserError(f"figure 2 has samples of {missing[0]} but no {name} of it; give both or neither")
    if not samples:
        raise UserError("figure 2 has no experiment to draw; name at least one")
    rows = [read_row(e, titles[e], samples[e], metrics[e], data[e]) for e in samples]

    tall = HEAD + len(rows) * ROW + FOOT
    energy_scale, density_scale = Normalize(0, HIGHEST), Normalize(0, 1)

    def place(column: int, top: float, high: float, columns: int = 1) -> tuple[float, float, float, float]:
        """The box of `columns` panels' width whose upper edge is `top` inches below the page's, for add_axes."""
        wide = columns * PANEL + (columns - 1) * BETWEEN
        return ((LEFT + column * (PANEL + BETWEEN)) / PAGE, 1 - (top + high) / tall, wide / PAGE, high / tall)

    with look():
        figure = blank_page(tall)
        for number, row in enumerate(rows):
            panels = [figure.add_axes(place(column, HEAD + number * ROW, PANEL)) for column in range(4)]
            _draw_row(panels, row, energy_scale, density_scale)

        headings = (
            (("training points D", DATA), ("samples of generator G", SAMPLES)),
            (("energy of T", "black"), ("E(x) − lowest E", "black")),
            (("energy model T", "black"), ("density exp(−E(x)) / Z", "black")),
            (("data D", "black"), ("exact density", "black")),
        )
        for column, lines in enumerate(headings):
            x, _, wide, _ = place(column, 0, 0)
            for line, (words, colour) in enumerate(lines):
                y = 1 - (0.08 + 0.13 * line) / tall
                figure.text(x + wide / 2, y, words, ha="center", va="center", color=colour, size=7)

        bars = tall - FOOT + 0.03
        clipped = any(row.energy.max() - row.energy.min() > HIGHEST for row in rows)
        sharper = any(row.model_density.max() > row.data_density.max() for row in rows)
        for column, columns, colours, scale, beyond, label in (
            (1, 1, ENERGY_COLOURS, energy_scale, clipped, f"nats (red: {HIGHEST:.0f} and above)"),
            (2, 2, DENSITY_COLOURS, density_scale, sharper, "density / highest density of the data, per row"),
        ):
            x, y, wide, high = place(column, bars, 0.07, columns)
            inset = 0.05 / PAGE  # keeps the outermost numbers from those of the next bar and from the edge
            bar = figure.colorbar(
                ScalarMappable(scale, colours),
                cax=figure.add_axes((x + inset, y, wide - 2 * inset, high)),
                orientation="horizontal",
                extend="max" if beyond else "neither",
                extendfrac=0.04 / columns,
            )
            bar.set_label(label, size=7)
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "¼", "½", "¾", "1"])
        low, up = rows[0].axis[0], rows[0].axis[-1]
        boxes = {(row.axis[0], row.axis[-1]) for row in rows}
        box = f"Box [{low:g}, {up:g}]²\n".replace("-", "−") if len(boxes) == 1 else ""
        counts = sorted({row.count for row in rows})
        count = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        figure.text(
            0.01, y + high,
            f"{box}{count} points of each colour;\nfirst seed, never the best.\n"
            "KL in nats; TV: total variation\nof the same pair; mean ± sd.",
            ha="left", va="top", size=6, color=SMALL_PRINT, linespacing=1.25,
        )  # fmt: skip
        save(figure, outputs)
