"""What every benchmark leaves in docs/results/benchmarks/: a table, and beside it the machine and the versions."""

import csv
import json
import os
import platform
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "benchmarks"


def write(name: str, lines: list[dict[str, object]], more: dict[str, object]) -> None:
    """The lines as NAME.csv, and NAME.json: processor, cores, code and `more`, as the versions of what was compared."""
    import torch

    from ddgm.provenance import code_version, device_name

    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    about = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "code": code_version(),
        "processor": device_name(torch.device("cpu")),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(about | more, indent=2) + "\n")
