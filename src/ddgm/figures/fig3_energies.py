"""What the energy of digits tells apart: its values by kind of picture, and its gradient by pixel."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, Place, page_of
from ddgm.figures.style import (
    DATA,
    DPI,
    ENERGY,
    PAGE,
    SAMPLES,
    first_of,
    look,
    mosaic,
    read_arrays,
    require_images,
    require_shape,
    save,
    trained_on,
)

KINDS = {
    "train": ("training digits", DATA),
    "test": ("test digits", DATA),
    "samples": ("samples", SAMPLES),
    "inverted": ("inverted digits", ENERGY),
    "shuffled": ("shuffled pixels", ENERGY),
    "noise": ("noise", ENERGY),
    "letters": ("letters", ENERGY),
}
COMPARED = tuple(KINDS)[2:]
BINS = 80
ACROSS = 6  # pictures of a kind
GRADIENT_COLOURS = matplotlib.colormaps["PuOr_r"]
REACH = 0.99  # of a kind's pixels lie within its colour scale

# The page, inches.
NAMES, NUMBERS, RIDGE, AXIS, HEAD = 0.95, 0.95, 0.27, 0.34, 0.17
LARGEST, APART, BETWEEN = 0.42, 0.05, 0.12
SCALE, BAR, BAR_AXIS = 0.55, 0.07, 0.2


def read_energies(evidence: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By kind, in the order of KINDS: energies (S, m), and the AUROC (S,) of those that are told from test digits.

    A kind that the file does not hold is left out: not every data set has letters. Raises UserError without test
    digits, for other shapes, and for energies without value.
    """
    read_arrays(evidence, {"energy_test": ("S", "m")})
    with np.load(evidence, allow_pickle=False) as archive:
        kinds = [kind for kind in KINDS if f"energy_{kind}" in archive]
    told = [kind for kind in kinds if kind in COMPARED]
    arrays = read_arrays(
        evidence,
        {f"energy_{kind}": ("S", f"m of {kind}") for kind in kinds} | {f"auroc_{kind}": ("S",) for kind in told},
    )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{evidence}: {name!r} holds NaN or infinite values; measure this experiment again")
    return {kind: arrays[f"energy_{kind}"] for kind in kinds}, {kind: arrays[f"auroc_{kind}"] for kind in told}


def read_gradients(evidence: Path) -> dict[str, np.ndarray]:
    """The arrays inputs, input_kinds, gradients and source, checked."""
    tiles = ("k", "j", 1, "H", "W")
    arrays = read_arrays(evidence, {"inputs": tiles, "gradients": tiles, "input_kinds": ("k",), "source": ()})
    require_images(evidence, "inputs", arrays["inputs"])
    require_shape(evidence, "gradients", arrays["gradients"], arrays["inputs"].shape)
    if not np.isfinite(arrays["gradients"]).all():
        raise UserError(f"{evidence}: 'gradients' holds NaN or infinite values; measure this experiment again")
    return arrays


def linear_part(energies: dict[str, np.ndarray]) -> float | None:
    """The power of ten up to which the axis is linear, logarithmic beyond; None where a linear axis shows all.

    Nine of ten test digits lie within it, so that the axis bends where little is left of them.
    """
    spread = np.abs(np.quantile(energies["test"], [0.05, 0.95])).max()
    widest = max(np.abs(values).max() for values in energies.values())
    if spread == 0 or widest <= 10 * spread:
        return None
    return float(10 ** np.ceil(np.log10(spread)))


def bent(values: np.ndarray, linear: float | None) -> np.ndarray:
    """Where `values` stand on the axis: linear up to ±`linear`, where it is ±1, and each power of ten beyond is 1."""
    if linear is None:
        return values
    size = np.abs(values) / linear
    return np.sign(values) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))


def _draw_energies(
    place: Place, energies: dict[str, np.ndarray], aurocs: dict[str, np.ndarray], linear: float | None
) -> None:
    """A histogram for each kind above one axis, linear up to `linear` as in `bent`, and the AUROC beside it."""
    places = {kind: bent(values, linear) for kind, values in energies.items()}
    ends = [min(p.min() for p in places.values()), max(p.max() for p in places.values())]
    margin = 0.02 * (ends[1] - ends[0]) or 0.5
    edges = np.linspace(ends[0] - margin, ends[1] + margin, BINS + 1)
    panel = place(NAMES, HEAD, PAGE - NAMES - NUMBERS, RIDGE * len(energies))
    panel.axvline(0, color="#bbbbbb", linewidth=0.5, zorder=0)
    for row, (kind, values) in enumerate(places.items()):
        words, colour = KINDS[kind]
        base = len(places) - 1 - row
        # Every seed has as many values, so that the mean of the seeds' histograms is the histogram of all.
        counts = np.stack([np.histogram(seed, edges)[0] for seed in values])
        counts = base + 0.9 * counts / counts.max()
        panel.stairs(counts.mean(0), edges, baseline=base, fill=True, color=colour, alpha=0.3)
        panel.stairs(counts.mean(0), edges, baseline=base, color=colour, linewidth=0.8)
        if len(values) > 1:
            for seed in counts:
                panel.stairs(seed, edges, baseline=None, color=colour, alpha=0.45, linewidth=0.4)
        panel.annotate(
            words, (0, base + 0.25), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", size=7,
        )  # fmt: skip
        if kind in aurocs:
            panel.annotate(
                spread_of(aurocs[kind]), (1, base + 0.25), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", ha="left", va="center", size=7,
            )  # fmt: skip
    panel.annotate(
        "AUROC, test digits\nagainst this kind", (1, len(places) - 0.55), xycoords=("axes fraction", "data"),
        xytext=(6, 0), textcoords="offset points", ha="left", va="center", size=6,
    )  # fmt: skip
    panel.set(xlim=(edges[0], edges[-1]), ylim=(-0.05, len(places)), yticks=[])
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("E(x) − mean E of the test digits (nats)", size=7)
    if linear is None:
        panel.xaxis.set_major_locator(MaxNLocator(7))
    else:
        _name_ticks(panel, linear, edges[0], edges[-1])


def _name_ticks(panel: Axes, linear: float, low: float, high: float) -> None:
    """Ticks of the bent axis at 0 and at powers of ten, at most nine of them named."""
    decades = np.arange(1, 1 + int(max(abs(low), abs(high), 1)))
    ticks = [at for at in (*-decades[::-1], 0, *decades) if low <= at <= high]
    energy = {at: np.sign(at) * linear * 10.0 ** (abs(at) - 1) for at in ticks}
    every = -(-len(ticks) // 9)
    named = [at for at in ticks if at % every == 0]
    panel.xaxis.set_major_locator(FixedLocator(named))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{energy[round(at)]:g}".replace("-", "−")))
    shares = np.log10(np.arange(2, 10))
    minor = [side * (1 + decade + share) for side in (-1, 1) for decade in range(len(decades)) for share in shares]
    panel.xaxis.set_minor_locator(FixedLocator([at for at in minor if low <= at <= high]))
    panel.tick_params(axis="x", which="minor", length=1.2, width=0.4)


def spread_of(values: np.ndarray) -> str:
    """Values (S,) in words: mean ± sd over seeds."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def gradient_tiles(inputs: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each input and beside it -dE/dx in colours: (k, 2j, 3, H, W) uint8; and each kind's scale (k,).

    A kind's scale ends where REACH of its pixels lie within; 0 means that the gradient is 0.
    """
    k, j, _, height, width = inputs.shape
    limits = np.quantile(np.abs(gradients.reshape(k, -1)), REACH, axis=1)
    # Where nearly all is 0, the largest is the scale.
    limits = np.where(limits > 0, limits, np.abs(gradients.reshape(k, -1)).max(1))
    scaled = -gradients[:, :, 0] / np.where(limits > 0, limits, 1)[:, None, None, None]
    coloured = GRADIENT_COLOURS(Normalize(-1, 1, clip=True)(scaled), bytes=True)[..., :3].transpose(0, 1, 4, 2, 3)
    pairs = np.stack([inputs.repeat(3, 2), coloured], 2)
    return pairs.reshape(k, 2 * j, 3, height, width), limits


def _draw_gradients(
    place: Place, top: float, tiles: np.ndarray, limits: np.ndarray, kinds: Sequence[str], pixel: float
) -> None:
    """A row of pairs for each kind, `top` inches down the body, its name on the left and its scale on the right."""
    rows, columns, _, height, width = tiles.shape
    apart = range(2, columns, 2)
    line, wider = max(1, width // 24), max(1, width // 4)
    across = mosaic(tiles[:1], apart).shape[1]
    for row in range(rows):
        above = top + row * (height * pixel + APART)
        panel = place(NAMES, above, across * pixel, height * pixel)
        panel.imshow(mosaic(tiles[row : row + 1], apart), interpolation="none", aspect="auto")
        for column in range(1, columns, 2):
            # The gradient fades to white at its edge: a frame says where its picture ends.
            left = column * (width + line) + wider * (column // 2)
            panel.add_patch(
                Rectangle((left - 0.5, -0.5), width, height, fill=False, edgecolor="#bbbbbb", linewidth=0.4)
            )
        panel.set_axis_off()
        words = KINDS[kinds[row]][0] if kinds[row] in KINDS else kinds[row]
        for at, ha, text in ((0, "right", words), (1, "left", f"±{limits[row]:.2g}")):
            panel.annotate(
                text, (at, 0.5), xycoords="axes fraction", xytext=(6 * at - 4 * (1 - at), 0),
                textcoords="offset points", ha=ha, va="center", size=7,
            )  # fmt: skip


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """Above, the energies of all seeds by kind of picture; below, the first seed's -dE/dx at pictures of some kinds.

    evidence  npz: energy_KIND (S, m), nats above the test set's mean, for kinds of KINDS; auroc_KIND (S,) of those
              told from test digits; inputs uint8 and gradients dE/dx (k, j, 1, H, W) of input_kinds (k,); source:
              what the pair was trained on

    Raises UserError for arrays of another form.
    """
    energies, aurocs = read_energies(evidence)
    arrays = read_gradients(evidence)
    kinds = [str(kind) for kind in arrays["input_kinds"]]
    tiles, limits = gradient_tiles(arrays["inputs"][:, :ACROSS], arrays["gradients"][:, :ACROSS])
    rows, columns, _, height, _ = tiles.shape
    across = mosaic(tiles[:1], range(2, columns, 2)).shape[1]
    # As many whole dots a pixel as fit; a few pictures alone are not blown up.
    pixel = max(1, int(min((PAGE - NAMES - SCALE) / across, LARGEST / height) * DPI)) / DPI
    histograms = HEAD + RIDGE * len(energies) + AXIS
    top = histograms + BETWEEN + HEAD
    pictures = rows * (height * pixel + APART)
    body = top + pictures + 0.03 + BAR + BAR_AXIS
    seeds = len(energies["test"])
    with look():
        linear = linear_part(energies)
        axis = "linear" if linear is None else f"linear from −{linear:g} to {linear:g} and logarithmic beyond"
        which = "the only seed" if seeds == 1 else f"all {seeds} seeds, and thin each of them"
        spread = "" if seeds == 1 else ", mean\u00a0±\u00a0sd"
        note = (
            f"(a) {which}; every histogram as high as its own peak, in bins equally wide on the axis, which is {axis}; "
            f"AUROC: the probability that this kind's energy is above a test digit's{spread}. (b) {first_of(seeds)}, "
            f"{trained_on(arrays['source'])}; each kind has its own colour scale, whose end stands on the right, in "
            f"nats per unit of x: {100 * REACH:.0f}\u00a0% of the kind's pixels lie within."
        )
        figure, place = page_of(f"{title}: what the energy tells apart", body, note)
        _draw_energies(place, energies, aurocs, linear)
        for words, down in (("(a) energies", 0), ("(b) pictures and, right of each, −dE/dx", histograms + BETWEEN)):
            heading = place(EDGE, down, PAGE - 2 * EDGE, HEAD)
            heading.set_axis_off()
            heading.text(0, 1, words, transform=heading.transAxes, ha="left", va="top", size=7)
        _draw_gradients(place, top, tiles, limits, kinds, pixel)
        bar = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), GRADIENT_COLOURS), orientation="horizontal",
            cax=place(NAMES, top + pictures + 0.03, min(across * pixel, 3.0), BAR), ticks=[-1, 0, 1],
        )  # fmt: skip
        bar.ax.set_xticklabels(["darker lowers E", "0", "brighter lowers E"])
        bar.ax.tick_params(labelsize=6)
        bar.outline.set_visible(False)
        save(figure, outputs, exact_colours=True)
