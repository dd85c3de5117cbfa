"""An experiment's row of params.yaml, as its training sees it. Imports nothing: all trainings depend on it."""

from collections.abc import Iterator
from typing import Any


def untitled(row: dict[str, Any]) -> dict[str, Any]:
    """What of an experiment's row its training depends on: all but the title, which pages and figures show."""
    return {key: value for key, value in row.items() if key != "title"}


def neighbour_numbers(part: dict[str, Any]) -> list[int]:
    """Which neighbours' distances tell a density: `neighbours` is one number, or several that are averaged over."""
    numbers = part["neighbours"]
    return [numbers] if isinstance(numbers, int) else numbers


def unshareable(key: str, row: dict[str, Any], count: int) -> Iterator[str]:
    """Why `count` processes cannot train an experiment, which stands at `key`, together, a sentence each."""
    if count == 1:
        return
    if (batch := row["schedule"]["batch"]) % count:
        yield f"{key}.schedule.batch is {batch}, and {count} processes cannot have equal parts of it: write a multiple"
    if row["negative"]["kind"] != "generator" or row["negative"]["importance"]:
        yield (
            f"{key}.negative is not shared by processes, and is for one, not {count}: write devices: 1, or start "
            f"it as one"
        )
    for net in ("energy", "generator"):
        if noise := row[net].get("noise", 0):
            yield (
                f"{key}.{net}.noise is {noise}, and {count} processes would draw other noise than one does: write 0.0, "
                f"or devices: 1"
            )
