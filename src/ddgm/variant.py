"""A version of an experiment: its row with other values, and what the keys of one cannot be together.

Imports little: searches depend on it, and not on all that params.yaml is checked for.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

from ddgm.errors import UserError
from ddgm.row import neighbour_numbers, unshareable

PLANAR = ("four_spin", "two_spiral")
# Where negative samples may come from, by what the data are.
NEGATIVES_OF_POINTS = ("generator", "blurred", "langevin", "persistent", "quadrature")
NEGATIVES_OF_PICTURES = ("generator", "spliced", "noised")


def changed(row: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The row with other values at dotted keys. Raises UserError for a key that the row does not have."""
    row = copy.deepcopy(row)
    for key, value in values.items():
        *path, last = key.split(".")
        level: Any = row
        for part in path:
            level = level.get(part) if isinstance(level, dict) else None
        if not isinstance(level, dict) or last not in level:
            raise UserError(f"the search draws '{key}', which the experiment's row does not have")
        level[last] = value
    return row


def contradictions(key: str, row: dict[str, Any], dataset: dict[str, Any]) -> Iterator[str]:
    """What the keys of an experiment, which stands at `key`, and its data set cannot be together, a sentence each."""
    planar = dataset["kind"] in PLANAR
    if planar != (row["range"] is None):
        wanted = "null, since its data are points" if planar else "two numbers, since its data are pixels"
        yield f"{key}.range is {json.dumps(row['range'])}, and must be {wanted}"
    if planar and row["binarised"]:
        yield f"{key}.binarised is true, and its data are points: write false"
    if row["range"] and row["range"][0] >= row["range"][1]:
        yield f"{key}.range is {json.dumps(row['range'])}: write the smaller number, black, first"
    side = dataset.get("side")
    for net, kind in (("energy", row["energy"].get("features")), ("generator", row["generator"]["kind"])):
        halvings = len(row[net].get("hidden", []))
        if kind == "convolutional" and (side is None or side % 2**halvings):
            fits = f"a side that is a multiple of {2**halvings}" if side else "colour images"
            has = f"'{row['dataset']}' has {f'a side of {side}' if side else 'none'}"
            yield f"{key}.{net} is convolutional, which needs {fits}, and {has}: write dense, or name another data set"
    batch = row["schedule"]["batch"]
    weighted = row["negative"].get("importance")
    of_weights = ("negative.importance", weighted) if weighted else ("negative", row["negative"])
    for part, settings in (("entropy", row["entropy"]), of_weights):
        beside = settings.get("references", 0)
        if "neighbours" in settings and (furthest := max(neighbour_numbers(settings))) >= batch + beside:
            yield (
                f"{key}.{part}.neighbours is {furthest}, and must be below {batch + beside}, the samples it "
                f"is looked for among (schedule.batch and {part}.references)"
            )
        if beside % batch:
            yield (
                f"{key}.{part}.references is {beside}, and must be a multiple of {batch}: they are drawn a "
                f"batch at a time (schedule.batch)"
            )
    # G(z) fills no more dimensions than z has; points have two.
    most = min(row["generator"]["latent"], 2) if planar else row["generator"]["latent"]
    for part, settings in (("entropy", row["entropy"]), ("negative.importance", weighted or {})):
        if settings.get("dimensions", 0) > most:
            yield (
                f"{key}.{part}.dimensions is {settings['dimensions']}, and must be at most {most}, which G(z) has: "
                f"those of {'the points' if planar and most == 2 else 'z (generator.latent)'}"
            )
    if row["objective"]["penalty"] and not row["objective"]["penalty_end"]:
        yield f"{key}.objective has a penalty_end of 0, which no ratio leads to: write 0 for both, or for none"
    if row["negative"]["kind"] not in (fitting := NEGATIVES_OF_POINTS if planar else NEGATIVES_OF_PICTURES):
        others = f"for {'pictures' if planar else 'points'}: allowed are {', '.join(fitting)}"
        yield f"{key}.negative.kind is '{row['negative']['kind']}', which is {others}"
    if planar and row["flips"]:
        yield f"{key}.flips is true, and its data are points: write false"
    schedule, negative = row["schedule"], row["negative"]
    if schedule["kind"] == "simultaneous":
        here = f"{key}.schedule is simultaneous, which is one update of each net from the same samples:"
        if schedule["generator_steps"] != 1 or schedule["energy_steps"] != 1:
            yield f"{here} write 1 for generator_steps and energy_steps"
        if negative["kind"] != "generator" or not negative["reuse_latent"] or negative["importance"]:
            yield f"{here} write negative: {{kind: generator, reuse_latent: true, importance: null}}"
        if row["entropy"].get("references"):
            yield f"{here} write 0 for entropy.references"
        if row["objective"]["kind"] != "dual":
            yield f"{here} its two losses have to be one, write objective.kind dual or schedule.kind alternating"
    if negative["kind"] == "quadrature" and row["deterministic"] and row["device"] != "cpu":
        yield (
            f"{key}.deterministic is true and its negatives are drawn by quadrature, which PyTorch does not "
            f"repeat on a GPU: write device: cpu, or deterministic: false"
        )
    yield from unshareable(key, row, row["devices"])
