"""Lines between the digits that the paper names: what lies on them, and how many of all such lines pass each digit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ddgm.figures.fig3_crossings import CLASSES, percent, read_crossings, shares_of
from ddgm.figures.fig3_steps import (
    BETWEEN,
    GREY,
    PICTURES,
    draw_rows,
    energy_scale,
    row_pitch,
    signed,
    whole_dots_of,
)
from ddgm.figures.inches import EDGE, page_of
from ddgm.figures.style import PAGE, evenly, first_of, look, require_images, save, trained_on
from ddgm.metrics.cutoffs import SURE
from ddgm.reading import read_arrays

STEPS = 11  # pictures of a line, at most
SEEN = ("class", "confidence", "energy")  # at each step

# The page, inches: right of the pictures the shares, a block for each two digits.
NUMBERS, HEADING, BELOW, APART = 0.42, 0.19, 0.17, 0.1


def read_named(evidence: Path) -> dict[str, np.ndarray]:
    """The arrays that `draw` names, checked. Raises UserError for other shapes or types."""
    steps = ("pairs", "rows", "steps")
    arrays = read_arrays(
        evidence,
        {
            "named": ("pairs", 3),
            "named_counts": ("pairs",),
            "named_lines": (*steps, 1, "H", "W"),
            "named_class": steps,
            "named_confidence": steps,
            "named_energy": steps,
            "source": (),
        },
    )
    require_images(evidence, "named_lines", arrays["named_lines"])
    return arrays


def _draw_shares(panel: Axes, shares: np.ndarray, pair: Sequence[int]) -> None:
    """Bars: the share of lines (S, 10) that pass each digit, mean and sd over seeds; the paper's in purple."""
    a, b, between = pair
    digits = [digit for digit in range(CLASSES) if digit not in (a, b)]
    known = shares[~np.isnan(shares).any(1)][:, digits]
    if len(known):
        spread = known.std(0, ddof=1) if len(known) > 1 else np.zeros(len(digits))
        colours = [BETWEEN if digit == between else GREY for digit in digits]
        places, means = range(len(digits)), known.mean(0)
        # No bar for the spread below none of the lines or above all of them.
        sides = (np.minimum(spread, means), np.minimum(spread, 1 - means))
        panel.bar(places, means, yerr=sides, color=colours, width=0.75, error_kw={"elinewidth": 0.7, "ecolor": "black"})
    panel.set(xlim=(-0.6, len(digits) - 0.4), ylim=(0, 1), xticks=range(len(digits)), xticklabels=digits)
    panel.yaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u00a0%"))
    panel.tick_params(labelsize=6)
    panel.tick_params(axis="x", length=0)


def draw(evidence: Path, table: Path, outputs: Sequence[Path], title: str) -> None:
    """The first lines in z between each two digits of the paper, as they come; beside them the shares of all lines.

    evidence  npz of the first seed: named int (pairs, 3), two ends and the paper's digit between; named_lines uint8
              (pairs, rows, steps, 1, H, W), named_class, named_confidence (0 to 1) and named_energy (nats above the
              test set's mean) (pairs, rows, steps), of which named_counts (pairs,) rows hold a line; source
    table     csv as for `fig3_crossings`, of all seeds

    Raises UserError for arrays or tables of another form.
    """
    arrays, shares = read_named(evidence), shares_of(read_crossings(table))
    chosen = evenly(arrays["named_lines"].shape[2], STEPS)
    images = arrays["named_lines"][:, :, chosen]
    pixel, dpi = whole_dots_of(images[0])
    pitch, counts = row_pitch(images.shape[-2], pixel, dpi), arrays["named_counts"]
    drawn = np.arange(images.shape[1]) < counts[:, None]
    scale = energy_scale(arrays["named_energy"][drawn])
    blocks = [HEADING + max(count, 2) * pitch + APART for count in counts]
    note = (
        f"Left: the first lines found of {first_of(len(shares))}, {trained_on(arrays['source'])}, not chosen. Under "
        f"each picture the classifier's digit: grey below a confidence of {SURE:g}, on purple if it is the digit of "
        f"neither end. Below them the energy, all rows on one scale from {signed(scale[0])} to {signed(scale[1])} "
        "nats; grey line: 0, the test set's mean. Right: the share of all lines between the two digits that pass each "
        "other one, in purple the paper's; mean ± sd over seeds."
    )
    with look():
        figure, place = page_of(f"{title}: lines between digits that the paper names", sum(blocks), note, dpi)
        for number, (a, b, between) in enumerate(arrays["named"].tolist()):
            top, count = sum(blocks[:number]), counts[number]
            words = place(EDGE, top, PAGE - 2 * EDGE, HEADING)
            words.set_axis_off()
            says = f"{a} to {b} by way of {between}, says the paper. Of our lines: {percent(shares[:, a, b, between])}"
            words.text(0, 0.4, says, size=8, va="center", transform=words.transAxes)
            canvas = place(EDGE, top + HEADING, PICTURES, max(count, 2) * pitch)
            if count:
                rows = {
                    "interpolations": images[number, :count],
                    **{f"step_{name}": arrays[f"named_{name}"][number, :count][:, chosen] for name in SEEN},
                }
                draw_rows(canvas, rows, scale, pixel, dpi)
                canvas.set_ylim(max(count, 2) * pitch, 0)
            else:
                canvas.set_axis_off()
                canvas.text(0.5, 0.5, f"no line joins {a} and {b}", size=7, ha="center", transform=canvas.transAxes)
            left = EDGE + PICTURES + NUMBERS
            panel = place(left, top + HEADING + 0.02, PAGE - left - 0.07, max(count, 2) * pitch - BELOW - 0.02)
            _draw_shares(panel, shares[:, a, b], (a, b, between))
        save(figure, outputs, dpi=dpi, exact_colours=True)
