"""Figure 2: the 2D experiments as the paper printed them, points beside the heat map of the energy (section 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from ddgm.datasets.prepared import read
from ddgm.errors import UserError
from ddgm.figures.style import DATA, ENERGY_COLOURS, PAGE, SAMPLES, SMALL_PRINT, blank_page, look, save, wrapped
from ddgm.reading import read_arrays, require_shape

HIGHEST = 15.0  # nats above the lowest energy in the box where the colour scale ends: exp(-15) is 3e-7
POINTS = 5000  # of the data and of the samples each

# The page, inches: two experiments on a line, two panels for each.
EDGE, WITHIN, APART = 0.03, 0.05, 0.18
PANEL = (PAGE - 2 * EDGE - 2 * WITHIN - APART) / 4
PAIR = 2 * PANEL + WITHIN
LETTERS = 0.135  # a line of the title
FOOT = 0.47


@dataclass(frozen=True)
class Experiment:
    """One experiment: its training points and its first seed's arrays."""

    title: str
    data: np.ndarray  # (points, 2)
    samples: np.ndarray  # (n, 2)
    axis: np.ndarray  # (g,), the same along both sides of the box
    energy: np.ndarray  # (g, g), nats, indexed [iy, ix]

    @property
    def count(self) -> int:
        """How many training points, and how many samples, are drawn."""
        return min(POINTS, len(self.data), len(self.samples))


def read_experiment(title: str, samples: Path, data: Path) -> Experiment:
    """Read one experiment's files (formats: see `draw`) and keep the first seed's arrays.

    Raises UserError for a file with other shapes or with energies or samples that are no numbers.
    """
    arrays = read_arrays(samples, {"samples": ("S", "n", 2), "axis": ("g",), "energy": ("S", "g", "g")})
    points = read(data)
    require_shape(data, "the data", points, ("points", 2))
    first = arrays["samples"][0]
    if not np.isfinite(first).all():
        raise UserError(f"{samples}: the first seed's samples {first.shape} hold NaN or infinity; sample again")
    require_equal_steps(samples, arrays["axis"])
    return Experiment(title, points, first, arrays["axis"], first_energy(samples, arrays["energy"]))


def first_energy(path: Path, energy: np.ndarray) -> np.ndarray:
    """The first seed's energies (g, g) of `energy` (S, g, g); raises UserError for NaN or minus infinity."""
    first = energy[0].astype(np.float64)
    if np.isnan(first).any() or np.isneginf(first).any() or np.isposinf(first).all():
        raise UserError(f"{path}: the first seed's energies {first.shape} hold NaN or nothing but infinity")
    return first


def require_equal_steps(path: Path, axis: np.ndarray) -> None:
    """Raise UserError unless `axis` (g,) rises in equal steps."""
    if len(axis) < 2 or not np.allclose(np.diff(axis), axis[1] - axis[0], rtol=1e-3) or axis[1] <= axis[0]:
        raise UserError(f"{path}: 'axis' {axis.shape} must rise in equal steps, as np.linspace(-3, 3, 151) does")


def require_all(samples: Mapping[str, Path], others: Mapping[str, Mapping[str, object]], figure: str) -> None:
    """Raise UserError unless there is a sample and each of `others` has every experiment that is sampled."""
    if not samples:
        raise UserError(f"{figure} has no experiment to draw; name at least one")
    for name, other in others.items():
        missing = [experiment for experiment in samples if experiment not in other]
        if missing:
            raise UserError(f"{figure} has samples of {missing[0]} but no {name} of it; give both or neither")
    if len(samples) > len(ascii_lowercase):
        raise UserError(f"{figure} has {len(samples)} experiments, more than the alphabet has letters; draw fewer")


def heat(panel: Axes, axis: np.ndarray, values: np.ndarray, colours: Colormap, scale: Normalize) -> None:
    """Colour a panel by `values` (g, g), indexed [iy, ix], and frame it."""
    # A grid's values stand at the middles of its cells, so the picture reaches half a cell beyond the box.
    half = (axis[1] - axis[0]) / 2
    low, high = axis[0] - half, axis[-1] + half
    # Far beyond the scale all is one colour; infinities would spoil the interpolation beside them.
    panel.imshow(
        values.clip(-2 * scale.vmax, 2 * scale.vmax), origin="lower", extent=(low, high, low, high), cmap=colours,
        norm=scale, interpolation="bilinear", interpolation_stage="data",
    )  # fmt: skip
    frame(panel, axis)


def frame(panel: Axes, axis: np.ndarray) -> None:
    panel.set(xlim=(axis[0], axis[-1]), ylim=(axis[0], axis[-1]), xticks=[], yticks=[], aspect="equal")
    panel.spines[["top", "right"]].set_visible(True)


def remark(panel: Axes, words: str) -> None:
    """A few words at the bottom of a panel."""
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
    panel.text(0.5, 0.03, words, transform=panel.transAxes, ha="center", va="bottom", size=6, bbox=box)


def box_in_words(axes: Sequence[np.ndarray]) -> str:
    """The box as a sentence, if it is the same for all; else nothing. It ends half a cell beyond the axis."""
    boxes = {(axis[0], axis[-1], len(axis)) for axis in axes}
    low, high, half = axes[0][0], axes[0][-1], (axes[0][1] - axes[0][0]) / 2
    return f"Box [{low - half:.3g}, {high + half:.3g}]². ".replace("-", "−") if len(boxes) == 1 else ""


def _scatter(panel: Axes, shown: Experiment) -> None:
    """Equally many training points and samples, in random order, so that neither colour covers the other."""
    points = np.concatenate([shown.data[: shown.count], shown.samples[: shown.count]])
    colours = np.repeat([DATA, SAMPLES], shown.count)
    order = np.random.default_rng(0).permutation(len(points))
    panel.scatter(*points[order].T, c=colours[order], s=0.8, alpha=0.35, marker="o", linewidths=0, rasterized=True)
    outside = ((shown.samples < shown.axis[0]) | (shown.samples > shown.axis[-1])).any(1).mean()
    if outside >= 0.005:
        remark(panel, f"{outside:.0%} of samples outside")
    frame(panel, shown.axis)


def draw(
    samples: Mapping[str, Path], data: Mapping[str, Path], titles: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """Two panels for each experiment, two experiments on a line, in the order of `samples`; the first seed is drawn.

    Left: training points (red) and samples (blue). Right: the energy above its lowest value, linear and clipped at
    15 nats. An odd count leaves the last place empty.

    For each experiment:
      samples  npz: samples (S, n, 2); axis (g,), the grid along each side of a square box; energy (S, g, g) in
               nats, indexed [seed, iy, ix]
      data     npy: the training points (points, 2)
      titles   what stands above its panels

    Raises UserError for a missing experiment and as `read_experiment` does.
    """
    require_all(samples, {"data": data, "titles": titles}, "figure 2")
    experiments = [read_experiment(titles[e], samples[e], data[e]) for e in samples]
    scale = Normalize(0, HIGHEST)
    with look():
        headings = [
            wrapped(f"({letter}) {shown.title}", PAIR - 0.1)
            for letter, shown in zip(ascii_lowercase, experiments, strict=False)
        ]
        heads = [0.12 + LETTERS * max(map(len, headings[first : first + 2])) for first in range(0, len(headings), 2)]
        tall = sum(heads) + len(heads) * PANEL + FOOT
        figure = blank_page(tall)

        def panel_at(left: float, top: float) -> Axes:
            return figure.add_axes((left / PAGE, 1 - (top + PANEL) / tall, PANEL / PAGE, PANEL / tall))

        for number, (shown, heading) in enumerate(zip(experiments, headings, strict=True)):
            line, place = divmod(number, 2)
            left = EDGE + place * (PAIR + APART)
            top = sum(heads[: line + 1]) + line * PANEL
            _scatter(panel_at(left, top), shown)
            above_lowest = shown.energy - shown.energy.min()
            heat(panel_at(left + PANEL + WITHIN, top), shown.axis, above_lowest, ENERGY_COLOURS, scale)
            middle, base = (left + PAIR / 2) / PAGE, 1 - (top - 0.04) / tall
            figure.text(middle, base, "\n".join(heading), ha="center", va="bottom")

        for x, words, colour in ((EDGE, "training points", DATA), (1.05, "samples of the generator", SAMPLES)):
            figure.text(x / PAGE, (FOOT - 0.12) / tall, f"● {words}", ha="left", va="center", color=colour, size=7)
        counts = sorted({shown.count for shown in experiments})
        count = "–".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
        figure.text(
            EDGE / PAGE, (FOOT - 0.2) / tall,
            f"{count} points of each colour. {box_in_words([shown.axis for shown in experiments])}\n"
            "The first seed of each is drawn, never the best.",
            ha="left", va="top", size=6, color=SMALL_PRINT, linespacing=1.25,
        )  # fmt: skip
        clipped = any(shown.energy.max() - shown.energy.min() > HIGHEST for shown in experiments)
        left = EDGE + PAIR + APART
        bar = figure.colorbar(
            ScalarMappable(scale, ENERGY_COLOURS),
            cax=figure.add_axes(((left + 0.1) / PAGE, (FOOT - 0.14) / tall, (PAIR - 0.2) / PAGE, 0.07 / tall)),
            orientation="horizontal",
            extend="max" if clipped else "neither",
            extendfrac=0.03,
        )
        bar.set_label(f"energy E(x) above its lowest, nats (red: {HIGHEST:.0f} and above)", size=7)
        save(figure, outputs)
