"""Figure 2, extended: the densities of data, energy model and generator, and where the last two are wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from ddgm.errors import UserError
from ddgm.figures.fig2 import box_in_words, first_energy, heat, remark, require_all, require_equal_steps
from ddgm.figures.metric import metric_named
from ddgm.figures.style import PAGE, SMALL_PRINT, blank_page, look, save, wrapped
from ddgm.reading import read_arrays, read_table

# Steps of 1/64, which the eye reads as contours. Both scales are safe for the colour-blind.
DENSITY_COLOURS = LinearSegmentedColormap.from_list(
    "white to magma", ["white", *matplotlib.colormaps["magma_r"](np.linspace(0.1, 1, 9))], N=64
)
ERROR_COLOURS = matplotlib.colormaps["PuOr"].resampled(63)
LARGEST_ERROR = 0.5  # of the data's highest density, where the colour scale of errors ends

# The page, inches: three densities and, apart from them, two errors.
EDGE, BETWEEN, APART = 0.03, 0.05, 0.12
PANEL = (PAGE - 2 * EDGE - 3 * BETWEEN - APART) / 5
LEFTS = [EDGE + column * (PANEL + BETWEEN) + (column > 2) * (APART - BETWEEN) for column in range(5)]
HEAD, LETTERS, NUMBERS, FOOT = 0.3, 0.135, 0.27, 0.56
ASIDE = 2.0  # right of a title

COLUMNS = (
    ("data D", "exact density", ()),
    ("energy model T", "exp(−E(x)) / Z", ("log_partition",)),
    ("generator G", "histogram of samples", ("kl_generator_model", "tv_generator_model")),
    ("T − D", "error of the energy model", ("kl_data_model", "tv_data_model")),
    ("G − D", "error of the generator", ("kl_data_generator", "tv_data_generator")),
)


@dataclass(frozen=True)
class Row:
    """One experiment: its first seed's densities, per unit area, and the numbers of all its seeds."""

    title: str
    axis: np.ndarray  # (g,), the same along both sides of the box
    data: np.ndarray  # (g, g), indexed [iy, ix]
    model: np.ndarray | None  # (g, g); None where exp(-E) has no integral
    generator: np.ndarray  # (g, g)
    metrics: pd.DataFrame  # columns seed, metric, value

    @property
    def seeds(self) -> int:
        return self.metrics["seed"].nunique()

    @property
    def panels(self) -> list[np.ndarray]:
        """D, T, G, T - D, G - D in units of D's highest; a T without integral is empty."""
        peak = self.data.max()
        model = np.zeros_like(self.data) if self.model is None else self.model
        densities = (self.data, model, self.generator)
        return [values / peak for values in (*densities, model - self.data, self.generator - self.data)]


def read_row(experiment: str, title: str, samples: Path, metrics: Path) -> Row:
    """Read one experiment's files (formats: see `draw`) and keep the first seed's arrays.

    The first seed is the first in the arrays and the first in the table. Raises UserError for a file with other
    shapes, with energies or densities that are no numbers, or without this experiment's log_partition.
    """
    arrays = read_arrays(
        samples,
        {
            "axis": ("g",),
            "energy": ("S", "g", "g"),
            "data_density": ("g", "g"),
            "generator_density": ("S", "g", "g"),
        },
    )
    require_equal_steps(samples, arrays["axis"])
    energy, data = first_energy(samples, arrays["energy"]), arrays["data_density"]
    generator = arrays["generator_density"][0].astype(np.float64)
    if not 0 < data.max() < np.inf:
        raise UserError(f"{samples}: 'data_density' {data.shape} has the highest value {data.max()}; sample again")
    if not np.isfinite(generator).all():
        raise UserError(f"{samples}: 'generator_density' {generator.shape} holds NaN or infinity; sample again")

    table = read_table(metrics, ["experiment", "seed", "metric", "value"])
    table = table[table["experiment"] == experiment]
    log_partition = table.loc[table["metric"] == "log_partition", "value"]
    if log_partition.empty or np.isnan(log_partition.iloc[0]) or np.isneginf(log_partition.iloc[0]):
        raise UserError(f"{metrics} has no log_partition of {experiment}'s first seed; evaluate it again")
    integrable = np.isfinite(log_partition.iloc[0])
    model = np.exp(-energy - log_partition.iloc[0]) if integrable else None
    return Row(title, arrays["axis"], data.astype(np.float64), model, generator, table)


def mean_and_spread(table: pd.DataFrame, metric: str) -> str:
    """The mean over seeds, with ± standard deviation if there are two seeds or more; a dash if not measured.

    `table` has the columns metric and value, a row for each seed.
    """
    values = table.loc[table["metric"] == metric, "value"].to_numpy()
    if len(values) == 0 or np.isnan(values).all():
        return "–"
    if not np.isfinite(values).all():
        # Neither a mean nor a spread exists; for how many seeds is what can be said.
        word = "∞" if np.isinf(values).any() else "none"
        return f"{word} in {(~np.isfinite(values)).sum()} of {len(values)}"
    largest = max(abs(values.mean()), values.std())
    form = ".3f" if largest < 9.9995 else ".1f" if largest < 999.95 else ".0f" if largest < 1e5 else ".0e"
    mean = f"{values.mean():{form}}".replace("-", "−")
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):{form}}"


def _numbers(panel: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Under a panel, a line each: the name on the left, the number on the right."""
    for line, (name, number) in enumerate(lines):
        y = -(0.035 + 0.105 * line) / PANEL
        panel.text(0, y, name, transform=panel.transAxes, ha="left", va="top", size=6)
        panel.text(1, y, number, transform=panel.transAxes, ha="right", va="top", size=6)


def _draw_row(panels: Sequence[Axes], row: Row, densities: Normalize, errors: Normalize) -> None:
    for number, (panel, values, (_, _, metrics)) in enumerate(zip(panels, row.panels, COLUMNS, strict=True)):
        colours, scale = (DENSITY_COLOURS, densities) if number < 3 else (ERROR_COLOURS, errors)
        heat(panel, row.axis, values, colours, scale)
        _numbers(panel, [(metric_named(metric).label, mean_and_spread(row.metrics, metric)) for metric in metrics])
    cell = (row.axis[1] - row.axis[0]) ** 2
    if row.model is None:
        remark(panels[1], "not integrable")
    for panel, density in ((panels[1], row.model), (panels[2], row.generator)):
        if density is not None and abs(density.sum() * cell - 1) >= 0.02:
            remark(panel, f"mass in the box {density.sum() * cell:.2f}")


def draw(
    samples: Mapping[str, Path], metrics: Mapping[str, Path], titles: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """A row of five panels for each experiment, in the order of `samples`; the first seed is drawn, never the best.

    From left to right, in units of the row's highest density of the data: the exact density of the data D; that of
    the energy model T, exp(-E)/Z; the histogram of the generator G; and the errors T - D and G - D. Below: log Z, and
    KL in nats and total variation (TV) between two of them, mean ± standard deviation over seeds. Where exp(-E) has no
    integral (log_partition inf) the panel says so, T is drawn empty and T - D as -D.

    For each experiment:
      samples  npz: axis (g,), the grid along each side of a square box; energy (S, g, g) in nats, indexed
               [seed, iy, ix]; data_density (g, g) and generator_density (S, g, g) per unit area
      metrics  csv: experiment, seed, metric, value; log_partition must be among the metrics
      titles   what stands above its row

    Raises UserError for a missing experiment and as `read_row` does.
    """
    require_all(samples, {"metrics": metrics, "titles": titles}, "figure 2, extended,")
    rows = [read_row(e, titles[e], samples[e], metrics[e]) for e in samples]
    densities, errors = Normalize(0, 1), Normalize(-LARGEST_ERROR, LARGEST_ERROR)
    with look():
        headings = [
            wrapped(f"({letter}) {row.title}", PAGE - 2 * EDGE - ASIDE)
            for letter, row in zip(ascii_lowercase, rows, strict=False)
        ]
        # Where the panels of each row begin, inches below the page's upper edge.
        tops = [HEAD + LETTERS * len(headings[0]) + 0.05]
        for lines in headings[1:]:
            tops.append(tops[-1] + PANEL + NUMBERS + LETTERS * len(lines) + 0.05)
        tall = tops[-1] + PANEL + NUMBERS + FOOT
        figure = blank_page(tall)

        for row, lines, top in zip(rows, headings, tops, strict=True):
            bottom = 1 - (top + PANEL) / tall
            panels = [figure.add_axes((left / PAGE, bottom, PANEL / PAGE, PANEL / tall)) for left in LEFTS]
            _draw_row(panels, row, densities, errors)
            above = 1 - (top - 0.035) / tall
            figure.text(EDGE / PAGE, above, "\n".join(lines), ha="left", va="bottom")
            figure.text(
                1 - EDGE / PAGE, above, f"n = {row.seeds}; highest density of D {row.data.max():.3g}", ha="right",
                va="bottom", size=6,
            )  # fmt: skip

        for left, (name, meaning, _) in zip(LEFTS, COLUMNS, strict=True):
            for y, words, size in ((0.09, name, 8), (0.21, meaning, 6)):
                figure.text((left + PANEL / 2) / PAGE, 1 - y / tall, words, ha="center", va="center", size=size)

        sharper = any(values.max() > 1 for row in rows for values in row.panels[:3])
        worse = any(np.abs(values).max() > LARGEST_ERROR for row in rows for values in row.panels[3:])
        for first, last, colours, scale, extend, label, ticks in (
            (0, 2, DENSITY_COLOURS, densities, "max" if sharper else "neither", "density", (0, 0.25, 0.5, 0.75, 1)),
            (3, 4, ERROR_COLOURS, errors, "both" if worse else "neither", "error", (-0.5, -0.25, 0, 0.25, 0.5)),
        ):
            wide = LEFTS[last] + PANEL - LEFTS[first]
            inset = 0.08  # keeps the outermost numbers from those of the next bar and from the edge
            place = ((LEFTS[first] + inset) / PAGE, (FOOT - 0.12) / tall, (wide - 2 * inset) / PAGE, 0.07 / tall)
            bar = figure.colorbar(
                ScalarMappable(scale, colours), cax=figure.add_axes(place), orientation="horizontal", extend=extend,
                extendfrac=0.04,
            )  # fmt: skip
            bar.set_label(f"{label} / highest density of D", size=7)
            bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "−") for tick in ticks])
        figure.text(
            EDGE / PAGE, 0.03 / tall,
            f"{box_in_words([row.axis for row in rows])}The first seed is drawn, never the best. Numbers: mean ± sd "
            "over n seeds; KL in nats; TV, total variation.",
            ha="left", va="bottom", size=6, color=SMALL_PRINT,
        )  # fmt: skip
        save(figure, outputs)
