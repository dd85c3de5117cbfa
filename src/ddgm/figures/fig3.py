"""Figure 3: images between two samples, along straight lines in z, and samples (section 4, MNIST)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddgm.errors import UserError
from ddgm.figures.style import draw_pictures, first_of, grid, look, mosaic, require_images, trained_on
from ddgm.reading import read_arrays

MOST = 10  # samples across; down there are as many as interpolations


def interpolation_picture(interpolations: np.ndarray) -> np.ndarray:
    """Rows of interpolation (rows, steps, C, H, W) uint8 as one picture (height, width, 3) uint8.

    The outermost columns, the end points, stand apart from the columns in between.
    """
    return mosaic(interpolations, apart=(1, interpolations.shape[1] - 1))


def read_lines(samples: Path, *more: str) -> dict[str, np.ndarray]:
    """The arrays interpolations (S, rows, steps, C, H, W), `more` by their names (S, n, C, H, W), source, checked."""
    images = {"interpolations": ("S", "rows", "steps", "C", "H", "W")}
    images |= {name: ("S", "n", "C", "H", "W") for name in more}
    arrays = read_arrays(samples, images | {"source": ()})
    for name in images:
        require_images(samples, name, arrays[name])
    if arrays["interpolations"].shape[2] < 3:
        raise UserError(
            f"{samples}: 'interpolations' has the shape {arrays['interpolations'].shape}, but the figure needs "
            "at least 3 steps: two end points and what lies between them"
        )
    return arrays


def draw(samples: Path, outputs: Sequence[Path], title: str) -> None:
    """(a) `interpolations` uint8 (S, rows, steps, C, H, W) and (b) `samples` uint8 (S, n, C, H, W), first seed.

    Both are arrays of the npz `samples`, and so is `source`, what the pair was trained on. Raises UserError if one is
    missing, or is of another shape or type.
    """
    arrays = read_lines(samples, "samples")
    between, drawn = arrays["interpolations"][0], arrays["samples"][0]
    rows = min(len(between), len(drawn))
    columns = min(MOST, len(drawn) // rows)
    with look():
        draw_pictures(
            [interpolation_picture(between), mosaic(grid(drawn, rows, columns))],
            [f"(a) {title}: lines in z", "(b) samples"],
            f"{first_of(len(arrays['samples']))}; samples as they came, none chosen; {trained_on(arrays['source'])}",
            outputs,
        )
