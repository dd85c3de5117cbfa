"""Are the samples of Figure 3 new? Each beside the training digit nearest to it, and how far away that is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ddgm.errors import UserError
from ddgm.figures.inches import EDGE, page_of
from ddgm.figures.style import (
    DATA,
    DPI,
    PAGE,
    SAMPLES,
    first_of,
    grid,
    look,
    mosaic,
    read_arrays,
    require_images,
    save,
    trained_on,
)

ACROSS, PAIRS = 10, 3  # samples in a row, and rows
BINS = 40
NEAR = 0.01  # of the test digits are nearer to a training digit than where the dashed line stands

# The page, inches.
PICTURES, LETTERS, APART, NUMBERS, AXIS, LEGEND = 3.0, 0.11, 0.08, 0.32, 0.31, 0.31


def near_share(distances: np.ndarray, heldout: np.ndarray) -> tuple[float, np.ndarray]:
    """The distance below which NEAR of `heldout` (m,) lie, and the share of `distances` (S, n) below it, (S,)."""
    bound = float(np.quantile(heldout, NEAR))
    return bound, (distances < bound).mean(1)


def _draw_distances(panel: Axes, distances: np.ndarray, heldout: np.ndarray, bound: float) -> None:
    """Densities of the distances: test digits filled, samples as lines, each seed thin and all together thick."""
    # The axis begins at 0, where a copy of a training digit would lie.
    edges = np.linspace(0, 1.02 * max(distances.max(), heldout.max(), 1e-6), BINS + 1)
    panel.hist(heldout, edges, density=True, color=DATA, alpha=0.3, linewidth=0)
    if len(distances) > 1:
        for seed in distances:
            panel.hist(seed, edges, density=True, histtype="step", color=SAMPLES, alpha=0.45, linewidth=0.4)
    panel.hist(distances.ravel(), edges, density=True, histtype="step", color=SAMPLES, linewidth=1.2)
    panel.axvline(bound, color="#444444", linewidth=0.7, linestyle=(0, (3, 2)))
    panel.set(xlim=(0, edges[-1]), yticks=[])
    panel.locator_params(axis="x", nbins=6)
    panel.set_xlabel("distance to the nearest training digit", size=7)
    panel.set_ylabel("density", size=7)


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """The first seed's samples above their nearest training digits, and histograms of all seeds' distances.

    evidence  npz: samples and neighbours uint8 (S, n, 1, H, W), neighbour_distance (S, all) of these n
              samples and of more after them and, of test digits,
              heldout_distance (m,), Euclidean with pixels from 0 to 1, source: what the pair was trained on

    Raises UserError for arrays of another form.
    """
    arrays = read_arrays(
        evidence,
        {
            "samples": ("S", "n", 1, "H", "W"),
            "neighbours": ("S", "n", 1, "H", "W"),
            "neighbour_distance": ("S", "all"),
            "heldout_distance": ("m",),
            "source": (),
        },
    )
    for name in ("samples", "neighbours"):
        require_images(evidence, name, arrays[name])
    distances, heldout = arrays["neighbour_distance"], arrays["heldout_distance"]
    if not (np.isfinite(distances).all() and np.isfinite(heldout).all()):
        raise UserError(f"{evidence}: a distance is NaN or infinite; measure this experiment again")
    if distances.shape[1] < arrays["samples"].shape[1]:
        raise UserError(
            f"{evidence}: 'neighbour_distance' has the shape {distances.shape}, but the figure needs a distance for "
            f"each of the {arrays['samples'].shape[1]} samples; measure this experiment again"
        )
    seeds, count, _, height, _ = arrays["samples"].shape
    columns = min(ACROSS, count)
    pairs = min(PAIRS, count // columns)
    tiles = [grid(arrays[name][0], pairs, columns) for name in ("samples", "neighbours")]
    blocks = [mosaic(np.stack(both)) for both in zip(*tiles, strict=True)]
    down, across = blocks[0].shape[:2]
    # As many whole dots a pixel as fit; a few samples alone are not blown up.
    pixel = max(1, int(min(PICTURES / across, 0.4 / height) * DPI)) / DPI
    pitch = down * pixel + LETTERS + APART
    body = max(pairs * pitch - APART / 2, LEGEND + 1.0 + AXIS)
    bound, near = near_share(distances, heldout)
    spread = f"\u00a0±\u00a0{100 * near.std(ddof=1):.1f}" if seeds > 1 else ""
    note = (
        f"Pictures: {first_of(seeds)}, {trained_on(arrays['source'])}; samples as they came, none chosen; below each "
        "pair its distance, Euclidean, with pixels from 0 to 1. Dashed: 1 % of the test digits are nearer to a "
        f"training digit than this, and of the samples {100 * near.mean():.1f}{spread}\u00a0%. Memorised samples "
        "would lie at 0."
    )
    with look():
        figure, place = page_of(f"{title}: samples (above) and the training digits nearest to them", body, note)
        canvas = place(EDGE, 0, PICTURES, body)
        width = tiles[0].shape[-1] * pixel
        middles = np.linspace(width / 2, across * pixel - width / 2, columns)
        for pair, block in enumerate(blocks):
            above = pair * pitch
            canvas.imshow(
                block, extent=(0, across * pixel, above + down * pixel, above), interpolation="none", aspect="auto"
            )
            for column, middle in enumerate(middles):
                canvas.text(
                    middle, above + down * pixel + LETTERS - 0.02,
                    f"{distances[0, pair * columns + column]:.1f}", ha="center", va="baseline", size=6,
                )  # fmt: skip
        canvas.set(xlim=(0, PICTURES), ylim=(body, 0))
        canvas.set_axis_off()
        left = EDGE + max(across * pixel, 1.5) + NUMBERS
        _draw_distances(place(left, LEGEND, PAGE - left - 0.1, body - LEGEND - AXIS), distances, heldout, bound)
        key = place(left, 0, PAGE - left, LEGEND)
        key.set_axis_off()
        key.legend(
            [Line2D([], [], color=DATA, alpha=0.3, linewidth=4), Line2D([], [], color=SAMPLES, linewidth=1.2)],
            ["test digits", "samples" if seeds == 1 else f"samples, {seeds} seeds (thin: each)"],
            loc="upper left", fontsize=7, borderaxespad=0, borderpad=0, labelspacing=0.3, bbox_to_anchor=(0, 1),
        )  # fmt: skip
        save(figure, outputs, exact_colours=True)
