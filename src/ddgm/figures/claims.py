"""A figure for each claim of the paper: what was measured, seed by seed, and what the claim asks of it.

Above each stand the claim's sentence and the verdict on each recipe. A check mark stands at what holds and a cross at
what does not: colour alone says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from ddgm.errors import UserError
from ddgm.figures.curves import over_seeds
from ddgm.figures.inches import EDGE, page_of
from ddgm.figures.metric import SIGNS, Metric, metric_named
from ddgm.figures.style import PAGE, SAMPLES, SMALL_PRINT, look, save, width_of, wrapped
from ddgm.reading import read_table

HOLDS = {True: ("✓", "#117755"), False: ("✗", "#cc3311")}
ALLOWED = "#dfe8e2"  # behind what a claim asks for
# Paul Tol's "bright" scheme, an orange for its yellow, too pale for thin lines; after all of them come the dashes.
COLOURS = ("#4477aa", "#cc3344", "#228833", "#aa3377", "#44aacc", "#ee7733", "#555555")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
NUMBERS, OVER = 7, 0.08  # points of a panel's numbers, and inches that they may stand beyond it
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Claim:
    """What a claim says, the table's recipes in their order, and a row for each of the claim's tests."""

    says: str
    recipes: list[str]
    tests: pd.DataFrame  # recipe, experiment, metric, at, comparison, threshold, wanted, holds (bool), verdict

    def verdicts(self) -> list[str]:
        """The verdict on each recipe, and how many of its tests hold."""
        parts = [(recipe, self.tests[self.tests["recipe"] == recipe]) for recipe in self.recipes]
        return [
            f"{SIGNS[tests['verdict'].iloc[0]]} {recipe}: {tests['holds'].sum()} of {len(tests)} tests hold"
            for recipe, tests in parts
            if len(tests)
        ]

    def of(self, experiment: str, metric: str) -> pd.DataFrame:
        """The tests of one experiment's metric that have a threshold."""
        chosen = (self.tests["experiment"] == experiment) & (self.tests["metric"] == metric)
        return self.tests[chosen & self.tests["threshold"].notna()]


def read_claim(claim: str, path: Path) -> Claim:
    """The rows of `claim` in the table `path` (columns: see `measures`); raises UserError if there is none."""
    asked = ["metric", "at", "comparison", "threshold", "wanted"]
    table = read_table(path, ["claim", "says", "recipe", "experiment", *asked, "holds", "verdict"])
    tests = table[table["claim"] == claim]
    if tests.empty:
        known = ", ".join(sorted(table["claim"].astype(str).unique()))
        raise UserError(f"{path} tests no claim {claim!r}, only {known}; name one of these")
    for column, allowed in (("comparison", ("at most", "at least")), ("verdict", tuple(SIGNS))):
        other = tests.loc[~tests[column].isin(allowed), column]
        if not other.empty:
            raise UserError(f"{path}: the {column} of {claim} is {other.iloc[0]!r}; write one of {', '.join(allowed)}")
    holds = tests["holds"].astype(str) == "True"
    at = tests["at"].astype(object).where(tests["at"].notna(), "")
    return Claim(tests["says"].iloc[0], list(table["recipe"].unique()), tests.assign(holds=holds, at=at))


def read_tables(tables: Mapping[str, Path], titles: Mapping[str, str], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all experiments, each from its own csv, in one table.

    Raises UserError for an experiment without title or rows, and if there is none.
    """
    if not tables:
        raise UserError("the figure of a claim has no experiment to draw; name at least one")
    parts = []
    for experiment, path in tables.items():
        if experiment not in titles:
            raise UserError(f"the figure of a claim has a table of {experiment} but no title; give both or neither")
        table = read_table(path, ["experiment", "seed", *columns])
        parts.append(table[table["experiment"] == experiment])
        if parts[-1].empty:
            raise UserError(f"{path} has no row of the experiment {experiment}; measure it again")
    return pd.concat(parts, ignore_index=True)


def tested_metrics(read: Claim, claim: str, table: pd.DataFrame) -> list[str]:
    """The metrics that the claim tests and the table holds; raises UserError if there is none."""
    measured = set(table["metric"])
    metrics = [metric for metric in read.tests["metric"].unique() if metric in measured]
    if not metrics:
        tested = ", ".join(read.tests["metric"].unique())
        raise UserError(f"the claim {claim} tests {tested}, which no table holds; measure it first")
    return metrics


def power(value: float) -> str:
    """A power of ten as a number, or with raised digits of full size where that would be long."""
    return f"{value:g}" if 1e-4 < value < 1e4 else "10" + str(round(np.log10(value))).translate(RAISED)


def _plain_log(axis: Axes, which: str) -> None:
    """A log scale with few ticks and legible numbers."""
    axis.set(**{f"{which}scale": "log"})
    scale = axis.xaxis if which == "x" else axis.yaxis
    scale.set_major_locator(LogLocator(numticks=5))
    scale.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    scale.set_minor_formatter(NullFormatter())


def _limits(values: np.ndarray, metric: Metric) -> tuple[float, float]:
    """Where a metric's axis begins and ends, given all finite `values` that stand on it."""
    if metric.axis == "log":
        values = values[values > 0]
        low, high = (values.min() / 1.6, values.max() * 1.6) if values.size else (0.1, 10.0)
        # Less than two powers of ten would leave the axis with one number or none.
        return (low, high) if high / low > 100 else (10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    # From 0, unless all of it is close to 1.
    if metric.axis == "share" and low < 0.5:
        return -0.03, 1.03
    if metric.axis in ("share", "correlation"):
        low = min(low, 0.0) if low < 0.5 else low
        margin = 0.05 * max(1 - low, 0.02)
        return low - margin, 1 + margin
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _keep_numbers_apart(panel: Axes) -> None:
    """Numbers at the ends of the x axis off those of the next panel, and of those between them the ones that fit."""
    ticks, wide = panel.get_xticks(), panel.get_position().width * PAGE
    places = wide * (panel.transData + panel.transAxes.inverted()).transform(np.c_[ticks, 0 * ticks])[:, 0]
    words = panel.xaxis.get_major_formatter().format_ticks(ticks)
    long = np.array([width_of(word, NUMBERS) for word in words])
    starts = (places - long / 2).clip(-OVER, wide + OVER - long)
    kept: list[int] = []
    for number in sorted(range(len(ticks)), key=lambda at: at not in (0, len(ticks) - 1)):
        left, right = starts[number] - 0.02, starts[number] + long[number] + 0.02
        if all(right < starts[other] or starts[other] + long[other] < left for other in kept):
            kept.append(number)
    panel.set_xticks(ticks, [word if number in kept else "" for number, word in enumerate(words)], size=NUMBERS)
    for label, moved in zip(panel.get_xticklabels(), starts + long / 2 - places, strict=True):
        label.set_transform(label.get_transform() + ScaledTranslation(moved, 0, panel.figure.dpi_scale_trans))


def style_of(number: int) -> dict[str, object]:
    """Colour and dashes of the line `number`; the first twenty-one differ."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


# --- Claims about one number for each experiment ---


def _draw_measure(panel: Axes, metric: Metric, rows: Sequence[tuple[float, float, np.ndarray, pd.DataFrame]]) -> None:
    """A panel of `measures`; a row is its middle and height in inches, the seeds' values and the tests."""
    finite = np.concatenate([values[np.isfinite(values)] for _, _, values, _ in rows])
    thresholds = np.concatenate([tests["threshold"].to_numpy(float) for *_, tests in rows])
    # So many times a mean that is infinite is no place on an axis.
    low, end = _limits(np.concatenate([finite, thresholds[np.isfinite(thresholds)]]), metric)
    high = end
    if any(np.isposinf(values).any() for _, _, values, _ in rows):
        # A strip on the right for what lies beyond any axis.
        high = end * (end / low) ** 0.16 if metric.axis == "log" else end + 0.16 * (end - low)
        panel.axvline(end, color="#999999", linewidth=0.5, linestyle=(0, (2, 2)))
    beyond = (end * high) ** 0.5 if metric.axis == "log" else (end + high) / 2
    for middle, tall, values, tests in rows:
        panel.axhline(middle, color="#e4e4e4", linewidth=0.4, zorder=0)
        floor = tests.loc[tests["comparison"] == "at least", "threshold"].max()
        ceiling = tests.loc[tests["comparison"] == "at most", "threshold"].min()
        start, stop = (low if np.isnan(floor) else floor), (end if np.isnan(ceiling) else ceiling)
        if len(tests) and start < stop:
            panel.add_patch(
                Rectangle((start, middle - 0.42 * tall), stop - start, 0.84 * tall, color=ALLOWED, zorder=-1, lw=0)
            )
        for threshold in filter(np.isfinite, tests["threshold"]):
            panel.plot([threshold] * 2, [middle - 0.42 * tall, middle + 0.42 * tall], color="#117755", lw=0.8)
        if len(tests):
            sign, colour = HOLDS[bool(tests["holds"].all())]
            panel.annotate(
                sign, (1, middle), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
                ha="left", va="center", color=colour, size=8,
            )  # fmt: skip
        known = values[~np.isnan(values)]
        if values.size and not known.size:
            panel.annotate(
                "not measured", (0, middle), xycoords=("axes fraction", "data"), xytext=(3, 0),
                textcoords="offset points", ha="left", va="center", color=SMALL_PRINT, size=6,
            )  # fmt: skip
        if not known.size:
            continue
        shown = known[np.isfinite(known)].clip(low)
        # Seed by seed a little lower, so that equal values are seen to be several.
        offsets = np.linspace(-0.22, 0.22, len(shown)) * tall if len(shown) > 1 else np.zeros(len(shown))
        panel.plot(
            shown, middle + offsets, "o", color=SAMPLES, markersize=2.2, markeredgewidth=0.25, markeredgecolor="white",
            zorder=3, clip_on=False,
        )  # fmt: skip
        if np.isfinite(known).all():
            mean, sd = known.mean(), known.std(ddof=1) if len(known) > 1 else 0.0
            panel.plot([max(mean - sd, low), mean + sd], [middle] * 2, color="black", linewidth=0.7)
            panel.plot([max(mean, low)] * 2, [middle - 0.38 * tall, middle + 0.38 * tall], color="black", linewidth=1.3)
        elif np.isposinf(known).any():
            infinite = np.isposinf(known).sum()
            words = "∞" if infinite == len(known) else f"∞ ×{infinite}"
            panel.text(beyond, middle, words, ha="center", va="center", size=7)
    if metric.axis == "log":
        _plain_log(panel, "x")
    elif metric.axis == "linear" and (finite == finite.round()).all():
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    panel.set(xlim=(low, high))
    for minor in (False, True):
        panel.set_xticks([tick for tick in panel.get_xticks(minor=minor) if low <= tick <= end], minor=minor)
    _keep_numbers_apart(panel)
    panel.set_xlabel(metric.meaning, size=7)
    panel.set_title(metric.label, size=8)


def measures(
    claim: str, claims: Path, tables: Mapping[str, Path], titles: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """What a claim tests, a panel for each metric and a line for each experiment, in the order of `tables`.

    Each seed is a dot, the mean a bar with ± sd; infinite values stand in a strip on the right. The shading is what
    the claim asks for.

      claims  csv: claim, says, recipe, experiment, metric, at, mean, sd, comparison ("at most" or "at least"),
              threshold, wanted, holds (True or False), verdict
      tables  csv each: experiment, seed, metric, value
      titles  what stands at the line

    Raises UserError for other tables, or if no table holds what the claim tests.
    """
    read = read_claim(claim, claims)
    table = read_tables(tables, titles, ["metric", "value"])
    metrics = tested_metrics(read, claim, table)
    names, sign, top, below = 1.75, 0.2, 0.2, 0.4
    wide = (PAGE - names - EDGE) / len(metrics) - sign
    with look():
        labels = [wrapped(titles[experiment], names - 0.1, 7) for experiment in tables]
        heights = [0.09 + 0.115 * len(lines) for lines in labels]
        ends = np.cumsum(heights)
        note = "Each dot is a seed, the bar their mean ± sd. Shaded: what the claim asks for, ✓ if that holds, else ✗."
        if counted := [asked for asked in read.tests["wanted"].unique() if asked != "the mean"]:
            note += f" Some tests ask for {' or '.join(counted)} in the shade, and not for the mean."
        if np.isinf(table.loc[table["metric"].isin(metrics), "value"]).any():
            note += " ∞ stands for all seeds, or for so many."
        if not set(tables) <= set(read.tests["experiment"]):
            note += " Experiments without shading are for comparison."
        figure, place = page_of(read.says, top + ends[-1] + below, note, bold=read.verdicts())
        for column, metric in enumerate(metrics):
            panel = place(names + column * (wide + sign), top, wide, ends[-1])
            panel.set(ylim=(ends[-1], 0), yticks=[])
            rows = []
            for experiment, end, tall in zip(tables, ends, heights, strict=True):
                chosen = (table["experiment"] == experiment) & (table["metric"] == metric)
                values = table.loc[chosen, "value"].to_numpy(float)
                rows.append((end - tall / 2, tall, values, read.of(experiment, metric)))
            _draw_measure(panel, metric_named(metric), rows)
            if column == 0:
                panel.set_yticks([middle for middle, *_ in rows], labels=["\n".join(lines) for lines in labels])
                panel.tick_params(axis="y", length=0, pad=3)
        save(figure, outputs)


# --- Claims about what happens along training ---


def _short(title: str, dataset: str) -> str:
    """`title` without the data set, which stands beside it."""
    words = dataset.replace("_", "-")
    rest = title[len(words) :].lstrip(" ,:")
    return rest if title.lower().startswith(words.lower()) and rest else title


def traces(
    claim: str,
    claims: Path,
    tables: Mapping[str, Path],
    titles: Mapping[str, str],
    datasets: Mapping[str, str],
    outputs: Sequence[Path],
) -> None:
    """What a claim tests along training: a panel for each metric (columns) and data set (rows).

    A line for each experiment is the mean over seeds, in a band from the least to the greatest. A triangle stands at
    the threshold of a test, beside the first or last step, and points to the allowed side.

      claims    as in `measures`, `at` being "first" or "last"
      tables    csv each: experiment, seed, step, metric, value
      titles    what stands at the line
      datasets  the data set of each experiment

    Raises UserError for other tables, or if no table holds what the claim tests.
    """
    read = read_claim(claim, claims)
    table = read_tables(tables, titles, ["step", "metric", "value"])
    metrics = tested_metrics(read, claim, table)
    missing = [experiment for experiment in tables if experiment not in datasets]
    if missing:
        raise UserError(f"the figure of a claim has a table of {missing[0]} but not its data set; name it")
    sets = list(dict.fromkeys(datasets[experiment] for experiment in tables))
    shorts = {experiment: _short(titles[experiment], datasets[experiment]) for experiment in tables}
    styles = {short: style_of(number) for number, short in enumerate(dict.fromkeys(shorts.values()))}
    left, names, between, top, below = 0.45, 1.45, 0.14, 0.2, 0.2
    wide = (PAGE - left - names - between * (len(metrics) - 1)) / len(metrics)
    with look():
        labels = {short: wrapped(short, names - 0.42, 6) for short in styles}
        # A row is as high as its list of experiments, if that is higher than a panel should be.
        lists = {name: [experiment for experiment in tables if datasets[experiment] == name] for name in sets}
        heights = [max(1.25, 0.2 + sum(0.04 + 0.1 * len(labels[shorts[e]]) for e in lists[name])) for name in sets]
        note = (
            "Lines: mean over seeds, bands: all seeds. ▲ a test asks for at least this, ▼ for at most this, of the "
            "line of its colour, at its last step (its first, if it stands on the left); filled: the mean meets it, "
            "hollow: it does not."
        )
        figure, place = page_of(read.says, top + sum(heights) + below * len(sets) + 0.14, note, bold=read.verdicts())
        limits = {}
        for metric in metrics:
            asked = read.tests.loc[read.tests["metric"] == metric, "threshold"].to_numpy(float)
            values = np.concatenate([table.loc[table["metric"] == metric, "value"].to_numpy(float), asked])
            limits[metric] = _limits(values[np.isfinite(values)], metric_named(metric))
        # Metrics of one kind share an axis, so that the panels of a row can be compared.
        alike = len({metric_named(metric).meaning for metric in metrics}) == 1
        if alike:
            shared = min(low for low, _ in limits.values()), max(high for _, high in limits.values())
            limits = dict.fromkeys(metrics, shared)
        for row, (name, tall) in enumerate(zip(sets, heights, strict=True)):
            for column, metric in enumerate(metrics):
                begin = top + sum(heights[:row]) + below * row
                panel = place(left + column * (wide + between), begin, wide, tall)
                lines = table[(table["metric"] == metric) & table["experiment"].isin(lists[name])]
                _draw_traces(panel, lines, {e: styles[shorts[e]] for e in lists[name]}, read, metric)
                panel.set(ylim=limits[metric])
                if metric_named(metric).axis == "log":
                    _plain_log(panel, "y")
                if row == 0:
                    panel.set_title(metric_named(metric).label, size=8)
                if row == len(sets) - 1:
                    panel.set_xlabel("training step", size=7)
                if column == 0:
                    panel.set_ylabel(metric_named(metric).meaning, size=7)
                elif alike:
                    panel.tick_params(labelleft=False)
            panel.legend(
                [Line2D([], [], linewidth=1.2, **styles[shorts[e]]) for e in lists[name]],
                ["\n".join(labels[shorts[e]]) for e in lists[name]],
                loc="upper left", bbox_to_anchor=(1.04, 1.03), borderaxespad=0, borderpad=0, labelspacing=0.5,
                fontsize=6, title=name.replace("_", "-"), title_fontproperties={"size": 7, "weight": "bold"},
                alignment="left",
            )  # fmt: skip
        save(figure, outputs)


def _draw_traces(
    panel: Axes, table: pd.DataFrame, styles: Mapping[str, dict[str, object]], read: Claim, metric: str
) -> None:
    """A panel of `traces`: the metric's rows of one data set's experiments."""
    # Steps are measured in equal ratios.
    ratio = table["step"].max() / table["step"].min() if len(table) else 1.0
    beside = {"first": 0, "last": 0, "": 0}
    for experiment, style in styles.items():
        line = over_seeds(table[table["experiment"] == experiment])
        if line.empty:
            continue
        panel.fill_between(line.index, line["least"], line["greatest"], color=style["color"], alpha=0.15, lw=0)
        panel.plot(line.index, line["mean"], linewidth=1.2, **style)
        for test in read.of(experiment, metric).itertuples():
            at = test.at if test.at in beside else ""
            beside[at] += 1
            # Beside the axis' end, one after another: tests of several experiments may share a threshold.
            away = ratio ** (0.045 * beside[at])
            step = table["step"].min() / away if at == "first" else table["step"].max() * away
            panel.plot(
                step, test.threshold, marker="^" if test.comparison == "at least" else "v", markersize=4, linestyle="",
                markeredgewidth=0.7, markeredgecolor=style["color"],
                markerfacecolor=style["color"] if test.holds else "white", clip_on=False, zorder=3,
            )  # fmt: skip
    if ratio > 1:
        _plain_log(panel, "x")
    if table.empty:
        panel.set(xticks=[])
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", size=6)


# --- The claim about mixing ---


def mixing(
    claim: str, claims: Path, tables: Mapping[str, Path], titles: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """Occupancy error against seconds, a panel for each experiment and a line for each sampler.

    The occupancy error is the total variation between the shares of samples in each mode, and in none, and the energy
    model's own: 0 is perfect.
    Lines are means over seeds in a band from the least to the greatest; the generator, which has no steps to go, is
    drawn as points.

      claims  as in `measures`
      tables  csv each: experiment, seed, sampler, step, seconds, metric, value; rows of 0 seconds have no place on
              the log axis and are left out
      titles  what stands above the panel

    Raises UserError for other tables, or if none holds an occupancy_error.
    """
    read = read_claim(claim, claims)
    table = read_tables(tables, titles, ["sampler", "step", "seconds", "metric", "value"])
    table = table[(table["metric"] == "occupancy_error") & (table["seconds"] > 0)]
    if table.empty:
        raise UserError(f"the claim {claim} is drawn from occupancy_error, which no table holds; measure it first")
    samplers = sorted(table["sampler"].unique(), key=lambda name: name != "generator")
    styles = {name: style_of(number) for number, name in enumerate(samplers)}
    columns = 2 if len(tables) in (2, 4) else min(3, len(tables))
    lines = -(-len(tables) // columns)
    left, between, above, tall, below = 0.42, 0.14, 0.16, 1.35, 0.24
    wide = (PAGE - left - between * (columns - 1) - 0.12) / columns
    shown = [*samplers, "asked of the generator"] if (read.tests["metric"] == "occupancy_error").any() else samplers
    key_lines = -(-len(shown) // 3)
    with look():
        headings = {experiment: wrapped(titles[experiment], wide - 0.05, 7) for experiment in tables}
        above += 0.11 * (max(map(len, headings.values())) - 1)
        note = (
            "Occupancy error: total variation between the shares of samples in each mode, and in none, and the energy "
            "model's own; 0 is perfect. Means over seeds; bands and bars: all seeds. Seconds of one process, without "
            "training."
        )
        if (read.tests["metric"] == "slowdown").any():
            note += " The other tests are of how much longer the chains take than the generator, to as small an error."
        key = 0.05 + 0.13 * key_lines
        figure, place = page_of(read.says, key + lines * (above + tall + below) + 0.12, note, bold=read.verdicts())
        seconds = table["seconds"].min() / 1.5, table["seconds"].max() * 1.5
        highest = min(1.0, table["value"].max() * 1.1) or 1.0
        for number, (experiment, heading) in enumerate(headings.items()):
            line, column = divmod(number, columns)
            down = key + line * (above + tall + below) + above
            panel = place(left + column * (wide + between), down, wide, tall)
            _draw_mixing(panel, table[table["experiment"] == experiment], styles)
            for test in read.of(experiment, "occupancy_error").itertuples():
                panel.axhline(test.threshold, color="#777777", linewidth=0.7, linestyle=(0, (1, 1.5)))
            panel.set(xlim=seconds, ylim=(-0.02 * highest, highest))
            _plain_log(panel, "x")
            panel.set_title("\n".join(heading), size=7)
            panel.tick_params(labelleft=column == 0)
            if column == 0:
                panel.set_ylabel("occupancy error", size=7)
            if number + columns >= len(tables):
                panel.set_xlabel("seconds", size=7)
        handles = [
            Line2D([], [], **(styles[name] if name != "generator" else _points(styles[name])), linewidth=1.2)
            for name in samplers
        ]
        handles += [Line2D([], [], color="#777777", linewidth=0.7, linestyle=(0, (1, 1.5)))] * (
            len(shown) - len(samplers)
        )
        corner = place(EDGE, 0, PAGE - 2 * EDGE, key)
        corner.set_axis_off()
        corner.legend(
            handles, shown, loc="upper left", ncols=3, fontsize=7, borderaxespad=0, borderpad=0, labelspacing=0.3,
            bbox_to_anchor=(0, 1),
        )  # fmt: skip
        save(figure, outputs)


def _points(style: dict[str, object]) -> dict[str, object]:
    return {"color": style["color"], "marker": "o", "markersize": 4, "linestyle": "", "markeredgewidth": 0}


def _draw_mixing(panel: Axes, table: pd.DataFrame, styles: Mapping[str, dict[str, object]]) -> None:
    """A panel of `mixing`: one experiment's occupancy errors."""
    for sampler, style in styles.items():
        steps = table[table["sampler"] == sampler].groupby("step")
        seconds, of_seeds = steps["seconds"].mean(), steps["value"]
        mean, least, greatest = of_seeds.mean(), of_seeds.min(), of_seeds.max()
        if sampler == "generator":
            # A mean of equal values may be rounded off them, and bars must not be negative.
            away = (mean - least).clip(lower=0), (greatest - mean).clip(lower=0)
            panel.errorbar(seconds, mean, away, elinewidth=0.7, zorder=3, **_points(style))
        else:
            panel.fill_between(seconds, least, greatest, color=style["color"], alpha=0.15, linewidth=0)
            panel.plot(seconds, mean, linewidth=1.2, **style)
