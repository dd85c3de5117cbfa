"""Figure 4: samples of the convolutional generator (section 4, CelebA and LSUN bedrooms)."""

from collections.abc import Sequence
from pathlib import Path

from ddgm.figures.style import draw_pictures, first_of, grid, look, mosaic, read_arrays, require_images

MOST = 8  # samples across and down


def draw(samples: Path, outputs: Sequence[Path], title: str) -> None:
    """A grid of the first seed's first `samples` uint8 (S, n, C, H, W), an array of the npz `samples`.

    Raises UserError if it is missing, or is of another shape or type.
    """
    images = read_arrays(samples, {"samples": ("S", "n", "C", "H", "W")})["samples"]
    require_images(samples, "samples", images)
    with look():
        draw_pictures(
            [mosaic(grid(images[0], MOST))],
            [title],
            f"{first_of(len(images))}; samples as they came, none chosen",
            outputs,
        )
