"""Which digit lies between two digits on the line in z: for each pair the one crossed most often (section 4)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ddgm.errors import UserError
from ddgm.figures.experiment_table import read_experiment
from ddgm.figures.inches import page_of
from ddgm.figures.style import look, save
from ddgm.paper import DIGITS_BETWEEN

CLASSES = 10
COLUMNS = ["experiment", "seed", "from", "to", "between", "share"]
COLOURS = matplotlib.colormaps["Blues"]
FRAME = "#ee7733"

# The page, inches.
LEFT, TOP, WIDE, HIGH, BAR_APART, BAR, BELOW = 0.42, 0.3, 4.3, 3.5, 0.1, 0.1, 0.05


def read_crossings(table: Path) -> pd.DataFrame:
    """The rows of `table`, which may be none; raises UserError if it has other columns, digits or shares."""
    rows = read_experiment(table, COLUMNS)
    for column in ("from", "to", "between"):
        other = rows.loc[~rows[column].isin(range(CLASSES)), column]
        if not other.empty:
            raise UserError(f"{table}: {column!r} is {other.iloc[0]}, but a digit is from 0 to {CLASSES - 1}")
    other = rows.loc[~rows["share"].between(0, 1), "share"]
    if not other.empty:
        raise UserError(f"{table}: a share is {other.iloc[0]}, but it is from 0 to 1")
    twice = rows[rows.duplicated(["seed", "from", "to", "between"])]
    if not twice.empty:
        seed, start, end, digit = (int(twice.iloc[0][column]) for column in ("seed", "from", "to", "between"))
        raise UserError(f"{table} has two rows for seed {seed} from {start} to {end} through {digit}; measure it again")
    return rows


def shares_of(rows: pd.DataFrame) -> np.ndarray:
    """The share of the paths from a to b that cross c, for each seed: (S, a, b, c).

    A seed that has a row from a to b has paths between them, and crosses by 0 what it has no row for; a seed that has
    none has no paths there, and is not a number.
    """
    seeds = {seed: number for number, seed in enumerate(rows["seed"].unique())}
    shares = np.full((max(1, len(seeds)), CLASSES, CLASSES, CLASSES), np.nan)
    seed = rows["seed"].map(seeds).to_numpy(int)
    a, b, c = (rows[column].to_numpy(int) for column in ("from", "to", "between"))
    shares[seed, a, b] = 0
    shares[seed, a, b, c] = rows["share"]
    return shares


def percent(shares: np.ndarray) -> str:
    """Shares (S,) in words: mean ± sd over the seeds that have any paths."""
    shares = shares[~np.isnan(shares)]
    if not shares.size:
        return "none drawn"
    # Held together where a line of the note ends.
    mean = f"{100 * shares.mean():.0f}"
    return f"{mean}\u00a0±\u00a0{100 * shares.std(ddof=1):.0f}\u00a0%" if len(shares) > 1 else f"{mean}\u00a0%"


def note_of(shares: np.ndarray) -> str:
    """What each of the paper's examples comes to; `shares` (S, a, b, c)."""
    measured = []
    for a, b, c in DIGITS_BETWEEN:
        there, back = shares[:, a, b, c], shares[:, b, a, c]
        # A table that counts each line both ways says the same twice.
        words = (
            percent(there)
            if np.array_equal(there, back, equal_nan=True)
            else f"{percent(there)} of {a}→{b}, {percent(back)} of {b}→{a}"
        )
        measured.append(f"{a}–{b} through {c}: {words}")
    seeds = f"mean ± sd over {len(shares)} seeds" if len(shares) > 1 else "one seed"
    return (
        "Large: the digit, neither end's, that most lines cross; small: the share of lines that cross it, in %; a "
        "dash: none is crossed, or no line joins the two. Framed: the paper's examples, whose "
        f"lines go {'; '.join(measured)} ({seeds})."
    )


def draw(table: Path, outputs: Sequence[Path], title: str) -> None:
    """A matrix from (rows) to (columns): the digit between that is crossed most often, shaded by its share.

    `table` is a csv: experiment, seed, from, to, between, share (0 to 1, of the lines from `from` to `to`). Shares are
    means over the seeds that have lines between the two. Raises UserError for another table.
    """
    shares = shares_of(read_crossings(table))
    there = ~np.isnan(shares)
    mean = np.where(there, shares, 0).sum(0) / np.maximum(1, there.sum(0))
    digit, share = mean.argmax(-1), mean.max(-1)
    # Lines between samples of one digit may not have been drawn at all: no dash claims that they cross nothing.
    drawn = ~np.eye(CLASSES, dtype=bool) if not np.diagonal(share).any() else np.ones((CLASSES, CLASSES), bool)
    scale = Normalize(0, max(share.max(), 0.01))
    with look():
        figure, place = page_of(f"{title}: the digit between", TOP + HIGH + BELOW, note_of(shares))
        panel = place(LEFT, TOP, WIDE, HIGH)
        for a, b in np.ndindex(CLASSES, CLASSES):
            colour = COLOURS(0.85 * scale(share[a, b])) if drawn[a, b] else "#e8e8e8"
            panel.add_patch(Rectangle((b - 0.5, a - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
            if not drawn[a, b]:
                continue
            ink = "white" if scale(share[a, b]) > 0.8 else "black"  # whichever has the more contrast to the shade
            if share[a, b] == 0:
                panel.text(b, a, "–", ha="center", va="center", size=8, color="#777777")
                continue
            panel.text(b, a + 0.04, f"{digit[a, b]}", ha="center", va="baseline", size=9, weight="bold", color=ink)
            small = f"{100 * share[a, b]:.0f}" if share[a, b] >= 0.01 else "<1"
            panel.text(b, a + 0.34, small, ha="center", va="baseline", size=6, color=ink)
        for a, b, _ in DIGITS_BETWEEN:
            for row, column in ((a, b), (b, a)):
                box = (column - 0.46, row - 0.46)
                panel.add_patch(Rectangle(box, 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=1.6, zorder=3))
        panel.set(xlim=(-0.5, CLASSES - 0.5), ylim=(CLASSES - 0.5, -0.5), xticks=range(CLASSES), yticks=range(CLASSES))
        panel.xaxis.tick_top()
        panel.xaxis.set_label_position("top")
        panel.set_xlabel("to")
        panel.set_ylabel("from")
        panel.tick_params(length=0, pad=2, labelsize=8)
        panel.spines[:].set_visible(False)
        shades = matplotlib.colors.ListedColormap(COLOURS(np.linspace(0, 0.85, 256)))
        bar = figure.colorbar(
            ScalarMappable(scale, shades), cax=place(LEFT + WIDE + BAR_APART, TOP, BAR, HIGH),
            format=PercentFormatter(1, decimals=0, symbol="\u00a0%"),
        )  # fmt: skip
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("share of the lines that cross it", size=7)
        save(figure, outputs, exact_colours=True)
