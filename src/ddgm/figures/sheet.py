"""A contact sheet of a prepared data set: the first examples of each split, as they lie in its array."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddgm.datasets.prepared import read, read_sheet
from ddgm.figures.style import DATA, PAGE, SMALL_PRINT, blank_page, draw_pictures, grid, look, mosaic, save

MOST = 8  # examples across and down
DOTS = 2000  # points drawn


def draw(arrays: Sequence[Path], outputs: Sequence[Path]) -> None:
    """The splits of one data set side by side, each with its count; what it is stands below.

    `arrays` are uint8 pictures (N, C, H, W) or points (N, 2), each with its JSON file beside it. Raises UserError if
    one of them is missing or damaged.
    """
    splits = [read(path, "r") for path in arrays]
    facts = [read_sheet(path, ("dataset", "split", "source")) for path in arrays]
    headings = [f"{fact['split']}: {len(array):,}" for fact, array in zip(facts, splits, strict=True)]
    small_print = f"{facts[0]['dataset']}; {facts[0]['source']}; the first examples of each split"
    with look():
        if splits[0].ndim == 4:
            draw_pictures([first_pictures(array) for array in splits], headings, small_print, outputs)
        else:
            draw_points(splits, headings, small_print, outputs)


def first_pictures(array: np.ndarray) -> np.ndarray:
    """The first MOST x MOST pictures, or as many whole rows as there are, as one picture."""
    columns = min(MOST, len(array))
    rows = min(MOST, len(array) // columns)
    return mosaic(grid(np.asarray(array[: rows * columns]), rows, columns))


def draw_points(
    splits: Sequence[np.ndarray], headings: Sequence[str], small_print: str, outputs: Sequence[Path]
) -> None:
    """The first DOTS points of each split, on one scale."""
    reach = max(float(np.abs(array[:DOTS]).max()) for array in splits) * 1.05
    tall = PAGE / len(splits) + 0.35
    figure = blank_page(tall)
    for number, (array, heading) in enumerate(zip(splits, headings, strict=True)):
        axes = figure.add_axes(
            ((number + 0.02) / len(splits), 0.2 / tall, 0.96 / len(splits), (tall - 0.4) / tall), aspect="equal"
        )
        axes.plot(*array[:DOTS].T, ".", color=DATA, markersize=1.5, markeredgewidth=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])
        axes.set_title(heading, loc="left")
    figure.text(0.99, 0.08 / tall, small_print, ha="right", va="center", size=6, color=SMALL_PRINT)
    save(figure, outputs)
