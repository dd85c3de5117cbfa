"""Figure 4: samples of the convolutional generator (section 4, CelebA and LSUN bedrooms)."""

import math
from collections.abc import Sequence
from pathlib import Path

from ddgm.figures.style import PAGE, draw_pictures, first_of, grid, look, mosaic, require_images, trained_on
from ddgm.reading import read_arrays

MOST = 8  # samples across and down


def draw(samples: Path, outputs: Sequence[Path], title: str) -> None:
    """A grid of the first seed's first `samples` uint8 (S, n, C, H, W), an array of the npz `samples`.

    Its `source` is what the pair was trained on. Raises UserError if it is missing, or is of another shape or type.
    """
    arrays = read_arrays(samples, {"samples": ("S", "n", "C", "H", "W"), "source": ()})
    images = arrays["samples"]
    require_images(samples, "samples", images)
    columns = min(MOST, math.isqrt(images.shape[1]))
    rows = min(MOST, images.shape[1] // columns)
    with look():
        draw_pictures(
            [mosaic(grid(images[0], rows, columns))],
            [title],
            f"{first_of(len(images))}; samples as they came, none chosen; {trained_on(arrays['source'])}",
            outputs,
            wide=PAGE * max(columns, 4) / MOST,
        )
