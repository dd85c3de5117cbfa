"""Energies by kind of input: a histogram for each above one axis, and how well each is told from held-out data."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ddgm.errors import UserError
from ddgm.figures.inches import Place
from ddgm.figures.style import PAGE
from ddgm.reading import read_arrays

BINS = 80

# The page, inches.
NAMES, NUMBERS, RIDGE, AXIS, HEAD = 0.95, 0.95, 0.27, 0.34, 0.17


def read_energies(
    evidence: Path, kinds: Collection[str], compared: Collection[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By kind, in the order of `kinds`: energies (S, m), and the AUROC (S,) of those `compared` with held-out data.

    A kind that the file does not hold is left out: not every data set has letters. Raises UserError without the kind
    "test", for other shapes, and for energies without value.
    """
    read_arrays(evidence, {"energy_test": ("S", "m")})
    with np.load(evidence, allow_pickle=False) as archive:
        held = [kind for kind in kinds if f"energy_{kind}" in archive]
    told = [kind for kind in held if kind in compared]
    arrays = read_arrays(
        evidence,
        {f"energy_{kind}": ("S", f"m of {kind}") for kind in held} | {f"auroc_{kind}": ("S",) for kind in told},
    )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{evidence}: {name!r} holds NaN or infinite values; measure this experiment again")
    return {kind: arrays[f"energy_{kind}"] for kind in held}, {kind: arrays[f"auroc_{kind}"] for kind in told}


def linear_part(energies: Mapping[str, np.ndarray]) -> float | None:
    """The power of ten up to which the axis is linear, logarithmic beyond; None where a linear axis shows all.

    Nine of ten held-out examples ("test") lie within it, so that the axis bends where little is left of them.
    """
    spread = np.abs(np.quantile(energies["test"], [0.05, 0.95])).max()
    widest = max(np.abs(values).max() for values in energies.values())
    if spread == 0 or widest <= 10 * spread:
        return None
    return float(10 ** np.ceil(np.log10(spread)))


def bent(values: np.ndarray, linear: float | None) -> np.ndarray:
    """Where `values` stand on the axis: linear up to ±`linear`, where it is ±1, and each power of ten beyond is 1."""
    if linear is None:
        return values
    size = np.abs(values) / linear
    return np.sign(values) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))


def axis_in_words(linear: float | None) -> str:
    """What `bent` makes of an axis."""
    return "linear" if linear is None else f"linear from −{linear:g} to {linear:g} and logarithmic beyond"


def name_ticks(axis: Axis, linear: float, low: float, high: float, most: int = 9) -> None:
    """Ticks of the bent axis at 0 and at powers of ten, at most `most` of them named."""
    decades = np.arange(1, 1 + int(max(abs(low), abs(high), 1)))
    ticks = [at for at in (*-decades[::-1], 0, *decades) if low <= at <= high]
    energy = {at: np.sign(at) * linear * 10.0 ** (abs(at) - 1) for at in ticks}
    every = -(-len(ticks) // most)
    named = [at for at in ticks if at % every == 0]
    axis.set_major_locator(FixedLocator(named))
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{energy[round(at)]:g}".replace("-", "−")))
    shares = np.log10(np.arange(2, 10))
    minor = [side * (1 + decade + share) for side in (-1, 1) for decade in range(len(decades)) for share in shares]
    axis.set_minor_locator(FixedLocator([at for at in minor if low <= at <= high]))
    axis.set_tick_params(which="minor", length=1.2, width=0.4)


def in_nats(energies: np.ndarray) -> list[str]:
    """Energies (n,) in print, with as many decimals as the largest leaves room for."""
    largest = np.abs(energies).max()
    decimals = 2 if largest < 10 else 1 if largest < 1000 else 0
    # What rounds to 0 has no sign.
    return [f"{energy:z.{decimals}f}".replace("-", "−") for energy in energies]


def spread_of(values: np.ndarray) -> str:
    """Values (S,) in words: mean ± sd over seeds."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def ridges_in_words(seeds: int, linear: float | None, heldout: str) -> str:
    """What the small print says of ridges; `heldout` is one example of the held-out data, with its article."""
    which = "the only seed" if seeds == 1 else f"all {seeds} seeds, and thin each of them"
    spread = "" if seeds == 1 else ", mean\u00a0±\u00a0sd"
    return (
        f"{which}; every histogram as high as its own peak, in bins equally wide on the axis, which is "
        f"{axis_in_words(linear)}; AUROC: the probability that this kind's energy is above {heldout}'s{spread}"
    )


def draw_ridges(
    place: Place,
    energies: Mapping[str, np.ndarray],
    aurocs: Mapping[str, np.ndarray],
    kinds: Mapping[str, tuple[str, str]],
    linear: float | None,
    heading: str,
) -> None:
    """A histogram for each kind above one axis, linear up to `linear` as in `bent`, and the AUROC beside it.

    `kinds` gives the words and the colour of each kind; `heading` says of the AUROC what is told from each.
    """
    places = {kind: bent(values, linear) for kind, values in energies.items()}
    ends = [min(p.min() for p in places.values()), max(p.max() for p in places.values())]
    margin = 0.02 * (ends[1] - ends[0]) or 0.5
    edges = np.linspace(ends[0] - margin, ends[1] + margin, BINS + 1)
    panel = place(NAMES, HEAD, PAGE - NAMES - NUMBERS, RIDGE * len(energies))
    panel.axvline(0, color="#bbbbbb", linewidth=0.5, zorder=0)
    for row, (kind, values) in enumerate(places.items()):
        words, colour = kinds[kind]
        base = len(places) - 1 - row
        # Every seed has as many values, so that the mean of the seeds' histograms is the histogram of all.
        counts = np.stack([np.histogram(seed, edges)[0] for seed in values])
        counts = base + 0.9 * counts / counts.max()
        panel.stairs(counts.mean(0), edges, baseline=base, fill=True, color=colour, alpha=0.3)
        panel.stairs(counts.mean(0), edges, baseline=base, color=colour, linewidth=0.8)
        if len(values) > 1:
            for seed in counts:
                panel.stairs(seed, edges, baseline=None, color=colour, alpha=0.45, linewidth=0.4)
        panel.annotate(
            words, (0, base + 0.25), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", size=7,
        )  # fmt: skip
        if kind in aurocs:
            panel.annotate(
                spread_of(aurocs[kind]), (1, base + 0.25), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", ha="left", va="center", size=7,
            )  # fmt: skip
    # Beside the first kind, or above it where it has a number of its own.
    above = next(iter(energies)) in aurocs
    panel.annotate(
        f"AUROC, {heading}\nagainst this kind", (1, len(places) - (0.2 if above else 0.55)),
        xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", ha="left",
        va="bottom" if above else "center", size=6,
    )  # fmt: skip
    panel.set(xlim=(edges[0], edges[-1]), ylim=(-0.05, len(places)), yticks=[])
    panel.spines["left"].set_visible(False)
    panel.set_xlabel(f"E(x) − mean E of the {kinds['test'][0]} (nats)", size=7)
    if linear is None:
        panel.xaxis.set_major_locator(MaxNLocator(7))
    else:
        name_ticks(panel.xaxis, linear, edges[0], edges[-1])
