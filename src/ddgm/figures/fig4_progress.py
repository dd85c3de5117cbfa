"""The samples of Figure 4 along training: the same z at different times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, page_of
from ddgm.figures.style import DPI, PAGE, evenly, first_of, look, mosaic, require_images, save, trained_on
from ddgm.reading import read_arrays

ACROSS, DOWN = 8, 10  # samples, and times
STEPS, LARGEST = 0.5, 0.66  # inches: the numbers of the steps, a picture


def read_progress(progress: Path) -> dict[str, np.ndarray]:
    """The arrays that `draw` names, checked. Raises UserError for other shapes, or steps that do not rise."""
    arrays = read_arrays(progress, {"steps": ("T",), "samples": ("T", "S", "n", "C", "H", "W"), "source": ()})
    require_images(progress, "samples", arrays["samples"])
    if not (np.diff(arrays["steps"]) > 0).all():
        raise UserError(f"{progress}: 'steps' {arrays['steps'].tolist()} do not rise; train this experiment again")
    return arrays


def draw(progress: Path, outputs: Sequence[Path], title: str) -> None:
    """A row for each time, with its step on the left, and a column for each z; the first seed's.

    progress  npz: samples uint8 (T, S, n, C, H, W) of the same z at each of the steps (T,); source: what the pair was
              trained on

    Raises UserError for arrays of another form.
    """
    arrays = read_progress(progress)
    times, seeds, count, _, height, _ = arrays["samples"].shape
    shown = evenly(times, DOWN)
    picture = mosaic(arrays["samples"][shown, 0, :ACROSS])
    down, across = picture.shape[:2]
    # Each pixel becomes a whole number of dots; the dots per inch follow from it and lie near DPI.
    pixel = min((PAGE - 2 * EDGE - STEPS) / across, LARGEST / height)
    dpi = max(1, round(pixel * DPI)) / pixel
    which = (
        f"{len(shown)} of {times} times that were kept, evenly spaced among them"
        if len(shown) < times
        else "all times that were kept"
    )
    note = (
        f"{first_of(seeds).capitalize()}, {trained_on(arrays['source'])}; the first {min(ACROSS, count)} z of {count}, "
        f"none chosen; {which}. On the left the step."
    )
    with look():
        heading = f"{title}: samples along training, the same z in a column"
        figure, place = page_of(heading, down * pixel + 0.03, note, dpi)
        panel = place(EDGE + STEPS, 0, across * pixel, down * pixel)
        panel.imshow(picture, interpolation="none", aspect="auto")
        panel.set_axis_off()
        pitch = height + max(1, arrays["samples"].shape[-1] // 24)
        for row, step in enumerate(arrays["steps"][shown]):
            panel.annotate(
                f"{step:,}", (0, row * pitch + height / 2), xycoords=("axes fraction", "data"), xytext=(-4, 0),
                textcoords="offset points", ha="right", va="center", size=7,
            )  # fmt: skip
        save(figure, outputs, dpi=dpi, exact_colours=True)
