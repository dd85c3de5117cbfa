"""What it costs to record, push, pull and adopt outputs of gigabytes, on a folder as the remote.

python benchmarks/sharing.py [--gigabytes 0 1 5] [--repeats 3] [--folder a place with ten times the largest size free]

In a temporary clone a stand-in for `ddgm` writes one array of random bytes; then each command of a user is timed as a
whole, start of Python included: without a gigabyte that start is all it costs. All sizes take turns, `repeats` times,
each time in a clone of its own; medians. Files are in the page cache, as after a run; where they are not, add the time
to read them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from result import write

PROJECT = Path(__file__).parents[1]
ARRAY, STAGE = "data/prepared/four_spin/train.npy", "prepare-four_spin-train"
STAND_IN = f"""#!{sys.executable} -IS
import os
for end in (".csv", "_faults.csv", ".json", ".npy"):
    os.makedirs("data/prepared/four_spin", exist_ok=True)
    with open("data/prepared/four_spin/train" + end, "wb") as file:
        for _ in range(int(os.environ["MEGABYTES"]) if end == ".npy" else 1):
            file.write(os.urandom(1_000_000))
"""


def seconds(command: str, folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return time.perf_counter() - start


def measure(gigabytes: float, work: Path) -> Iterator[tuple[str, str, float]]:
    """What each command is for, the command, and its seconds, in the order in which two users come to them."""
    (work / "bin").mkdir()
    (work / "bin/ddgm").write_text(STAND_IN)
    (work / "bin/ddgm").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{work / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MEGABYTES": str(int(1000 * gigabytes)),
        "DVC_SITE_CACHE_DIR": str(work / "site"),
        **{f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    first, second = work / "first", work / "second"
    subprocess.run(["git", "clone", "-q", PROJECT, first], check=True)
    remote = f"dvc remote modify --local storage url {work / 'remote'}"
    seconds(f"{remote} && snakemake --cores 1 {ARRAY}", first, environment | {"DDGM_BRIDGE": "off"})

    def line(what: str, command: str, folder: Path) -> tuple[str, str, float]:
        return what, command, seconds(command, folder, environment)

    yield line("record: hash, copy into the cache", "python workflow/engines.py sync", first)
    yield line("nothing to record", "python workflow/engines.py sync", first)
    yield line("push", "dvc push", first)
    yield line("check by sizes", "python workflow/remote.py check", first)
    yield line("check by content", "python workflow/remote.py check --read", first)
    seconds("git add -A && git commit -qm results", first, environment)
    seconds(f"git clone -q {first} {second} && cd {second} && {remote}", work, environment)
    yield line("pull, verified", f"dvc pull {STAGE}", second)
    yield line("first dry run: adopt", f"snakemake -n {ARRAY}", second)
    yield line("second dry run", f"snakemake -n {ARRAY}", second)
    yield line("status", f"dvc status {STAGE}", second)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gigabytes", type=float, nargs="+", default=[0, 1, 5])
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    asked = arguments.parse_args()
    found: dict[tuple[str, str, float], list[float]] = {}
    for _ in range(asked.repeats):
        for gigabytes in asked.gigabytes:
            with tempfile.TemporaryDirectory(dir=asked.folder) as work:
                for what, command, took in measure(gigabytes, Path(work)):
                    print(gigabytes, what, f"{took:.1f}", sep="\t", flush=True)
                    found.setdefault((what, command, gigabytes), []).append(took)
    lines = [
        {
            "what": what, "command": command, "gigabytes": gigabytes, "seconds": round(statistics.median(times), 1),
            "fastest": round(min(times), 1), "slowest": round(max(times), 1),
        }
        for (what, command, gigabytes), times in found.items()
    ]  # fmt: skip
    write("sharing", lines, {"dvc": version("dvc"), "snakemake": version("snakemake"), "repeats": asked.repeats})


if __name__ == "__main__":
    main()
