"""Samples of Figure 4 in the order of their energy: what the energy finds likely, and what unlikely."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, captioned_tiles, page_of, rows_high, whole_dots
from ddgm.figures.ridges import in_nats
from ddgm.figures.style import PAGE, evenly, first_of, grid, look, mosaic, require_images, save, trained_on
from ddgm.reading import read_arrays

ACROSS, DOWN = 8, 5  # samples
LARGEST = 0.66  # inches, a picture


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """The first seed's samples at evenly spaced ranks of their energy, the lowest first, each above its energy.

    evidence  npz: samples uint8 (S, n, C, H, W), sample_energy (S, n), nats above the held-out pictures' mean, source:
              what the pair was trained on

    Raises UserError for arrays of another form.
    """
    arrays = read_arrays(evidence, {"samples": ("S", "n", "C", "H", "W"), "sample_energy": ("S", "n"), "source": ()})
    require_images(evidence, "samples", arrays["samples"])
    if not np.isfinite(arrays["sample_energy"]).all():
        raise UserError(f"{evidence}: 'sample_energy' holds NaN or infinite values; measure this experiment again")
    seeds, count, _, height, _ = arrays["samples"].shape
    columns = min(ACROSS, count)
    rows = min(DOWN, count // columns)
    ranks = evenly(count, rows * columns)
    order = np.argsort(arrays["sample_energy"][0], kind="stable")[ranks]
    tiles = grid(arrays["samples"][0, order], rows, columns)[:, None]
    down, across = mosaic(tiles[0]).shape[:2]
    pixel = whole_dots(min((PAGE - 2 * EDGE) / across, LARGEST / height))
    shown = [f"{rank + 1:,}" for rank in ranks]
    listed = ", ".join([*shown[:3], "…", shown[-1]] if len(shown) > 4 else shown)
    note = (
        f"{first_of(seeds).capitalize()}, {trained_on(arrays['source'])}. Of {count:,} samples in the order of their "
        f"energy those of the ranks {listed}, none chosen; row by row from the lowest. Below each its energy above the "
        "mean of the held-out pictures, nats."
    )
    with look():
        body = rows_high(rows, down, pixel)
        figure, place = page_of(f"{title}: samples in the order of their energy", body, note)
        canvas = place(EDGE, 0, PAGE - 2 * EDGE, body)
        captioned_tiles(canvas, tiles, in_nats(arrays["sample_energy"][0, order]), pixel)
        canvas.set(xlim=(0, PAGE - 2 * EDGE), ylim=(body, 0))
        save(figure, outputs, exact_colours=True)
