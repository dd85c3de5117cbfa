"""Images between two samples of Figure 4, along straight lines in z."""

from collections.abc import Sequence
from pathlib import Path

from ddgm.figures.fig3 import interpolation_picture, read_lines
from ddgm.figures.style import draw_pictures, first_of, look, trained_on


def draw(samples: Path, outputs: Sequence[Path], title: str) -> None:
    """The first seed's `interpolations` uint8 (S, rows, steps, C, H, W), an array of the npz `samples`.

    Its `source` is what the pair was trained on. Raises UserError if one is missing, or is of another shape or type.
    """
    arrays = read_lines(samples)
    with look():
        draw_pictures(
            [interpolation_picture(arrays["interpolations"][0])],
            [f"{title}: lines in z"],
            f"{first_of(len(arrays['interpolations']))}; left and right samples as they came, none chosen; "
            f"{trained_on(arrays['source'])}",
            outputs,
        )
