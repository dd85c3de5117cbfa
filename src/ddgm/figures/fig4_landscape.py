"""The energy among colour images: in the plane through three of them, and along descents to its minima.

What it draws shows held-out photographs of the data set: it is not to be published.
"""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, Place, captioned_tiles, page_of, rows_high
from ddgm.figures.ridges import axis_in_words, bent, in_nats, linear_part, name_ticks
from ddgm.figures.style import (
    DATA,
    DPI,
    ENERGY,
    ENERGY_COLOURS,
    PAGE,
    SAMPLES,
    first_of,
    look,
    mosaic,
    not_to_be_published,
    require_images,
    save,
    trained_on,
    width_of,
)
from ddgm.reading import read_arrays

KINDS = {"test": ("held-out", DATA), "samples": ("sample", SAMPLES), "noise": ("noise", ENERGY)}
LEVELS = 24
LABEL = "E(x) − mean E of the held-out pictures (nats)"

# The page, inches.
PLANE, BETWEEN, NAMES, LARGEST = 2.3, 0.16, 0.14, 0.66
TITLE, HEAD, STEPS, BAR, BAR_AXIS, CURVES, AXIS, NUMBERS = 0.17, 0.04, 0.11, 0.07, 0.33, 0.9, 0.31, 0.48
PIN, DOT, CARD, INSIDE = 0.07, 0.04, 0.11, 0.03  # from a place to its picture; its dot; words below; to the frame


def read_landscape(evidence: Path) -> dict[str, np.ndarray]:
    """The arrays that `draw` names, checked. Raises UserError for other shapes, and for energies without value."""
    arrays = read_arrays(
        evidence,
        {
            "energy_test": ("S", "m"),
            "slice_axis_a": ("a",),
            "slice_axis_b": ("b",),
            "slice_energy": ("b", "a"),
            "slice_corners": (3, 3, "H", "W"),
            "slice_places": (3, 2),
            "descent": ("k", "t", 3, "H", "W"),
            "descent_energy": ("k", "s"),
            "descent_kinds": ("k",),
            "descent_steps": ("t",),
            "source": (),
        },
    )
    for name in ("slice_corners", "descent"):
        require_images(evidence, name, arrays[name])
    for name in ("energy_test", "slice_energy", "slice_places", "descent_energy"):
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{evidence}: {name!r} holds NaN or infinite values; measure this experiment again")
    for name in ("slice_axis_a", "slice_axis_b"):
        if len(arrays[name]) < 2 or not (np.diff(arrays[name]) > 0).all():
            raise UserError(f"{evidence}: {name!r} {arrays[name].shape} must rise, from 2 values up")
    unknown = sorted({str(kind) for kind in arrays["descent_kinds"]} - set(KINDS))
    if unknown:
        raise UserError(f"{evidence}: 'descent_kinds' holds {unknown[0]!r}, and may hold {', '.join(KINDS)}")
    steps, last = arrays["descent_steps"], arrays["descent_energy"].shape[1] - 1
    if steps.min() < 0 or steps.max() > last:
        raise UserError(f"{evidence}: 'descent_steps' {steps.tolist()} must lie between 0 and {last}, the last step")
    return arrays


def pinned(places: np.ndarray, size: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """The upper left corner of a card of `size` (2,) beside each of `places` (n, 2), inches right and down in `panel`.

    Each lies away from the middle of the places where it can: within the panel, off the places and the other cards.
    """
    middle = places.mean(0)
    corners: list[np.ndarray] = []
    for place in places:
        best = (np.inf, 0.0)
        for side in product((-1, 0, 1), repeat=2):
            corner = (place + np.array(side) * (PIN + size / 2) - size / 2).clip(INSIDE, panel - size - INSIDE)
            covered = sum(((other > corner - DOT) & (other < corner + size + DOT)).all() for other in places)
            covered += sum((np.abs(corner - other) < size).all() for other in corners)
            inwards = -np.dot(side, place - middle) / (math.hypot(*side) or 1)
            if (covered, inwards) < best:
                best, chosen = (covered, inwards), corner
        corners.append(chosen)
    return np.array(corners)


def _draw_plane(
    place: Place, top: float, high: float, arrays: dict[str, np.ndarray], linear: float | None, pixel: float
) -> None:
    """The energy in the plane, and the three pictures pinned where they lie in it."""
    a, b = arrays["slice_axis_a"], arrays["slice_axis_b"]
    heights = bent(arrays["slice_energy"], linear)
    low, highest = heights.min(), heights.max()
    levels = np.linspace(low, max(highest, low + 1e-6), LEVELS + 1)
    panel = place(EDGE, top, PLANE, high)
    filled = panel.contourf(a, b, heights, levels, cmap=ENERGY_COLOURS)
    panel.contour(a, b, heights, levels[1:-1], colors="white", linewidths=0.25, linestyles="solid", alpha=0.6)
    panel.set(xlim=(a[0], a[-1]), ylim=(b[0], b[-1]), xticks=[], yticks=[])
    panel.spines[["top", "right"]].set_visible(True)

    across, down = ((arrays["slice_places"] - [a[0], b[0]]) / [a[-1] - a[0], b[-1] - b[0]]).T
    places = np.stack([across * PLANE, (1 - down) * high], 1)
    size = arrays["slice_corners"].shape[-1] * pixel
    # As wide as the picture, or as the longest of the words below.
    card = np.array([max(size, *(width_of(words, 6) + 0.04 for words, _ in KINDS.values())), size + CARD])
    corners = pinned(places, card, np.array([PLANE, high]))
    # In inches, above the plane and below the pictures.
    pins = place(EDGE, top, PLANE, high)
    for ends in zip(places, corners + card / 2, strict=True):
        pins.plot(*np.array(ends).T, color="black", linewidth=0.6)
    pins.plot(*places.T, "o", color="black", markersize=3, markeredgecolor="white", markeredgewidth=0.5)
    pins.set(xlim=(0, PLANE), ylim=(high, 0))
    pins.set_axis_off()
    for (words, _), picture, (left, above) in zip(KINDS.values(), arrays["slice_corners"], corners, strict=True):
        pin = place(EDGE + left, top + above, *card)
        pin.set(xticks=[], yticks=[])
        pin.spines[:].set_visible(False)
        pin.text(0.5, 0.03 / card[1], words, transform=pin.transAxes, ha="center", va="baseline", size=6)
        shown = place(EDGE + left + (card[0] - size) / 2, top + above, size, size)
        shown.imshow(picture.transpose(1, 2, 0), interpolation="none", aspect="auto")
        shown.set_axis_off()
    bar = panel.figure.colorbar(
        filled, cax=place(EDGE + 0.05, top + high + 0.05, PLANE - 0.1, BAR), orientation="horizontal"
    )
    if linear is None:
        bar.ax.xaxis.set_major_locator(MaxNLocator(5))
    else:
        name_ticks(bar.ax.xaxis, linear, levels[0], levels[-1], 6)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(LABEL, size=7)
    bar.outline.set_visible(False)


def _draw_descents(place: Place, left: float, top: float, arrays: dict[str, np.ndarray], pixel: float) -> None:
    """A row of pictures for each descent, each above its energy, with the steps above and the kinds on the left."""
    pictures, steps = arrays["descent"], arrays["descent_steps"]
    rows, columns, _, height, width = pictures.shape
    tiles = pictures[:, None]
    high, wide = rows_high(rows, height, pixel), mosaic(tiles[0]).shape[1] * pixel
    canvas = place(left + NAMES, top + STEPS, wide, high)
    words = [word for energies in arrays["descent_energy"][:, steps] for word in in_nats(energies)]
    captioned_tiles(canvas, tiles, words, pixel)
    canvas.set(xlim=(0, wide), ylim=(high, 0))
    for middle, step in zip(np.linspace(width / 2 * pixel, wide - width / 2 * pixel, columns), steps, strict=True):
        canvas.text(middle, -0.025, f"step {step:,}" if step == steps[0] else f"{step:,}", ha="center", size=6)
    pitch = rows_high(2, height, pixel) - rows_high(1, height, pixel)
    for row, kind in enumerate(arrays["descent_kinds"]):
        words, colour = KINDS[str(kind)]
        at = row * pitch + height * pixel / 2
        canvas.text(-0.03, at, words, ha="right", va="center", rotation=90, size=6, color=colour)


def _draw_curves(panel: Axes, arrays: dict[str, np.ndarray], linear: float | None) -> None:
    """The energy along each descent, by the colour of its kind, with a dot at each picture."""
    steps = arrays["descent_steps"]
    energies = bent(arrays["descent_energy"], linear)
    for kind, energy in zip(arrays["descent_kinds"], energies, strict=True):
        colour = KINDS[str(kind)][1]
        panel.plot(energy, color=colour, linewidth=0.8)
        panel.plot(steps, energy[steps], "o", color=colour, markersize=2, markeredgewidth=0)
    panel.axhline(0, color="#bbbbbb", linewidth=0.5, zorder=0)
    panel.set_xlim(-0.02 * len(energies[0]), 1.02 * (energies.shape[1] - 1) + 0.02)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = panel.get_ylim()
    if linear is None:
        panel.yaxis.set_major_locator(MaxNLocator(4))
    else:
        name_ticks(panel.yaxis, linear, low, high, 5)
    panel.tick_params(labelsize=6)
    panel.set_xlabel("step of gradient descent", size=7)
    panel.set_ylabel("E − mean (nats)", size=7, labelpad=1)


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """(a) The first seed's energy in the plane through three pictures; (b) pictures along descents, and their energies.

    evidence  npz: slice_energy (b, a) at slice_axis_a (a,) and slice_axis_b (b,); slice_corners uint8 (3, 3, H, W), a
              held-out picture, a sample and noise, and slice_places (3, 2), where they lie (a, b); descent uint8
              (k, t, 3, H, W) at descent_steps (t,), descent_energy (k, s) at each step, descent_kinds (k,) of KINDS;
              energy_test (S, m) of held-out pictures; source: what the pair was trained on. Energies are nats above
              the held-out pictures' mean.

    Raises UserError for arrays of another form.
    """
    arrays = read_landscape(evidence)
    rows, _, _, height, _ = arrays["descent"].shape
    across = mosaic(arrays["descent"][:1]).shape[1]
    left = EDGE + PLANE + BETWEEN
    # Each pixel becomes a whole number of dots; the dots per inch follow from it and lie near DPI.
    pixel = min((PAGE - EDGE - left - NAMES) / across, LARGEST / height)
    dpi = max(1, math.ceil(pixel * DPI - 0.2)) / pixel
    below_plane = 0.05 + BAR + BAR_AXIS
    plane = TITLE + PLANE + below_plane
    descents = TITLE + STEPS + rows_high(rows, height, pixel)
    # The curves stand where less is above them, and reach down to where the other side ends.
    right = descents < plane
    curves = min(plane, descents) + HEAD
    body = max(plane, descents, curves + CURVES + AXIS)
    first = arrays["energy_test"][:1]
    linear = linear_part({"test": first, "plane": arrays["slice_energy"], "descents": arrays["descent_energy"]})
    note = (
        f"{first_of(len(arrays['energy_test'])).capitalize()}, {trained_on(arrays['source'])}; pictures as they came, "
        f"none chosen. (a) The plane through three pictures, which lie at the dots; its colours, and the energies in "
        f"(b), are on one scale, {axis_in_words(linear)}. (b) Gradient descent of E from pictures of three kinds; "
        f"below each picture its energy.{not_to_be_published(arrays['source'], 'pictures of the held-out data')}"
    )
    with look():
        figure, place = page_of(f"{title}: the energy among pictures", body, note, dpi)
        for words, at in (("(a) a plane through three pictures", EDGE), ("(b) descents", left)):
            heading = place(at, 0, PLANE, TITLE)
            heading.set_axis_off()
            heading.text(0, 1, words, transform=heading.transAxes, ha="left", va="top", size=7)
        _draw_plane(place, TITLE, body - TITLE - below_plane if right else PLANE, arrays, linear, pixel)
        _draw_descents(place, left, TITLE, arrays, pixel)
        start, wide = (left, PAGE - left) if right else (EDGE, PLANE + EDGE)
        _draw_curves(place(start + NUMBERS, curves, wide - NUMBERS - EDGE - 0.05, body - curves - AXIS), arrays, linear)
        save(figure, outputs, dpi=dpi, exact_colours=True)
