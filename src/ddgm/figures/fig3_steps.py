"""Figure 3 with what each step is: its class and its energy, and both along the line in z or through pixel blending."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ddgm.errors import UserError
from ddgm.figures.curves import over_seeds
from ddgm.figures.experiment_table import read_experiment
from ddgm.figures.fig3 import interpolation_picture
from ddgm.figures.inches import EDGE, page_of
from ddgm.figures.style import DPI, ENERGY, PAGE, SAMPLES, first_of, look, require_images, save, trained_on
from ddgm.metrics.cutoffs import SURE
from ddgm.reading import read_arrays

# Red and blue mean data and samples everywhere, so the digit between has a colour of its own.
BETWEEN, GREY = "#aa3377", "#999999"
PATHS = {
    "z": ("lines in z", {"color": SAMPLES, "linestyle": "-"}),
    "pixels": ("blended pixels", {"color": ENERGY, "linestyle": (0, (3, 1.2))}),
}
MEASURES = {
    "confidence": "classifier's confidence",
    "energy": "energy (nats)",
    "pixel_step": "step's length, pixels",
    "feature_step": "step's length, features",
}

# The page, inches. Twelve digits of 28 pixels fill the pictures' width with two dots a pixel at DPI.
PICTURES, NUMBERS, LETTERS, TRACE, APART = 3.61, 0.4, 0.115, 0.16, 0.07
LEGEND, TITLE, BELOW, PANEL = 0.3, 0.14, 0.17, 0.62


def read_steps(evidence: Path) -> dict[str, np.ndarray]:
    """The arrays that `draw` names, checked. Raises UserError for other shapes or types, or energies without value."""
    steps = ("S", "rows", "steps")
    arrays = read_arrays(
        evidence,
        {
            "interpolations": (*steps, 1, "H", "W"),
            "step_class": steps,
            "step_confidence": steps,
            "step_energy": steps,
            "source": (),
        },
    )
    require_images(evidence, "interpolations", arrays["interpolations"])
    if arrays["interpolations"].shape[2] < 3:
        raise UserError(
            f"{evidence}: 'interpolations' has the shape {arrays['interpolations'].shape}, but the figure needs "
            "at least 3 steps: two end points and what lies between them"
        )
    if not np.isfinite(arrays["step_energy"]).all():
        raise UserError(f"{evidence}: 'step_energy' holds NaN or infinite values; measure this experiment again")
    return arrays


def read_paths(table: Path) -> pd.DataFrame:
    """The rows of MEASURES along PATHS, none where no two samples differ in class.

    Raises UserError if only the confidence or energy of one path is missing.
    """
    rows = read_experiment(table, ["experiment", "seed", "path", "step", "metric", "value"])
    for path in PATHS if len(rows) else ():
        for metric in ("confidence", "energy"):
            if not ((rows["path"] == path) & (rows["metric"] == metric)).any():
                raise UserError(f"{table} has no {metric} of the path {path!r}; measure this experiment again")
    return rows


def between(classes: np.ndarray) -> np.ndarray:
    """Where a step's class is that of neither end: classes (..., steps) to bool (..., steps)."""
    return (classes != classes[..., :1]) & (classes != classes[..., -1:])


def tile_middles(steps: int, width: int) -> np.ndarray:
    """The middle of each tile of `interpolation_picture`, (steps,), in pixels from its left edge."""
    blank = np.zeros((1, steps, 1, 1, width), np.uint8)
    inside = (interpolation_picture(blank)[0, :, 0] == 0).nonzero()[0].reshape(steps, width)
    return inside.mean(1) + 0.5


def energy_scale(energy: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest energy that rows show, which have 0 between them."""
    return min(energy.min(initial=0), 0.0), max(energy.max(initial=0), 0.0)


def draw_rows(
    canvas: Axes, arrays: Mapping[str, np.ndarray], scale: tuple[float, float], pixel: float, dpi: float
) -> None:
    """Row by row the pictures, below them their classes and their energies, on a `canvas` in inches downwards.

    arrays  those of one seed: interpolations (rows, steps, 1, H, W), step_* (rows, steps)
    scale   the energies, nats, that the rows show
    """
    images, energy = arrays["interpolations"], arrays["step_energy"]
    rows, steps, _, height, width = images.shape
    middles, wide, high = tile_middles(steps, width) * pixel, width * pixel, height * pixel
    pitch = row_pitch(height, pixel, dpi)
    strange = between(arrays["step_class"])
    low, top = scale
    for row in range(rows):
        above = row * pitch
        # "none" is whole dots in the PNG, and in the PDF the pixels themselves.
        canvas.imshow(
            interpolation_picture(images[row : row + 1]), extent=(0, PICTURES, above + high, above),
            interpolation="none", aspect="auto",
        )  # fmt: skip
        for step, middle in enumerate(middles):
            sure = arrays["step_confidence"][row, step] >= SURE
            marked = sure and strange[row, step]
            if marked:
                box = (middle - wide / 2, above + high + 0.012)
                canvas.add_patch(Rectangle(box, wide, LETTERS - 0.012, color=BETWEEN, linewidth=0))
            canvas.text(
                middle, above + high + LETTERS - 0.018, f"{arrays['step_class'][row, step]}", ha="center",
                va="baseline", size=7, weight="bold" if marked else "normal",
                color="white" if marked else "black" if sure else GREY,
            )  # fmt: skip
        # Low energy lies low: downwards on the canvas.
        lowest = above + high + LETTERS + 0.02 + TRACE
        zero, *line = lowest - TRACE * (np.array([0, *energy[row]]) - low) / max(top - low, 1e-12)
        canvas.plot([0, PICTURES], [zero, zero], color="#bbbbbb", linewidth=0.4, zorder=1)
        canvas.plot(middles, line, color=SAMPLES, linewidth=0.8, marker="o", markersize=1.3, markeredgewidth=0)
    canvas.set(xlim=(0, PICTURES), ylim=(rows * pitch, 0))
    canvas.set_axis_off()


def whole_dots_of(images: np.ndarray) -> tuple[float, float]:
    """Inches for a pixel of `images` (rows, steps, 1, H, W), a row of which fills PICTURES, and the dots per inch.

    Each pixel becomes a whole number of dots; the dots per inch follow from it and lie near DPI.
    """
    pixel = PICTURES / interpolation_picture(images[:1]).shape[1]
    return pixel, max(1, round(pixel * DPI)) / pixel


def row_pitch(height: int, pixel: float, dpi: float) -> float:
    """Inches from one row of pictures to the next, in whole dots."""
    return round((height * pixel + LETTERS + 0.02 + TRACE + APART) * dpi) / dpi


def signed(value: float) -> str:
    """`value` to three digits, with a minus sign as in print."""
    return f"{value:.3g}".replace("-", "−")


def _draw_path(panel: Axes, rows: pd.DataFrame, metric: str) -> None:
    """One metric along both paths: the mean over seeds, in a band from the least to the greatest."""
    panel.set_title(MEASURES[metric], size=7, loc="left")
    if rows.empty:
        panel.set(xticks=[], yticks=[])
        panel.text(0.5, 0.5, "no two classes", transform=panel.transAxes, ha="center", va="center", size=6)
        return
    for path, (_, style) in PATHS.items():
        line = over_seeds(rows[(rows["path"] == path) & (rows["metric"] == metric)])
        panel.fill_between(line.index, line["least"], line["greatest"], color=style["color"], alpha=0.15, linewidth=0)
        panel.plot(line.index, line["mean"], linewidth=1.2, **style)
    last = rows["step"].max()
    panel.set(xlim=(-0.03 * last, 1.03 * last))
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    if metric.endswith("_step"):
        # Lengths are compared, and a length begins at 0.
        panel.set_ylim(0, 1.05 * panel.dataLim.y1 or 1)


def draw(evidence: Path, table: Path, outputs: Sequence[Path], title: str) -> None:
    """The first seed's lines in z, each step with its class and its energy; beside them all pairs, all seeds.

    evidence  npz: interpolations uint8 (S, rows, steps, 1, H, W), step_class int, step_confidence (0 to 1) and
              step_energy (nats above the test set's mean) (S, rows, steps), source: what the pair was trained on
    table     csv: experiment, seed, path (z or pixels), step, metric (of MEASURES), value; without rows where no
              two samples differ in class

    Raises UserError for arrays or tables of another form.
    """
    arrays, rows = read_steps(evidence), read_paths(table)
    seeds, count, _, _, height, _ = arrays["interpolations"].shape
    first = {name: array[0] for name, array in arrays.items() if name != "source"}
    pixel, dpi = whole_dots_of(first["interpolations"])
    block = count * row_pitch(height, pixel, dpi)
    metrics = [metric for metric in MEASURES if rows.empty or (rows["metric"] == metric).any()]
    above = TITLE + 0.03
    panel_high = max(PANEL, (block - LEGEND - 0.16) / len(metrics) - above - BELOW)
    body = max(block, LEGEND + 0.16 + len(metrics) * (above + panel_high + BELOW))
    scale = energy_scale(first["step_energy"])
    note = (
        f"Left: {first_of(seeds)}, {trained_on(arrays['source'])}. Under each picture the classifier's digit: grey "
        f"below a confidence of {SURE:g}, on purple if it is the digit of neither end. Below them the energy, all "
        f"rows on one scale from {signed(scale[0])} to {signed(scale[1])} nats; grey line: 0, "
        "the test set's mean. Right: means over all pairs; lines: mean over seeds, bands: all seeds."
    )
    with look():
        figure, place = page_of(f"{title}: lines in z, with each step's class and energy", body, note, dpi)
        canvas = place(EDGE, 0, PICTURES, block)
        draw_rows(canvas, first, scale, pixel, dpi)
        left = EDGE + PICTURES + NUMBERS
        for number, metric in enumerate(metrics):
            down = LEGEND + number * (above + panel_high + BELOW) + above
            panel = place(left, down, PAGE - left - 0.07, panel_high)
            _draw_path(panel, rows, metric)
            panel.tick_params(labelsize=6)
            if metric == metrics[-1]:
                panel.set_xlabel("step", size=7)
        key = place(left, 0, PAGE - left - EDGE, LEGEND)
        key.set_axis_off()
        key.legend(
            [Line2D([], [], linewidth=1.2, **style) for _, style in PATHS.values()],
            [words for words, _ in PATHS.values()],
            loc="upper left", fontsize=7, borderaxespad=0, borderpad=0, labelspacing=0.3, bbox_to_anchor=(0, 1),
        )  # fmt: skip
        save(figure, outputs, dpi=dpi, exact_colours=True)
