"""A page laid out in inches from its upper left corner: a heading, a body of panels, small print."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddgm.figures.style import DPI, PAGE, SMALL_PRINT, blank_page, mosaic, wrapped

EDGE, LINE, SMALL_LINE = 0.05, 0.14, 0.105
LETTERS, APART = 0.11, 0.08  # below a row of tiles
Place = Callable[[float, float, float, float], Axes]


def page_of(heading: str, body: float, note: str, dpi: float = DPI, bold: Sequence[str] = ()) -> tuple[Figure, Place]:
    """A page with heading and bold lines above, the note below; and what puts a panel into the body between them.

    The latter takes inches: left, below the body's upper edge, wide, high. It begins each panel at a whole dot, so
    that a picture in it whose pixels are whole dots keeps them so.
    """
    says, small = wrapped(heading, PAGE - 2 * EDGE), wrapped(note, 0.97 * (PAGE - 2 * EDGE), 6, even=False)
    # The note keeps off the edge: dots round letters of 6 points up or down, along a line by up to a letter.
    head, foot = EDGE + LINE * (len(says) + len(bold)) + 0.04, 0.06 + SMALL_LINE * len(small)
    tall = round((head + body + foot) * dpi) / dpi
    figure = blank_page(tall)
    figure.text(EDGE / PAGE, 1 - EDGE / tall, "\n".join(says), ha="left", va="top")
    for line, words in enumerate(bold, len(says)):
        figure.text(EDGE / PAGE, 1 - (EDGE + LINE * line) / tall, words, ha="left", va="top", weight="bold", size=7)
    figure.text(
        EDGE / PAGE, 0.03 / tall, "\n".join(small), ha="left", va="bottom", size=6, color=SMALL_PRINT, linespacing=1.25
    )

    def place(left: float, top: float, wide: float, high: float) -> Axes:
        left, right, upper, lower = (round(at * dpi) / dpi for at in (left, left + wide, head + top, head + top + high))
        return figure.add_axes((left / PAGE, 1 - lower / tall, (right - left) / PAGE, (lower - upper) / tall))

    return figure, place


def whole_dots(most: float) -> float:
    """Inches for a pixel: as many whole dots at DPI as `most` inches hold, or one."""
    return max(1, int(most * DPI)) / DPI


def rows_high(rows: int, down: int, pixel: float) -> float:
    """Inches that `rows` of `captioned_tiles` take, each `down` pixels high without its words."""
    return rows * (down * pixel + LETTERS + APART) - APART / 2


def captioned_tiles(canvas: Axes, tiles: np.ndarray, words: Sequence[str], pixel: float) -> None:
    """Rows of tiles (rows, high, columns, C, H, W) uint8, in each column `high` above each other, and words below.

    `canvas` is in inches downwards from its upper left corner, a pixel is `pixel` of them; `words` has a text for each
    column of each row, and may have more.
    """
    width = tiles.shape[-1] * pixel
    for row, block in enumerate(tiles):
        columns, picture = block.shape[1], mosaic(block)
        down, across = (pixels * pixel for pixels in picture.shape[:2])
        above = row * (down + LETTERS + APART)
        # "none" is whole dots in the PNG, and in the PDF the pixels themselves.
        canvas.imshow(picture, extent=(0, across, above + down, above), interpolation="none", aspect="auto")
        for column, middle in enumerate(np.linspace(width / 2, across - width / 2, columns)):
            canvas.text(
                middle, above + down + LETTERS - 0.02, words[row * columns + column], ha="center", va="baseline", size=6
            )
    canvas.set_axis_off()
