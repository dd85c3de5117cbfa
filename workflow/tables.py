"""The tables that a reader sees, from the results of a branch: in README.md and docs/, and in the report.

A table is its head and its rows, all text; `markdown` and the report's page write them out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ddgm.figures.metric import SIGNS
from ddgm.reading import read_record, read_table

# What the tables show of an experiment, a column or a row each.
PLANAR = {
    "kl_data_model": "KL(D‖T)",
    "kl_data_generator": "KL(D‖G)",
    "kl_generator_model": "KL(G‖T)",
    "tv_data_generator": "TV(D, G)",
    "modes_covered": "modes",
    "inside_99": "in D's 99 %",
    "rank_correlation_near": "ranks",
}
DIGITS = {
    "classes_found": "digits drawn",
    "kl_to_uniform": "KL to uniform",
    "confidence": "confidence",
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "memorised": "memorised",
    "auroc_letters": "AUROC, letters",
    "auroc_samples": "AUROC, samples",
    "path_confidence_z": "confidence on lines",
}
DIGITS_FURTHER = {
    "kernel_distance": "kernel distance",
    "density": "density",
    "coverage": "coverage",
    "sharpness": "sharpness",
    "auroc_inverted": "AUROC, inverted",
    "auroc_shuffled": "AUROC, shuffled",
    "auroc_noise": "AUROC, noise",
    "path_confidence_pixels": "confidence, blended",
    "path_pixel_step_longest_z": "longest step: pixels, in z",
    "path_pixel_step_longest_pixels": "pixels, blended",
    "path_feature_step_longest_z": "features, in z",
    "path_feature_step_longest_pixels": "features, blended",
}
IMAGES = {
    "fid": "FID",
    "kid": "KID",
    "inception_precision": "precision, Inception",
    "inception_recall": "recall, Inception",
    "swd_64": "sliced Wasserstein: 64 pixels",
    "swd_32": "32",
    "swd_16": "16",
    "swd_colours": "colours",
    "spread": "variance",
    "sharpness": "sharpness",
    "memorised": "memorised",
    "auroc_inverted": "AUROC: inverted",
    "auroc_shuffled": "shuffled",
    "auroc_noise": "noise",
    "auroc_other_domain": "other images",
    "auroc_samples": "samples",
}


class Table(NamedTuple):
    """A head and rows of as many cells."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        lines = [self.head, *self.rows]
        marks = "|---" * len(self.head) + "|"
        written = [f"| {' | '.join(cells)} |" for cells in lines]
        return "\n".join([written[0], marks, *written[1:]])


def took(seconds: float) -> str:
    """A time in words, in the unit that leaves it at least one."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


class Measured(NamedTuple):
    """An experiment that has been trained and measured."""

    name: str
    row: dict[str, Any]  # of params.yaml
    values: pd.DataFrame  # a row a seed, a column a metric
    about: dict[str, Any]  # its provenance

    @property
    def kind(self) -> str:
        """By what evidence it was measured: planar, digits or images."""
        if self.row["range"] is None:
            return "planar"
        return "digits" if "frechet" in self.values else "images"

    @property
    def label(self) -> str:
        return f"{self.row['title']} (`{self.name}`)"

    @property
    def time(self) -> str:
        return took(self.about["seconds"])


def measured_experiments(rows: dict[str, dict[str, Any]], table: str, provenance: str) -> Iterator[Measured]:
    """Of these rows of params.yaml those with metrics and provenance; both paths are patterns with {name}."""
    for name, row in rows.items():
        file, about = Path(table.format(name=name)), Path(provenance.format(name=name))
        if file.exists() and about.exists():
            values = read_table(file, ["seed", "metric", "value"]).pivot(index="seed", columns="metric", values="value")
            yield Measured(name, row, values, read_record(about))


def over_seeds(values: pd.Series) -> str:
    """Mean ± standard deviation over seeds; where some are infinite or could not be measured, how many."""
    infinite = int(np.isinf(values).sum())
    if infinite:
        return "∞" if infinite == len(values) else f"∞ in {infinite} of {len(values)}"
    there = values.dropna()
    if len(there) < len(values):
        return f"{over_seeds(there)} in {len(there)} of {len(values)}" if len(there) else "none"
    digits = 3 if abs(values.mean()) < 10 else 1
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def cells(values: pd.DataFrame, metrics: Iterable[str]) -> list[str]:
    """A cell for each metric, empty where it was not measured."""
    return [over_seeds(values[metric]) if metric in values else "" for metric in metrics]


def planar(experiments: Iterable[Measured]) -> Table:
    """The two-dimensional experiments, a row each."""
    rows = [[a.label, f"{len(a.values)}", *cells(a.values, PLANAR), a.time] for a in experiments]
    return Table(["experiment", "seeds", *PLANAR.values(), "trained in"], rows)


def digits(experiments: Iterable[Measured], metrics: dict[str, str] = DIGITS) -> Table:
    """The digit experiments, a row each; first what training digits score."""
    rows: list[list[str]] = []
    for a in experiments:
        if not rows:
            floor = [f"{metric}_floor" for metric in metrics]
            rows.append(["digits of the training set", "", *cells(a.values[:1], floor), ""])
        rows.append([a.label, f"{len(a.values)}", *cells(a.values, metrics), a.time])
    return Table(["experiment", "seeds", *metrics.values(), "trained in"], rows)


def images(experiments: Iterable[Measured]) -> Table:
    """The image experiments, a row each; first of each data set what some of it scores against the rest."""
    measured = list(experiments)
    metrics = {metric: label for metric, label in IMAGES.items() if any(metric in a.values for a in measured)}
    rows: list[list[str]] = []
    before = None
    for a in measured:
        if (dataset := a.row["dataset"]) != before:
            floor = [f"{metric}_floor" for metric in metrics]
            source = a.about.get("data_source", dataset)
            rows.append([f"`{dataset}` ({source}), some of it against the rest", "", *cells(a.values[:1], floor), ""])
            before = dataset
        time = f"{a.time}, {a.about['device']}, {a.about['threads']} thread(s)"
        rows.append([a.label, f"{len(a.values)}", *cells(a.values, metrics), time])
    return Table(["experiment", "seeds", *metrics.values(), "trained in"], rows)


def close(test: Any) -> bool:
    """Whether the mean is nearer to the threshold than one standard deviation over the seeds, where it decides."""
    return test.wanted == "the mean" and abs(test.mean - test.threshold) < test.sd


def asked(test: Any) -> str:
    """What a test of a claim, a row of claims.csv, asks for, and whether that holds."""
    of = "" if test.wanted == "the mean" else f" in {test.wanted}"
    return f"{test.metric}{'' if test.holds else ' not'} {test.comparison} {test.threshold:.3g}{of}"


def found(test: Any) -> str:
    """What was measured for it: of which experiment, and whether one standard deviation could turn the answer."""
    if np.isnan(test.mean):
        return f"`{test.experiment}` not measured in every seed"
    if test.wanted != "the mean":
        return f"`{test.experiment}` {test.mean:.3g} on average"
    spread = f" ± {test.sd:.2g}" if test.sd > 0 else ""
    return f"`{test.experiment}` {test.mean:.3g}{spread}{' (within one sd)' if close(test) else ''}"


def remarks(tests: pd.DataFrame) -> str:
    """Each test that failed or that one standard deviation could turn: once what is asked, then who did not have it."""
    groups: dict[str, list[str]] = {}
    for test in tests.itertuples():
        if not test.holds or close(test):
            groups.setdefault(asked(test), []).append(found(test))
    return "; ".join(f"{what}: {', '.join(who)}" for what, who in groups.items())


def sign(tests: pd.DataFrame) -> str:
    """The verdict on one claim by one recipe, whose tests are given, in short."""
    return f"{SIGNS[tests['verdict'].iloc[0]]} {tests['holds'].sum()} of {len(tests)}"


def claims(tests: pd.DataFrame) -> Table:
    """The verdicts, a row a claim and a column a recipe, and each test that failed or that one sd could turn."""
    recipes = list(tests["recipe"].unique())
    rows = []
    for _, of_claim in tests.groupby("claim", sort=False):
        by_recipe = {recipe: sign(part) for recipe, part in of_claim.groupby("recipe")}
        cells = [by_recipe.get(recipe, "") for recipe in recipes]
        rows.append([of_claim["says"].iloc[0], *cells, remarks(of_claim)])
    return Table(["claim", *recipes, "what does not hold, or only just"], rows)
