"""Keep a branch's finished results in docs/, and write their numbers into the README's table.

python workflow/publish.py paper     copy figures, metrics and provenance from results/paper, then write the table
python workflow/publish.py --check   exit with 1 and one sentence if the README's table is not what docs/ says

Run after a Snakemake run. Tables and provenance are copied as they are, so that each number can be traced to code and
data; pictures are saved with 256 colours, which keeps the repository small.
"""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
from PIL import Image

from ddgm import parameters

DOCS, README = Path("docs"), Path("README.md")
BEGIN, END = "<!-- results: written by workflow/publish.py -->", "<!-- end of results -->"
# What the table shows of an experiment, as far as it was measured.
SHOWN = {
    "kl_data_model": "KL(D‖T), nats",
    "kl_data_generator": "KL(D‖G), nats",
    "kl_generator_model": "KL(G‖T), nats",
    "tv_data_generator": "TV(D, G)",
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


def table() -> str:
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
            head = (f"{row['title']} (`{name}`)", f"{count:.0f}", time) if not number else ("", "", "")
            lines.append(f"| {head[0]} | {head[1]} | {SHOWN[metric]} | {mean:.3f}{spread} | {head[2]} |")
    return "\n".join(lines)


def filled() -> str:
    """The README with its table written anew."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if filled() != README.read_text():
            sys.exit(
                "README.md's table of results is not what docs/results says: run 'python workflow/publish.py paper'"
            )
    elif sys.argv[1:] in (["paper"], ["toy"]):
        publish(sys.argv[1])
        README.write_text(filled())
    else:
        sys.exit("write 'python workflow/publish.py paper', 'toy' or '--check'")
