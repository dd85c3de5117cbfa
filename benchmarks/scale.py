"""How the pipeline behaves with many experiments: what a dry run and a run with nothing to do cost.

python benchmarks/scale.py [--experiments 1 10 1000]

In a temporary clone so many copies of one row join the toy branch. Each command is timed as a whole, start of Python
included: first where nothing has been made, then where everything has. A made result is a stand-in of a few bytes that
`snakemake --touch` takes for finished: what is timed looks at names, times, parameters and small checksums.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import yaml
from result import write

PROJECT = Path(__file__).parents[1]
COPIED = "toy_two_spiral_gan"
OUTPUTS = """
import sys
sys.path.insert(0, "workflow")
import engines
with engines.workflow() as flow:
    print(*(file for job in engines.jobs(flow) for file in job.output), sep="\\n")
"""


def seconds(command: str, folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """How long a command took, and what it said."""
    start = time.perf_counter()
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
    return time.perf_counter() - start, done.stdout + done.stderr


def with_copies(experiments: int, clone: Path) -> None:
    """Add so many experiments to the toy branch of a clone's params.yaml."""
    file = clone / "params.yaml"
    params = yaml.safe_load(file.read_text())
    names = [f"copy_{number:04}" for number in range(experiments)]
    params["experiments"] |= {name: params["experiments"][COPIED] for name in names}
    params["branches"]["toy"]["compared"] += names
    file.write_text(yaml.dump(params, sort_keys=False, Dumper=yaml.CSafeDumper))


def measure(experiments: int, work: Path) -> Iterator[dict[str, object]]:
    """A line for each command."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(work / "site"),
    }
    clone = work / "clone"
    subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
    with_copies(experiments, clone)

    def line(state: str, command: str, more: dict[str, str] = environment) -> dict[str, object]:
        took, said = seconds(command, clone, more)
        idle = "Nothing to be done" in said or "up to date" in said
        expected = idle == (state == "all made") or "engines.py" in command
        assert expected, f"{state}, and yet {command} says\n{said[-3000:]}"
        bridge = more.get("DDGM_BRIDGE", "on")
        cells = {"state": state, "command": command, "bridge": bridge, "seconds": round(took, 1)}
        return {"experiments": experiments, **cells}

    alone = environment | {"DDGM_BRIDGE": "off"}
    yield line("nothing made", "python workflow/engines.py generate")
    yield line("nothing made", "snakemake -n toy")
    yield line("nothing made", "snakemake -n toy", alone)
    listed = subprocess.run([sys.executable, "-c", OUTPUTS], cwd=clone, env=alone, capture_output=True, text=True)
    for output in listed.stdout.split():
        (clone / output).parent.mkdir(parents=True, exist_ok=True)
        (clone / output).write_text("stand-in\n")
    seconds("snakemake --touch --cores 1 toy", clone, alone)
    yield line("all made", "snakemake --cores 2 toy", alone)
    yield line("all made", "python workflow/engines.py sync")
    yield line("all made", "snakemake --cores 2 toy")
    yield line("all made", "snakemake -n toy")
    yield line("all made", "snakemake -n results/toy/figures/fig2.png")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--experiments", type=int, nargs="+", default=[1, 10, 1000])
    lines = []
    for experiments in arguments.parse_args().experiments:
        with tempfile.TemporaryDirectory() as work:
            for line in measure(experiments, Path(work)):
                print(*line.values(), sep="\t", flush=True)
                lines.append(line)
    write("scale", lines, {"dvc": version("dvc"), "snakemake": version("snakemake")})


if __name__ == "__main__":
    main()
