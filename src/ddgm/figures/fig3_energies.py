"""What the energy of digits tells apart: its values by kind of picture, and its gradient by pixel."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, Place, page_of, whole_dots
from ddgm.figures.ridges import (
    AXIS,
    HEAD,
    NAMES,
    RIDGE,
    draw_ridges,
    linear_part,
    read_energies,
    ridges_in_words,
)
from ddgm.figures.style import DATA, ENERGY, PAGE, SAMPLES, first_of, look, mosaic, require_images, save, trained_on
from ddgm.reading import read_arrays, require_shape

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
ACROSS = 6  # pictures of a kind
GRADIENT_COLOURS = matplotlib.colormaps["PuOr_r"]
REACH = 0.99  # of a kind's pixels lie within its colour scale

# The page, inches.
LARGEST, APART, BETWEEN = 0.42, 0.05, 0.12
SCALE, BAR, BAR_AXIS = 0.55, 0.07, 0.2


def read_gradients(evidence: Path) -> dict[str, np.ndarray]:
    """The arrays inputs, input_kinds, gradients and source, checked."""
    tiles = ("k", "j", 1, "H", "W")
    arrays = read_arrays(evidence, {"inputs": tiles, "gradients": tiles, "input_kinds": ("k",), "source": ()})
    require_images(evidence, "inputs", arrays["inputs"])
    require_shape(evidence, "gradients", arrays["gradients"], arrays["inputs"].shape)
    if not np.isfinite(arrays["gradients"]).all():
        raise UserError(f"{evidence}: 'gradients' holds NaN or infinite values; measure this experiment again")
    return arrays


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
    energies, aurocs = read_energies(evidence, KINDS, COMPARED)
    arrays = read_gradients(evidence)
    kinds = [str(kind) for kind in arrays["input_kinds"]]
    tiles, limits = gradient_tiles(arrays["inputs"][:, :ACROSS], arrays["gradients"][:, :ACROSS])
    rows, columns, _, height, _ = tiles.shape
    across = mosaic(tiles[:1], range(2, columns, 2)).shape[1]
    # As many whole dots a pixel as fit; a few pictures alone are not blown up.
    pixel = whole_dots(min((PAGE - NAMES - SCALE) / across, LARGEST / height))
    histograms = HEAD + RIDGE * len(energies) + AXIS
    top = histograms + BETWEEN + HEAD
    pictures = rows * (height * pixel + APART)
    body = top + pictures + 0.03 + BAR + BAR_AXIS
    seeds = len(energies["test"])
    with look():
        linear = linear_part(energies)
        note = (
            f"(a) {ridges_in_words(seeds, linear, 'a test digit')}. (b) {first_of(seeds)}, "
            f"{trained_on(arrays['source'])}; each kind has its own colour scale, whose end stands on the right, in "
            f"nats per unit of x: {100 * REACH:.0f}\u00a0% of the kind's pixels lie within."
        )
        figure, place = page_of(f"{title}: what the energy tells apart", body, note)
        draw_ridges(place, energies, aurocs, KINDS, linear, "test digits")
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
