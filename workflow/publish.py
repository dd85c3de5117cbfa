"""Keep a branch's finished results in docs/, and write their numbers into the tables of README.md and docs/.

python workflow/publish.py paper     copy figures, metrics and provenance from results/paper, then write the tables
python workflow/publish.py toy       the same for the toy branch
python workflow/publish.py tables    write the tables alone, as after a benchmark
python workflow/publish.py --check   exit with 1 and one sentence if a table is not what docs/results says

Run after a Snakemake run. Tables and provenance are copied as they are, so that each number can be traced to code and
data; pictures are saved with 256 colours, which keeps the repository small.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

from ddgm import parameters

DOCS = Path("docs")
# What the table shows of an experiment, as far as it was measured.
SHOWN = {
    "kl_data_model": "KL(D‖T), nats",
    "kl_data_generator": "KL(D‖G), nats",
    "kl_generator_model": "KL(G‖T), nats",
    "tv_data_generator": "TV(D, G)",
    "modes_covered": "share of modes that G covers",
    "inside_99": "share of samples in D's 99 % region",
    "wasserstein2": "2-Wasserstein distance of D and G",
    "wasserstein2_floor": "the same of D and D",
    "rank_correlation": "rank correlation of −E and log D",
    "auroc_inverted": "AUROC, data against inverted data",
    "auroc_shuffled": "AUROC, data against shuffled pixels",
    "auroc_samples": "AUROC, data against samples (½ is best)",
    "spread": "variance of samples / of data",
}


def publish(branch: str) -> None:
    """Copy what results/{branch} holds of figures, metrics and provenance into docs/."""
    results, kept = Path("results") / branch, DOCS / "results" / branch
    for folder in (kept, DOCS / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    for picture in sorted((results / "figures").glob("fig*.png")):
        small = Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(DOCS / "figures" / f"{branch}_{picture.name}", optimize=True)
    for table in sorted((results / "metrics").glob("*.csv")):
        shutil.copyfile(table, kept / table.name)
        provenance = results / "models" / table.stem / "provenance.json"
        shutil.copyfile(provenance, kept / f"{table.stem}.provenance.json")


def results() -> str:
    """The published metrics of the paper branch as a Markdown table: mean ± sd over seeds, time and device."""
    rows = parameters.load("params.yaml")["experiments"]
    lines = ["| experiment | seeds | measured | value | trained in |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        file = next(iter(sorted(DOCS.glob(f"results/paper/{name}.csv"))), None)
        if file is None:
            continue
        about = json.loads(file.with_name(f"{name}.provenance.json").read_text())
        values = pd.read_csv(file).groupby("metric")["value"].agg(["count", "mean", "std"])
        for number, metric in enumerate(metric for metric in SHOWN if metric in values.index):
            count, mean, sd = values.loc[metric]
            spread = f" ± {sd:.3f}" if count > 1 else ""
            time = f"{about['seconds'] / 60:.0f} min, {about['device']}, {about['threads']} thread(s)"
            if about.get("data_source", "").startswith(("subset", "drawn")):
                time += f", on {about['data_source']}"
            head = (f"{row['title']} (`{name}`)", f"{count:.0f}", time) if not number else ("", "", "")
            lines.append(f"| {head[0]} | {head[1]} | {SHOWN[metric]} | {mean:.3f}{spread} | {head[2]} |")
    return "\n".join(lines)


def speed() -> str:
    """The speed of the preparation as a Markdown table: medians, and the slowest and the fastest of all runs."""
    rates = pd.read_csv(DOCS / "results/benchmarks/preparation_speed.csv")
    head = "| images per second | 1 core | times torchvision's | 2 cores | times torchvision's |"
    lines = [head, "|---|---|---|---|---|"]
    for name, runs in rates.groupby("what", sort=False):
        cells = [
            f"{run.images_per_second:,} ({run.slowest:,} to {run.fastest:,}) | {run.times_torchvision:.2f}"
            for run in runs.itertuples()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", about_machine("preparation_speed")])


def memory() -> str:
    """The peak memory of the preparation as a Markdown table."""
    peaks = pd.read_csv(DOCS / "results/benchmarks/preparation_memory.csv")
    lines = ["| images | processes | peak memory, all together | images per second |", "|---|---|---|---|"]
    for run in peaks.itertuples():
        lines.append(f"| {run.images:,} | {run.cores} | {run.peak_megabytes} MB | {run.images_per_second:,} |")
    return "\n".join([*lines, "", about_machine("preparation_memory")])


def training() -> str:
    """The speed of training as a Markdown table: each competitor with the number of threads it is fastest with."""
    file = DOCS / "results/benchmarks/training_speed.csv"
    if not file.exists():
        return "Not measured yet: `make bench` does."
    rates = pd.read_csv(file)
    lines = ["| experiment | what | threads | steps × seeds per second | times plain | compilation |"]
    lines.append("|---|---|---|---|---|---|")
    fastest = rates.groupby(["experiment", "what"], sort=False)["seed_steps_per_second"].idxmax()
    for run in rates.loc[fastest].itertuples():
        speed = f"{run.seed_steps_per_second:,} ({run.slowest:,} to {run.fastest:,})"
        compilation = f"{run.compilation_seconds:.0f} s, once" if run.compilation_seconds else "none"
        lines.append(
            f"| `{run.experiment}` | {run.what} | {run.threads} | {speed} | {run.times_plain:.2f} | {compilation} |"
        )
    return "\n".join([*lines, "", about_machine("training_speed")])


def about_machine(benchmark: str) -> str:
    """On what a benchmark was run, in one line."""
    about = json.loads((DOCS / f"results/benchmarks/{benchmark}.json").read_text())
    libraries = {"pillow": "Pillow", "simplejpeg": "simplejpeg", "torchvision": "torchvision", "torch": "PyTorch"}
    versions = [f"{name} {about[key]}" for key, name in libraries.items() if key in about]
    return (
        f"{about['processor']}, {about['cores']} cores; code {about['code']}; {', '.join(versions)}, "
        f"Python {about['python']}."
    )


TABLES = [
    (Path("README.md"), results),
    (DOCS / "data.md", speed),
    (DOCS / "data.md", memory),
    (DOCS / "method.md", training),
]


def filled(text: str, table: Callable[[], str]) -> str:
    """The text of a page with one of its tables, between two marks with its name, written anew."""
    begin, end = f"<!-- {table.__name__}: written by workflow/publish.py -->", f"<!-- end of {table.__name__} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{table()}\n\n{end}{rest.split(end)[1]}"


def main(arguments: list[str]) -> None:
    if arguments not in (["paper"], ["toy"], ["tables"], ["--check"]):
        sys.exit("write 'python workflow/publish.py paper', 'toy', 'tables' or '--check'")
    if arguments[0] in ("paper", "toy"):
        publish(arguments[0])
    for page, table in TABLES:
        text = page.read_text()
        written = filled(text, table)
        if arguments != ["--check"]:
            page.write_text(written)
        elif written != text:
            sys.exit(
                f"{page}'s table of {table.__name__} is not what docs/results says: run 'python workflow/publish.py "
                "tables'"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
