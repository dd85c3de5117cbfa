"""One page with all that a branch has found: results/{branch}/report.html, whole in itself, for any browser, offline.

python workflow/report.py toy       the page of what lies in results/toy; the rule `report` calls it too

Verdicts, figures with their captions and commands, numbers with error bars, data sheets, provenance and run times, and
what was not reproduced. Whatever is not there yet is named, with the command that makes it; what lies there and no list
of the branch asks for has a section of its own. Photographs are left out.
"""

import base64
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import yaml

from ddgm import parameters, record
from ddgm.errors import UserError
from ddgm.figures.metric import SIGNS
from ddgm.figures.registry import FIGURES
from ddgm.provenance import code_version
from ddgm.reading import read_record, read_table
from ddgm.whole_file import WRITTEN, whole_file
from pictures import reduced, shows_photographs
from selection import Selection
from tables import Measured, Table, claims, digits, images, measured_experiments, over_seeds, planar, took

HERE = Path(__file__).parent / "report"
PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
# A number, perhaps with its error, stands at the right of its column.
PAGES.tests["number_text"] = re.compile(r"[-−]?[\d.,]+(e[-+]\d+)?( ± [\d.]+)?|-?inf|nan|∞").fullmatch
# What a kind of evidence is called, and how its table is made.
EVIDENCE = {
    "planar": ("In two dimensions", planar),
    "digits": ("Digits", digits),
    "images": ("Images", images),
}
SHORT = 12  # characters of a checksum that the page shows


def caption(stem: str, branch: str) -> str:
    """What workflow/report says of a figure; its longest name wins: fig3_steps_mnist is of fig3_steps, not of fig3."""
    names = [path.stem for path in HERE.glob("*.rst") if stem == path.stem or stem.startswith(f"{path.stem}_")]
    if not names:
        return ""
    name = max(names, key=len)
    rest = stem.removeprefix(name).removeprefix("_")
    wildcards = {"branch": branch, "experiment": rest, "dataset": rest, "claim": rest}
    return PAGES.get_template(f"{name}.rst").render(snakemake=SimpleNamespace(wildcards=wildcards))


class Page:
    """What the page of a branch says, section by section."""

    def __init__(self, config: dict[str, Any], branch: str) -> None:
        self.config, self.branch, self.select = config, branch, Selection(config)
        self.results = Path("results") / branch
        # A picture that is drawn as PDF too counts once.
        self.expected = [Path(file) for file in self.select.everything(branch) if not file.endswith(".pdf")]
        self.listed = self.select.names(branch)
        self.unlisted = [name for name in config["experiments"] if name not in self.listed]

    def experiments(self, names: list[str]) -> list[Measured]:
        """Those of them that have been trained and measured."""
        rows = {name: self.config["experiments"][name] for name in names}
        table, provenance = f"{self.results}/metrics/{{name}}.csv", f"{self.results}/models/{{name}}/provenance.json"
        return list(measured_experiments(rows, table, provenance))

    def command(self, file: Path | str) -> str:
        """What draws a figure again, whether or not it is there."""
        return f"snakemake --cores 2 --force {file}"

    def shown(self, stem: str) -> list[str]:
        """The experiments that a figure shows, and that have been trained."""
        return [name for name in self.wanted(stem) if (self.results / f"models/{name}/provenance.json").exists()]

    def wanted(self, stem: str) -> list[str]:
        """The experiments that a figure is to show."""
        if stem.startswith("claim_"):
            claim = self.config["branches"][self.branch]["claims"][stem.removeprefix("claim_")]
            return list(dict.fromkeys(parameters.tested(claim)))
        for name, figure in FIGURES.items():
            if figure.each and stem.removeprefix(f"{name}_") in self.config["experiments"]:
                return [stem.removeprefix(f"{name}_")]
            if stem == name:
                return self.select.names(self.branch, figure.shows) if figure.shows else []
        return []

    def figure(self, path: Path) -> dict[str, Any]:
        """What the page says of a figure, and the picture where it is there and may be shown."""
        there, hidden = path.exists(), shows_photographs(self.config, path.stem)
        return {
            "name": path.stem,
            "path": path,
            "picture": base64.b64encode(reduced(path)).decode() if there and not hidden else None,
            "hidden": there and hidden,
            "caption": caption(path.stem, self.branch),
            "command": self.command(path),
            "shows": self.shown(path.stem),
        }

    def figures(self, *beginnings: str) -> Iterator[dict[str, Any]]:
        """The figures whose names begin so, in the order of the paper."""
        for path in self.expected:
            if path.suffix == ".png" and path.stem.startswith(beginnings):
                yield self.figure(path)

    def sheet(self, dataset: str) -> Iterator[dict[str, Any]]:
        """The figure of a data set's examples."""
        for path in self.expected:
            if path.name == f"sheet_{dataset}.png":
                yield self.figure(path)

    def unlisted_figures(self) -> list[dict[str, Any]]:
        """The figures that lie here and no list of the branch asks for: experiment by experiment, then data sets'."""
        each = [name for name, figure in FIGURES.items() if figure.each]
        stems = [f"{name}_{experiment}" for experiment in self.config["experiments"] for name in each]
        stems += [f"sheet_{dataset}" for dataset in self.config["datasets"]]
        paths = [self.results / f"figures/{stem}.png" for stem in stems]
        return [self.figure(path) for path in paths if path.exists() and path not in self.expected]

    def claims(self) -> Table | None:
        file = self.results / "metrics/claims.csv"
        if not file.exists():
            return None
        tests = read_table(file, ["claim"])
        if "recipe" not in tests:
            raise UserError(f"{file} was made by an older version: make it again with 'snakemake {file}'")
        return claims(tests)

    def measured(self, names: list[str]) -> Iterator[tuple[str, Table]]:
        """A table of these experiments for each kind of evidence."""
        found = self.experiments(names)
        for kind, (says, table) in EVIDENCE.items():
            if of_kind := [experiment for experiment in found if experiment.kind == kind]:
                yield says, table(of_kind)

    def every_number(self) -> Table | None:
        """Every metric of every experiment: mean and standard deviation over seeds."""
        file = self.results / "metrics.csv"
        if not file.exists():
            return None
        columns = ["experiment", "metric", "seeds", "mean", "sd"]
        rows = read_table(file, columns, as_text=True)[columns]
        return Table(list(rows.columns), rows.to_numpy().tolist())

    def tables(self, folder: str) -> Iterator[tuple[str, Table]]:
        """The tables of a folder as they are."""
        for file in sorted((self.results / folder).glob("*.csv")):
            rows = read_table(file, [], may_be_empty=True, as_text=True)
            yield file.stem, Table(list(rows.columns), rows.to_numpy().tolist())

    def judges(self) -> Table | None:
        """How many test digits the classifiers tell right that judge samples: the first seed's judges."""
        rows = []
        for file in sorted(self.results.glob("classifiers/*/accuracy.csv")):
            accuracy = read_table(file, ["seed", "value"])["value"]
            rows.append([f"`{file.parent.name}`", f"{len(accuracy)}", over_seeds(accuracy), f"{accuracy.iloc[0]:.4f}"])
        return Table(["classifier of", "seeds", "accuracy", "of the one that judges"], rows) if rows else None

    def data(self) -> Iterator[tuple[str, str, Table | None]]:
        """What each data set holds: a row a measure, a column a split."""
        for name in parameters.datasets(self.config, self.branch):
            file = self.results / f"data/{name}.csv"
            if not file.exists():
                yield name, "", None
                continue
            rows = read_table(file, ["measure", "split", "value", "source"], as_text=True)
            wide = rows.pivot(index="measure", columns="split", values="value").fillna("")
            wide = wide.loc[rows["measure"].unique(), rows["split"].unique()]
            wide.insert(0, "", wide.index)
            yield name, ", ".join(rows["source"].unique()), Table(list(wide.columns), wide.to_numpy().tolist())

    def trained(self) -> Iterator[dict[str, Any]]:
        """Where each trained net comes from: code, seeds, device, data, time, every parameter."""
        for kind, row_file in (("models", "experiment.json"), ("classifiers", "classifier.json")):
            for file in sorted((self.results / kind).glob("*/provenance.json")):
                chosen = file.with_name(row_file)
                if not chosen.exists():
                    continue
                about, settings = read_record(file), read_record(chosen)
                row = settings.get("row", settings)
                yield {
                    "name": f"{file.parent.name}" if kind == "models" else f"classifier of {file.parent.name}",
                    "code": about["versions"]["ddgm"],
                    "earlier_code": ", ".join(about.get("earlier_code", [])),
                    "libraries": ", ".join(f"{k} {v}" for k, v in about["versions"].items() if k != "ddgm"),
                    "seeds": ", ".join(str(seed) for seed in row["seeds"]),
                    "device": about["device"],
                    "processes": f"{about.get('processes', 1)}, of {about['threads']} thread(s)",
                    "deterministic": {True: "yes", False: "no"}.get(about.get("deterministic"), "not recorded"),
                    "data": f"{row.get('dataset', file.parent.name)}: {about['data_source']}",
                    "checksum": about["data_sha256"],
                    "held": about.get("data_held", "not recorded"),
                    "time": took(about["seconds"]),
                    "parameters": yaml.safe_dump(row, sort_keys=False, default_flow_style=None, width=100),
                }

    def jobs(self) -> Table | None:
        """When, how long, with what code and on what each job of the branch ran whose record is here."""
        records = [about for file, about in record.read(self.results.parent) if self.results in file.parents]
        rows = [
            [f"`{job['command']}`", job["finished"], f"{job['seconds']:.1f}", job["versions"]["ddgm"], job["device"]]
            for job in sorted(records, key=lambda job: job["finished"])
        ]
        return Table(["job", "finished", "seconds", "code", "device"], rows) if rows else None

    def missing(self) -> list[Path]:
        """What the branch wants and has not: a result each."""
        return [path for path in self.expected if not path.exists()]

    def render(self) -> str:
        return PAGES.get_template("page.html.jinja").render(
            page=self, short=SHORT, code=code_version(), title=self.config["branches"][self.branch]["title"],
            not_reproduced=self.config["branches"][self.branch]["not_reproduced"],
            verdict_of={sign: words.split()[0] for words, sign in SIGNS.items()},
        )  # fmt: skip


def main(arguments: list[str]) -> None:
    config = parameters.load("params.yaml")
    if len(arguments) != 1 or arguments[0] not in config["branches"]:
        sys.exit(f"write 'python workflow/report.py' and one branch: {' or '.join(config['branches'])}")
    started = time.monotonic()
    WRITTEN.clear()
    page = Page(config, arguments[0])
    if not page.results.is_dir():
        sys.exit(f"there is nothing in {page.results} to report: run 'snakemake {page.results}/figures/fig2.png' first")
    rendered = page.render()
    with whole_file(page.results / "report.html") as path:
        path.write_text(rendered)
    record.write(["python", "workflow/report.py", *arguments], WRITTEN, page.results.parent, time.monotonic() - started)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"ddgm: {error}")
