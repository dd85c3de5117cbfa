"""What all figures share: the look, the page, tiles of images, saving.

The figures read arrays and tables and never touch the models: nothing here imports torch.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from ddgm.errors import UserError
from ddgm.whole_file import all_or_none, whole_file

PAGE = 5.5  # text width, inches
DPI = 200

# Safe for the colour-blind, and the same meaning everywhere: red is data, blue is the generator.
DATA = "#cc3311"
SAMPLES = "#0066aa"
ENERGY = "#555555"
ENTROPY = "#117755"
SMALL_PRINT = "#555555"
# Blue low, red high, as in the paper; in steps, which the eye reads as contours, and safe for the colour-blind.
ENERGY_COLOURS = matplotlib.colormaps["RdYlBu_r"].resampled(30)
DRAWN = "drawn by code"  # how the source of pictures begins that are no photographs


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib as matplotlibrc beside this file says; the reader's own settings come back afterwards."""
    with matplotlib.rc_context(fname=Path(__file__).with_name("matplotlibrc")):
        yield


def blank_page(tall: float, wide: float = PAGE) -> Figure:
    """A figure of `wide` by `tall` inches whose parts stay where they are put."""
    figure = Figure(figsize=(wide, tall))
    figure.set_layout_engine("none")
    return figure


@cache
def width_of(words: str, size: float) -> float:
    """Inches that `words` in letters of `size` points take in the letters of `look`."""
    with look():
        return text_to_path.get_text_width_height_descent(words, FontProperties(size=size), False)[0] / 72


def wrapped(words: str, wide: float, size: float = 8, even: bool = True) -> list[str]:
    """`words` in as few lines as fit `wide` inches in letters of `size` points; these equally long, or each full.

    An equation's number stays with its "Eq.".
    """
    words = re.sub(r"\b(Eqs?\.) (?=\d)", "\\1\N{NO-BREAK SPACE}", words)
    best: list[str] = []
    for letters in range(len(words), 0, -1):
        lines = textwrap.wrap(words, letters)
        if best and len(lines) > len(best):
            break
        if all(width_of(line, size) <= wide for line in lines):
            best = lines
            if not even:
                break
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in best or textwrap.wrap(words, 1)]


def first_of(seeds: int) -> str:
    """In words, which seed is drawn."""
    return "the only seed" if seeds == 1 else f"the first of {seeds} seeds"


def trained_on(source: np.ndarray) -> str:
    """In words, which data a drawn pair was trained on; `source` is the npz's text."""
    kind, _, what = str(source).partition(": ")
    if not what:
        return f"trained on {'the ' if kind == 'original files' else ''}{source}"
    return f"trained on {'a subset' if kind == 'subset' else 'a stand-in, ' + kind} ({what})"


def not_to_be_published(source: np.ndarray, pictures: str) -> str:
    """What stands below a figure that shows `pictures`, unless they were drawn by code: CelebA's terms forbid it."""
    return "" if str(source).startswith(DRAWN) else f" Shows {pictures}: not to be published."


def save(figure: Figure, outputs: Sequence[Path], dpi: float = DPI, exact_colours: bool = False) -> None:
    """Write `figure` to each of `outputs` (.png, .pdf), whole or not at all, the same bytes every time.

    A PNG gets 256 colours chosen for it, a third of the size, to the eye the same; with `exact_colours` it keeps
    its own. Raises UserError for another ending.
    """
    for output in outputs:
        if output.suffix not in (".png", ".pdf"):
            raise UserError(f"{output}: a figure is written as .png or .pdf; name an output that ends so")
    # A new picture never stands beside an old one of another ending.
    with all_or_none(outputs):
        for output in outputs:
            with whole_file(output) as path:
                if output.suffix == ".pdf":
                    # Neither date nor version: the same input gives the same bytes.
                    figure.savefig(path, dpi=dpi, metadata={"CreationDate": None, "Creator": None, "Producer": None})
                    continue
                drawn = io.BytesIO()
                figure.savefig(drawn, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
                # Read back as pixels alone, the PNG loses what matplotlib says of itself.
                picture = Image.open(drawn).convert("RGB")
                if not exact_colours:
                    # The most different colours, not the most frequent: of two scales each keeps its own.
                    picture = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                picture.save(path, dpi=(dpi, dpi))


def require_images(path: Path, name: str, images: np.ndarray) -> None:
    """Raise UserError unless `images` (..., C, H, W) are uint8 and grey (C = 1) or colour (C = 3)."""
    if images.dtype != np.uint8 or images.shape[-3] not in (1, 3):
        raise UserError(
            f"{path}: {name!r} is {images.dtype} of the shape {images.shape}, but the figure needs uint8 images "
            "with 1 or 3 channels, (..., C, H, W)"
        )


def mosaic(images: np.ndarray, apart: Sequence[int] = ()) -> np.ndarray:
    """Tiles (rows, columns, C, H, W) uint8 as one picture (height, width, 3) uint8, on white.

    The columns whose numbers are in `apart` stand off from the column on their left by a wider gap.
    """
    rows, columns, _, height, width = images.shape
    line, wider = max(1, width // 24), max(1, width // 4)
    left = [column * (width + line) + wider * sum(a <= column for a in apart) for column in range(columns)]
    picture = np.full((rows * (height + line) - line, left[-1] + width, 3), 255, np.uint8)
    for row in range(rows):
        top = row * (height + line)
        for column in range(columns):
            tile = images[row, column].transpose(1, 2, 0)
            picture[top : top + height, left[column] : left[column] + width] = tile
    return picture


def grid(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The first of `images` (n, C, H, W), n >= rows * columns, row by row: (rows, columns, C, H, W)."""
    return images[: rows * columns].reshape(rows, columns, *images.shape[1:])


def evenly(many: int, most: int) -> np.ndarray:
    """At most `most` of the numbers from 0 to `many` - 1, evenly spaced, with the first and the last."""
    return np.linspace(0, many - 1, min(many, most)).round().astype(int)


def draw_pictures(
    pictures: Sequence[np.ndarray],
    headings: Sequence[str],
    small_print: str,
    outputs: Sequence[Path],
    wide: float = PAGE,
) -> None:
    """Pictures (height, width, 3) uint8 side by side under their headings, small print below, `wide` inches in all.

    Each pixel of a picture becomes a whole number of printed dots, so that none is smeared or wider than its
    neighbour; the dots per inch follow from it and lie near DPI.
    """
    # Everything is counted in the pictures' own pixels; `scale` dots make one of them.
    margin = max(1, pictures[0].shape[1] // 150)
    between = pictures[0].shape[1] // 14
    across = sum(p.shape[1] for p in pictures) + between * (len(pictures) - 1) + 2 * margin
    scale = max(1, round(wide * DPI / across))
    pixel = wide / across  # inches
    lines = [
        wrapped(heading, picture.shape[1] * pixel, even=False)
        for picture, heading in zip(pictures, headings, strict=True)
    ]
    print_lines = wrapped(small_print, wide - 2 * margin * pixel, size=6, even=False)
    above = round((0.05 + 0.14 * max(map(len, lines))) / pixel)
    below = round((0.09 + 0.1 * len(print_lines)) / pixel)
    tallest = max(p.shape[0] for p in pictures)
    down = above + tallest + below

    figure = blank_page(down * pixel, wide)
    left = margin
    for picture, heading in zip(pictures, lines, strict=True):
        height, width = picture.shape[:2]
        bottom = below + tallest - height
        axes = figure.add_axes((left / across, bottom / down, width / across, height / down))
        # "none" is whole dots in the PNG, and in the PDF the pixels themselves.
        axes.imshow(picture, interpolation="none", aspect="auto")
        axes.set_axis_off()
        base = 1 - (above - 0.04 / pixel) / down
        figure.text(left / across, base, "\n".join(heading), ha="left", va="bottom")
        left += width + between
    figure.text(
        1 - margin / across, 0.45 * below / down, "\n".join(print_lines), ha="right", va="center", size=6,
        color=SMALL_PRINT,
    )  # fmt: skip
    save(figure, outputs, dpi=scale * across / wide, exact_colours=True)
