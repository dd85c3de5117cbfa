"""Are the samples of Figure 3 new? Each beside the training digit nearest to it, and how far away that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, captioned_tiles, page_of, rows_high, whole_dots
from ddgm.figures.style import (
    DATA,
    PAGE,
    SAMPLES,
    first_of,
    grid,
    look,
    mosaic,
    not_to_be_published,
    require_images,
    save,
    trained_on,
)
from ddgm.metrics.cutoffs import MEMORISED
from ddgm.reading import read_arrays

ROWS = 3  # of pairs
BINS = 40

# The page, inches.
NUMBERS, AXIS, LEGEND = 0.32, 0.31, 0.31
BELOW, BETWEEN, BELOW_NUMBERS, LEGEND_LINE = 0.95, 0.1, 0.14, 0.19  # where the distances stand below


@dataclass(frozen=True)
class Kind:
    """What the samples are, and how they lie on the page."""

    data: str  # what one training example is called
    heldout: str  # what the held-out data are called
    channels: int
    across: int  # samples in a row
    wide: float  # inches for a row of pictures
    largest: float  # inches, a picture
    below: bool  # whether the distances stand below the pictures, or right of them
    distance: str = "with pixels from 0 to 1"  # how it is measured, beside that it is Euclidean
    photographs: bool = False  # whether the data may be photographs


DIGITS = Kind("training digit", "test digits", 1, across=10, wide=3.0, largest=0.4, below=False)


def near_share(distances: np.ndarray, heldout: np.ndarray) -> tuple[float, np.ndarray]:
    """The distance below which MEMORISED of `heldout` (m,) lie, and the share of `distances` (S, n) below it, (S,)."""
    bound = float(np.quantile(heldout, MEMORISED))
    return bound, (distances < bound).mean(1)


def read_neighbours(evidence: Path, channels: int) -> dict[str, np.ndarray]:
    """The arrays that `draw` names, checked: as many images as have a neighbour, and a distance for each."""
    arrays = read_arrays(
        evidence,
        {
            "samples": ("S", "n", channels, "H", "W"),
            "neighbours": ("S", "shown", channels, "H", "W"),
            "neighbour_distance": ("S", "all"),
            "heldout_distance": ("m",),
            "source": (),
        },
    )
    for name in ("samples", "neighbours"):
        require_images(evidence, name, arrays[name])
    distances, shown = arrays["neighbour_distance"], arrays["neighbours"].shape[1]
    if not (np.isfinite(distances).all() and np.isfinite(arrays["heldout_distance"]).all()):
        raise UserError(f"{evidence}: a distance is NaN or infinite; measure this experiment again")
    for name in ("samples", "neighbour_distance"):
        if arrays[name].shape[1] < shown:
            raise UserError(
                f"{evidence}: {name!r} has the shape {arrays[name].shape}, but the figure needs one for each of the "
                f"{shown} neighbours; measure this experiment again"
            )
    return arrays | {"samples": arrays["samples"][:, :shown]}


def _draw_distances(panel: Axes, distances: np.ndarray, heldout: np.ndarray, bound: float, kind: Kind) -> None:
    """Densities of the distances: held-out data filled, samples as lines, each seed thin and all together thick."""
    # The axis begins at 0, where a copy of a training example would lie.
    edges = np.linspace(0, 1.02 * max(distances.max(), heldout.max(), 1e-6), BINS + 1)
    panel.hist(heldout, edges, density=True, color=DATA, alpha=0.3, linewidth=0)
    if len(distances) > 1:
        for seed in distances:
            panel.hist(seed, edges, density=True, histtype="step", color=SAMPLES, alpha=0.45, linewidth=0.4)
    panel.hist(distances.ravel(), edges, density=True, histtype="step", color=SAMPLES, linewidth=1.2)
    panel.axvline(bound, color="#444444", linewidth=0.7, linestyle=(0, (3, 2)))
    panel.set(xlim=(0, edges[-1]), yticks=[])
    panel.locator_params(axis="x", nbins=6)
    panel.set_xlabel(f"distance to the nearest {kind.data}", size=7)
    panel.set_ylabel("density", size=7)


def draw(evidence: Path, outputs: Sequence[Path], title: str, kind: Kind = DIGITS) -> None:
    """The first seed's samples above their nearest training examples, and histograms of all seeds' distances.

    evidence  npz: samples uint8 (S, n, C, H, W), and of the first of them neighbours uint8 (S, shown, C, H, W);
              neighbour_distance (S, all) of these and of more samples after them and, of held-out data,
              heldout_distance (m,), Euclidean with pixels from 0 to 1; source: what the pair was trained on

    Raises UserError for arrays of another form.
    """
    arrays = read_neighbours(evidence, kind.channels)
    distances, heldout = arrays["neighbour_distance"], arrays["heldout_distance"]
    seeds, count, _, height, _ = arrays["samples"].shape
    columns = min(kind.across, count)
    rows = min(ROWS, count // columns)
    tiles = np.stack([grid(arrays[name][0], rows, columns) for name in ("samples", "neighbours")], 1)
    down, across = mosaic(tiles[0]).shape[:2]
    # As many whole dots a pixel as fit; a few samples alone are not blown up.
    pixel = whole_dots(min(kind.wide / across, kind.largest / height))
    pictures = rows_high(rows, down, pixel)
    if kind.below:
        left, key_at, top, high = EDGE + BELOW_NUMBERS, pictures + BETWEEN, pictures + BETWEEN + LEGEND_LINE, BELOW
        body = top + high + AXIS
    else:
        body = max(pictures, LEGEND + 1.0 + AXIS)
        left, key_at, top, high = EDGE + max(across * pixel, 1.5) + NUMBERS, 0, LEGEND, body - LEGEND - AXIS
    bound, near = near_share(distances, heldout)
    spread = f"\u00a0±\u00a0{100 * near.std(ddof=1):.1f}" if seeds > 1 else ""
    warning = not_to_be_published(arrays["source"], "pictures of the training data") if kind.photographs else ""
    note = (
        f"Pictures: {first_of(seeds)}, {trained_on(arrays['source'])}; samples as they came, none chosen; below each "
        f"pair its distance, Euclidean, {kind.distance}. Dashed: 1 % of the {kind.heldout} are nearer to a "
        f"{kind.data} than this, and of the samples {100 * near.mean():.1f}{spread}\u00a0%. Memorised samples "
        f"would lie at 0.{warning}"
    )
    with look():
        figure, place = page_of(f"{title}: samples (above) and the {kind.data}s nearest to them", body, note)
        canvas = place(EDGE, 0, kind.wide, body)
        captioned_tiles(canvas, tiles, [f"{distance:.1f}" for distance in distances[0]], pixel)
        canvas.set(xlim=(0, kind.wide), ylim=(body, 0))
        _draw_distances(place(left, top, PAGE - left - 0.1, high), distances, heldout, bound, kind)
        key = place(left, key_at, PAGE - left, top - key_at)
        key.set_axis_off()
        key.legend(
            [Line2D([], [], color=DATA, alpha=0.3, linewidth=4), Line2D([], [], color=SAMPLES, linewidth=1.2)],
            [kind.heldout, "samples" if seeds == 1 else f"samples, {seeds} seeds (thin: each)"],
            loc="upper left", ncols=2 if kind.below else 1, fontsize=7, borderaxespad=0, borderpad=0,
            labelspacing=0.3, bbox_to_anchor=(0, 1),
        )  # fmt: skip
        save(figure, outputs, exact_colours=True)
