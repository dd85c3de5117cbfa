"""Keep a branch's finished results in docs/, and write their numbers into the tables of README.md and docs/.

python workflow/publish.py paper     copy figures, metrics and provenance from results/paper, then write the tables
python workflow/publish.py toy       the same for the toy branch
python workflow/publish.py tables    write the tables alone, as after a benchmark
python workflow/publish.py --check   exit with 1 and one sentence if a table is not what docs/results says

Run after a Snakemake run. Tables and provenance are copied as they are, so that each number can be traced to code and
data; pictures are saved with 256 colours, which keeps the repository small. Figures that show photographs of the data
are never copied.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ddgm import parameters
from ddgm.figures.fig3_crossings import EXAMPLES
from ddgm.figures.registry import PHOTOGRAPHS

DOCS = Path("docs")
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
# Pairs of digits, and what the paper's Figure 3 shows between them.
LINES = {f"{a}_{b}": between for a, b, between in EXAMPLES}
IMAGES = {
    "fid": "FID, 50,000 samples",
    "kid": "KID",
    "inception_precision": "precision, Inception",
    "inception_recall": "recall, Inception",
    "swd_64": "sliced Wasserstein, 64 pixels",
    "swd_32": "32 pixels",
    "swd_16": "16 pixels",
    "spread": "variance of samples / of data",
    "sharpness": "sharpness of samples / of data",
    "memorised": "samples closer to a training image than 99 % of held-out ones are",
    "auroc_inverted": "AUROC, data against inverted data",
    "auroc_shuffled": "against shuffled pixels",
    "auroc_noise": "against noise",
    "auroc_other_domain": "against images of another kind",
    "auroc_samples": "against samples (½ is best)",
}


def publish(branch: str) -> None:
    """Copy what results/{branch} holds of figures, metrics and provenance into docs/."""
    results, kept = Path("results") / branch, DOCS / "results" / branch
    for folder in (kept, DOCS / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    pictures = [path for kind in ("fig*.png", "claim_*.png") for path in sorted((results / "figures").glob(kind))]
    for picture in pictures:
        if picture.name.startswith(PHOTOGRAPHS):
            continue
        small = Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(DOCS / "figures" / f"{branch}_{picture.name}", optimize=True)
    verdicts = results / "metrics" / "claims.csv"
    if verdicts.exists():
        shutil.copyfile(verdicts, kept / verdicts.name)
    for judge in sorted((results / "classifiers").glob("*/accuracy.csv")):
        (kept / "classifiers").mkdir(exist_ok=True)
        shutil.copyfile(judge, kept / "classifiers" / f"{judge.parent.name}.csv")
        shutil.copyfile(
            judge.with_name("provenance.json"), kept / "classifiers" / f"{judge.parent.name}.provenance.json"
        )
    for table in sorted((results / "metrics").glob("*.csv")):
        if table.name == "claims.csv":
            continue
        shutil.copyfile(table, kept / table.name)
        provenance = results / "models" / table.stem / "provenance.json"
        shutil.copyfile(provenance, kept / f"{table.stem}.provenance.json")
    for folder in ("traces", "mixing", "interpolations", "crossings", "likelihoods", "searches"):
        for table in sorted((results / folder).glob("*.csv")):
            (kept / folder).mkdir(exist_ok=True)
            shutil.copyfile(table, kept / folder / table.name)


def published() -> Iterator[tuple[str, dict[str, Any], pd.DataFrame, dict[str, Any]]]:
    """Name, row, metrics by seed and provenance of each published experiment of the paper branch."""
    for name, row in parameters.load("params.yaml")["experiments"].items():
        file = DOCS / "results/paper" / f"{name}.csv"
        if file.exists():
            values = pd.read_csv(file).pivot(index="seed", columns="metric", values="value")
            yield name, row, values, json.loads(file.with_name(f"{name}.provenance.json").read_text())


def measured(values: pd.Series) -> str:
    """Mean ± standard deviation over seeds; where some are infinite or could not be measured, how many."""
    infinite = int(np.isinf(values).sum())
    if infinite:
        return "∞" if infinite == len(values) else f"∞ in {infinite} of {len(values)}"
    there = values.dropna()
    if len(there) < len(values):
        return f"{measured(there)} in {len(there)} of {len(values)}" if len(there) else "none"
    digits = 3 if abs(values.mean()) < 10 else 1
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def planar() -> str:
    """The published two-dimensional experiments as a Markdown table, a line each."""
    lines = [f"| experiment | seeds | {' | '.join(PLANAR.values())} | trained in |", "|---" * (len(PLANAR) + 3) + "|"]
    for name, row, values, about in published():
        if row["range"] is None:
            cells = [measured(values[metric]) if metric in values else "" for metric in PLANAR]
            time = f"{about['seconds'] / 60:.0f} min"
            lines.append(f"| {row['title']} (`{name}`) | {len(values)} | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def digits() -> str:
    """The published digit experiments as a Markdown table, a line each; first what training digits score."""
    lines = [f"| experiment | seeds | {' | '.join(DIGITS.values())} | trained in |", "|---" * (len(DIGITS) + 3) + "|"]
    floor = ""
    for name, row, values, about in published():
        if "frechet" not in values:
            continue
        if not floor:
            cells = [measured(values[f"{m}_floor"][:1]) if f"{m}_floor" in values else "" for m in DIGITS]
            floor = f"| digits of the training set | | {' | '.join(cells)} | |"
            lines.append(floor)
        cells = [measured(values[metric]) if metric in values else "" for metric in DIGITS]
        time = f"{about['seconds'] / 60:.0f} min"
        lines.append(f"| {row['title']} (`{name}`) | {len(values)} | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def judges() -> str:
    """How well the published classifiers tell the digits that they were not trained on, as a Markdown table."""
    rows = ["| data set | seeds | test digits told right | the worst seed | trained in |", "|---|---|---|---|---|"]
    for file in sorted((DOCS / "results/paper/classifiers").glob("*.csv")):
        values = pd.read_csv(file)["value"]
        about = json.loads(file.with_name(f"{file.stem}.provenance.json").read_text())
        told = f"{100 * values.mean():.2f} ± {100 * values.std():.2f} %"
        rows.append(
            f"| {file.stem} | {len(values)} | {told} | {100 * values.min():.2f} % | {about['seconds'] / 60:.0f} min |"
        )
    return "\n".join(rows)


def likelihoods() -> str:
    """The published annealed likelihoods as a Markdown table, nats."""
    head = ["log Z, annealed", "annealed back", "by quadrature", "log p of held-out data", "of the uniform density"]
    keys = ["log_partition", "log_partition_from_samples", "log_partition_quadrature"]
    keys += ["log_likelihood", "log_likelihood_uniform"]
    rows = [f"| experiment | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for file in sorted((DOCS / "results/paper/likelihoods").glob("*.csv")):
        values = pd.read_csv(file).pivot(index="seed", columns="metric", values="value")
        cells = [measured(values[key]) if key in values else "" for key in keys]
        rows.append(f"| `{file.stem}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def lines() -> str:
    """What lies between the paper's three pairs of digits, in the published experiments."""
    head = [f"{a} to {b} by way of {by}" for (a, b), by in ((pair.split("_"), by) for pair, by in LINES.items())]
    rows = [f"| experiment | {' | '.join(head)} | most often between, in each |", "|---" * (len(LINES) + 2) + "|"]
    for name, row, values, _ in published():
        if "frechet" not in values:
            continue
        shares = [measured(values[key]) if (key := f"crossed_{p}_by_{by}") in values else "" for p, by in LINES.items()]
        most = [values.get(f"between_{pair}") for pair in LINES]
        often = [", ".join(f"{digit:.0f}" for digit in seeds.dropna()) if seeds is not None else "" for seeds in most]
        rows.append(f"| {row['title']} (`{name}`) | {' | '.join(shares)} | {'; '.join(often)} |")
    return "\n".join(rows)


def images() -> str:
    """The published image experiments as a Markdown table, a line a metric."""
    head = "| experiment | seeds | measured | value | data against data | trained in |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, row, values, about in published():
        if row["range"] is None or "frechet" in values:
            continue
        for number, metric in enumerate(metric for metric in IMAGES if metric in values):
            time = f"{about['seconds'] / 60:.0f} min, {about['device']}, {about['threads']} thread(s)"
            if about.get("data_source", "").startswith(("subset", "drawn")):
                time += f", on {about['data_source']}"
            first = (f"{row['title']} (`{name}`)", f"{len(values)}", time) if not number else ("", "", "")
            floor = f"{values[f'{metric}_floor'].mean():.3g}" if f"{metric}_floor" in values else ""
            value = measured(values[metric])
            lines.append(f"| {first[0]} | {first[1]} | {IMAGES[metric]} | {value} | {floor} | {first[2]} |")
    return "\n".join(lines) if len(lines) > 2 else "Figure 4's experiments have not been trained yet."


def claims() -> str:
    """The published verdicts as a Markdown table: a line a claim, and each test that failed."""
    lines = ["| claim | verdict | tests that hold | what does not |", "|---|---|---|---|"]
    file = DOCS / "results/paper/claims.csv"
    tests = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["claim"])
    for _, rows in tests.groupby("claim", sort=False):
        failed = [
            f"`{test.experiment}`: {test.metric} is {test.mean:.3g}, and not {test.comparison} {test.threshold:.3g}"
            for test in rows[~rows["holds"]].itertuples()
        ]
        first = rows.iloc[0]
        lines.append(
            f"| {first['says']} | {first['verdict']} | {rows['holds'].sum()} of {len(rows)} | {'; '.join(failed)} |"
        )
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
    (Path("README.md"), planar),
    (Path("README.md"), digits),
    (DOCS / "method.md", judges),
    (DOCS / "method.md", lines),
    (DOCS / "method.md", likelihoods),
    (Path("README.md"), images),
    (Path("README.md"), claims),
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
