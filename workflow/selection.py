"""What the rules ask of params.yaml and of the package: parameters, modules and results, by wildcards.

A function that a rule calls at once returns the function of wildcards that Snakemake calls later.
"""

import ast
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddgm import parameters
from ddgm.datasets import registry
from ddgm.errors import UserError
from ddgm.figures.registry import FIGURES, FILES, Figure, showing
from ddgm.row import untitled

SOURCE = Path("src")


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The files of a ddgm module and of every ddgm module it imports, at whatever depth."""
    file = SOURCE / Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    files = {file.as_posix()}
    source = file.read_text()
    # A table or a style sheet that lies beside a module and is named in it belongs to it.
    beside = [path for path in file.parent.iterdir() if path.is_file() and path.suffix != ".py"]
    files |= {path.as_posix() for path in beside if f'"{path.name}"' in source}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for name in names:
            path = SOURCE / Path(*name.split("."))
            if name.startswith("ddgm.") and (path.with_suffix(".py").exists()):
                files |= imports(name)
    return frozenset(files)


def modules(*names: str) -> list[str]:
    """The source files that these modules run: what a rule must be repeated for when it changes."""
    return sorted(set().union(*(imports(name) for name in names)))


@contextmanager
def one_sentence() -> Iterator[None]:
    """End Snakemake with the sentence of a UserError: of a WorkflowError it would print the lines of this file too."""
    try:
        yield
    except UserError as error:
        sys.exit(f"ddgm: {error}")


def require_yaml(file: str) -> None:
    """Say where a file is no YAML before Snakemake reads it, which does not."""
    with one_sentence():
        parameters.read(file)


class Selection:
    """params.yaml, checked, and what follows from it for a job."""

    def __init__(self, config: dict[str, Any]) -> None:
        with one_sentence():
            parameters.check(config)
        self.config = config

    def pick(self, *keys: str) -> Callable[[Any], str]:
        """The values of dotted keys as one JSON text: Snakemake's trigger, DVC's `params:` and the job's input.

        A key may hold wildcards, and `{dataset}` is the experiment's when the rule has no such wildcard.
        """

        def chosen(wildcards: Any) -> str:
            known = dict(wildcards.items())
            if "experiment" in known:
                known.setdefault("dataset", self.experiment(known["experiment"])["dataset"])
            filled = [key.format(**known) for key in keys]
            return json.dumps({key: self.value(key) for key in filled}, separators=(",", ":"))

        return chosen

    def training_keys(self, wildcards: Any) -> list[str]:
        """The dotted keys of an experiment's row that its training depends on."""
        name = wildcards.experiment
        return [f"experiments.{name}.{key}" for key in untitled(self.experiment(name))]

    def pick_training(self, wildcards: Any) -> str:
        """As `pick`, for a training: another title does not repeat it."""
        return self.pick(*self.training_keys(wildcards))(wildcards)

    def pick_dataset(self, *keys: str) -> Callable[[Any], str]:
        """As `pick`, with all of a data set's row but the folder its files are taken from, which changes no byte."""

        def chosen(wildcards: Any) -> str:
            name = self.dataset_name(wildcards)
            row = self.value(f"datasets.{name}")
            return self.pick(*keys, *(f"datasets.{name}.{key}" for key in row if key != "folder"))(wildcards)

        return chosen

    def pick_source(self, wildcards: Any) -> str:
        """What a raw file depends on: another crop, or another file that is a subset, must not download it again."""
        key = f"datasets.{wildcards.dataset}"
        declared = (self.value(key).get("subset") or {}).get("checksums", {})
        subset = [f"{key}.subset.checksums"] if wildcards.file in declared else []
        return self.pick(f"{key}.kind", f"{key}.draw", *subset)(wildcards)

    def dataset_name(self, wildcards: Any) -> str:
        """The wildcard `dataset`, or the data set of the wildcard `experiment`."""
        known = dict(wildcards.items())
        return known.get("dataset") or self.experiment(known["experiment"])["dataset"]

    def value(self, key: str) -> Any:
        with one_sentence():
            return parameters.select(self.config, key)

    def experiment(self, name: str) -> dict[str, Any]:
        return self.value(f"experiments.{name}")

    def raw_files(self, wildcards: Any) -> list[str]:
        """The downloads that one split of a data set is prepared from."""
        row = self.value(f"datasets.{wildcards.dataset}")
        if wildcards.split not in registry.splits(row):
            allowed = ", ".join(registry.splits(row))
            with one_sentence():
                raise UserError(f"{wildcards.dataset} has no split '{wildcards.split}': allowed are {allowed}")
        return [f"data/raw/{wildcards.dataset}/{file}" for file in registry.raw_files(row, wildcards.split)]

    def fetch_modules(self, wildcards: Any) -> list[str]:
        """What draws a stand-in. A download is known by its checksum: new code does not fetch it again."""
        row = self.value(f"datasets.{wildcards.dataset}")
        return modules("ddgm.datasets.drawn") if row.get("draw") else []

    def prepare_modules(self, wildcards: Any) -> list[str]:
        return modules(registry.module(self.value(f"datasets.{wildcards.dataset}")))

    def workers(self, cores: int | None) -> Callable[[Any], int]:
        """The processes that prepare a split: all cores where photographs are decoded, one for anything else.

        `cores` is None on a cluster, where a job asks for 8; in that job they are those that Slurm has given it, which
        may be fewer than it sees.
        """

        def chosen(wildcards: Any) -> int:
            row = self.value(f"datasets.{wildcards.dataset}")
            given = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
            return (given or cores or 8) if "side" in row and not row["draw"] else 1

        return chosen

    def splits(self, pattern: str) -> Callable[[Any], list[str]]:
        """A file for each split of a data set."""
        return lambda wildcards: [
            pattern.format(dataset=wildcards.dataset, split=split)
            for split in registry.splits(self.value(f"datasets.{wildcards.dataset}"))
        ]

    def train_modules(self, wildcards: Any) -> list[str]:
        objective = self.experiment(wildcards.experiment)["objective"]["kind"]
        return modules("ddgm.training", f"ddgm.objectives.{objective}")

    def search_modules(self, wildcards: Any) -> list[str]:
        evidence = f"ddgm.metrics.{self.evidence(wildcards.experiment)}"
        return sorted({*self.train_modules(wildcards), *modules("ddgm.search", evidence)})

    def evaluate_modules(self, wildcards: Any) -> list[str]:
        return modules(f"ddgm.metrics.{self.evidence(wildcards.experiment)}")

    def evidence(self, experiment: str) -> str:
        """The metrics module for an experiment."""
        return parameters.evidence(self.dataset(experiment))

    def measured_by(self, *evidence: str, unknown: bool = False) -> str:
        """A regular expression for the experiments that these metrics modules measure, and for `unknown` names."""
        names = {name: self.evidence(name) in evidence for name in self.config["experiments"]}
        # A name that no rule takes would be Snakemake's "no rule", and not a sentence that says which there are.
        others = [rf"(?!(?:{'|'.join([*names, 'claims'])})\b)[a-z][a-z0-9_]*"] if unknown else []
        return "|".join([*(name for name, fits in names.items() if fits), *others]) or "(?!)"

    def judge(self, wildcards: Any) -> list[str]:
        """The classifier of a digit experiment's data set."""
        folder = f"results/{wildcards.branch}/classifiers/{self.dataset_name(wildcards)}"
        return [f"{folder}/{file}" for file in ("weights.safetensors", "classifier.json")]

    def reference(self, wildcards: Any) -> str:
        """What an image experiment's data set scores against itself."""
        return f"results/{wildcards.branch}/references/{self.dataset_name(wildcards)}.npz"

    def pick_reference(self, wildcards: Any) -> str:
        """As `pick`, for what a reference depends on: another grid of a figure does not compute it again."""
        keys = ("seed", "samples", "compared", "neighbours", "patches", "projections", "inception")
        return self.pick(*(f"branches.{wildcards.branch}.images.{key}" for key in keys))(wildcards)

    def other(self, wildcards: Any) -> str | None:
        """The data set of another domain that an image experiment's energy meets, if there is one."""
        return self.value(f"branches.{wildcards.branch}.images.others").get(self.dataset_name(wildcards))

    def other_domain(self, wildcards: Any) -> list[str]:
        """Its last split."""
        name = self.other(wildcards)
        if name is None:
            return []
        return [f"data/prepared/{name}/{registry.splits(self.value(f'datasets.{name}'))[-1]}.npy"]

    def pick_images(self, wildcards: Any) -> str:
        """As `pick_dataset`, with the other domain of this data set and its kind: another's is no matter."""
        images = f"branches.{wildcards.branch}.images"
        keys = [f"{images}.{key}" for key in self.value(images) if key != "others"]
        if name := self.other(wildcards):
            keys += [f"{images}.others.{self.dataset_name(wildcards)}", f"datasets.{name}.kind"]
        return self.pick_dataset(*keys)(wildcards)

    def dataset(self, experiment: str) -> dict[str, Any]:
        """The data set's row of an experiment."""
        return self.value(f"datasets.{self.experiment(experiment)['dataset']}")

    def prepared(self, split: str, kind: str = "npy") -> Callable[[Any], str]:
        """The array of one split of an experiment's data set, or the sheet beside it (kind "json")."""
        return lambda wildcards: f"data/prepared/{self.experiment(wildcards.experiment)['dataset']}/{split}.{kind}"

    def measured_on(self, wildcards: Any) -> list[str]:
        """The arrays that an experiment is measured on: training and last split, none where the density is known."""
        return [] if self.evidence(wildcards.experiment) == "density" else self.train_and_test(wildcards)

    def train_and_test(self, wildcards: Any) -> list[str]:
        """The arrays of the training split and of the last one."""
        name = self.dataset_name(wildcards)
        splits = ("train", registry.splits(self.value(f"datasets.{name}"))[-1])
        return [f"data/prepared/{name}/{split}.npy" for split in splits]

    def held_out(self, wildcards: Any) -> str:
        """The array of an experiment's last split."""
        return self.train_and_test(wildcards)[1]

    def labels(self, wildcards: Any) -> list[str]:
        """The indices beside the arrays of train_and_test."""
        return [array.replace(".npy", ".csv") for array in self.train_and_test(wildcards)]

    def classifier_threads(self, wildcards: Any) -> int:
        return self.value(f"classifiers.{wildcards.dataset}")["threads"]

    def threads(self, wildcards: Any) -> int:
        """CPU threads of all processes of a training."""
        row = self.experiment(wildcards.experiment)
        return row["threads"] * row["devices"]

    def gpus(self, wildcards: Any) -> int:
        row = self.experiment(wildcards.experiment)
        return row["devices"] if row["device"] != "cpu" else 0

    def inception_gpus(self, wildcards: Any) -> int:
        """For Inception's features of a data set: one GPU, where they are asked for and trainings of it have any."""
        if not self.value(f"branches.{wildcards.branch}.images.inception"):
            return 0
        name = self.dataset_name(wildcards)
        rows = self.config["experiments"].values()
        return int(any(row["dataset"] == name and row["device"] != "cpu" for row in rows))

    def shown(self, figure: str, pattern: str) -> Callable[[Any], list[str]]:
        """A file for each experiment of a branch's figure; figure "all" means every experiment of the branch."""
        return lambda wildcards: [
            pattern.format(branch=wildcards.branch, experiment=name, dataset=self.experiment(name)["dataset"])
            for name in self.names(wildcards.branch, figure)
        ]

    def names(self, branch: str, figure: str = "all") -> list[str]:
        if figure == "all":
            return parameters.experiments(self.config, branch)
        return self.value(f"branches.{branch}.{figure}")

    def pick_shown(self, figure: str) -> Callable[[Any], str]:
        """As `pick`, for what a branch's figure shows: its list of experiments, their titles and data sets."""

        def chosen(wildcards: Any) -> str:
            lists = parameters.SHOWN if figure == "all" else (figure,)
            keys = [f"branches.{wildcards.branch}.{name}" for name in lists]
            for name in self.names(wildcards.branch, figure):
                keys += [f"experiments.{name}.title", f"experiments.{name}.dataset"]
            return self.pick(*keys)(wildcards)

        return chosen

    def claim(self, wildcards: Any) -> dict[str, Any]:
        return self.value(f"branches.{wildcards.branch}.claims.{wildcards.claim}")

    def claim_tables(self, wildcards: Any) -> list[str]:
        """What a claim's figure is drawn from: the tables that its tests look at."""
        return self.tables(wildcards.branch, [self.claim(wildcards)])

    def pick_claim(self, wildcards: Any) -> str:
        """As `pick`, for a claim's figure: its kind, what it tests, and the titles and data sets of these."""
        names = parameters.tested(self.claim(wildcards))
        shown = [f"experiments.{name}.{key}" for name in names for key in ("title", "dataset")]
        return self.pick("branches.{branch}.claims.{claim}", *shown)(wildcards)

    def pick_claims(self, wildcards: Any) -> str:
        """As `pick`, for all verdicts of a branch: its claims and recipes, and the seeds of what is tested."""
        claims = self.value(f"branches.{wildcards.branch}.claims").values()
        seeds = {f"experiments.{name}.seeds": None for about in claims for name in parameters.tested(about)}
        return self.pick("branches.{branch}.claims", "branches.{branch}.recipes", *seeds)(wildcards)

    def tables(self, branch: str, claims: Iterable[dict[str, Any]]) -> list[str]:
        """Every table that claims test."""
        kinds = {(parameters.CLAIM_TABLES[a["figure"]], name): None for a in claims for name in parameters.tested(a)}
        return [f"results/{branch}/{kind}/{experiment}.csv" for kind, experiment in kinds]

    def tested(self, wildcards: Any) -> list[str]:
        """Every table that a claim of a branch tests."""
        return self.tables(wildcards.branch, self.value(f"branches.{wildcards.branch}.claims").values())

    def searched(self, wildcards: Any) -> list[str]:
        """The tables of one search, one of each experiment that it varies."""
        names = self.value(f"branches.{wildcards.branch}.searches.{wildcards.search}")["experiments"]
        return [f"results/{wildcards.branch}/search/{name}.csv" for name in names]

    def pick_search(self, wildcards: Any) -> str:
        """As `pick_dataset`, for the search that varies an experiment."""
        with one_sentence():
            name = parameters.search_of(self.config, wildcards.branch, wildcards.experiment)
        plan = f"branches.{wildcards.branch}.searches.{name}"
        # Not what is searched beside it, nor how trials are put in order.
        keys = [f"{plan}.{key}" for key in self.value(plan) if key not in ("experiments", "together")]
        return self.pick_dataset(*keys, *self.training_keys(wildcards))(wildcards)

    def searched_with(self, wildcards: Any) -> list[str]:
        """What the trials of an experiment are measured with beside its training data: of digits, test and judge."""
        if self.evidence(wildcards.experiment) != "digits":
            return []
        return [*self.train_and_test(wildcards), *self.judge(wildcards)]

    def searches(self, branch: str, *kinds: str) -> list[str]:
        """The ranked table of each search of a branch, or of those whose experiments show these kinds of evidence."""
        plans = self.value(f"branches.{branch}.searches")
        of = {name: {self.evidence(one) for one in plan["experiments"]} for name, plan in plans.items()}
        return [
            f"results/{branch}/searches/{name}.csv" for name, shown in of.items() if not kinds or shown & set(kinds)
        ]

    def drawn_from(self, name: str, figure: Figure) -> list[Any]:
        """What a figure's rule reads: files of one experiment, or of every experiment that the figure shows."""
        patterns = [FILES[kind][0] for kind in figure.drawn_from]
        if not figure.each:
            return [self.shown(figure.shows, pattern) for pattern in patterns]
        return [*patterns, self.fit(name, figure.shows)]

    def fit(self, what: str, shown: str) -> Callable[[Any], list[str]]:
        """No file. Ends a run before its first job where the experiment is none, or of a kind that `what` is not for.

        `what` is a figure or a verb, `shown` the list of a branch that says which kinds.
        """

        def nothing(wildcards: Any) -> list[str]:
            asked = f"{what}_{wildcards.experiment}"
            # Snakemake asks it of fig3 and "steps_mnist" too, before it takes fig3_steps.
            if any(name != what and asked.startswith(f"{name}_") for name in FIGURES if name.startswith(what)):
                return []
            self.experiment(wildcards.experiment)
            with one_sentence():
                parameters.refuse_experiment(self.config, what, wildcards.experiment, shown)
            return []

        return nothing

    def pick_figure(self, figure: Figure) -> Callable[[Any], str]:
        """As `pick`, for a figure: the titles of what it shows."""
        if figure.each:
            return self.pick("experiments.{experiment}.title")
        return self.pick_shown(figure.shows) if figure.shows else self.pick()

    def figure(self, name: str, branch: str) -> list[str]:
        """The picture files of one figure of a branch, PNG and PDF."""
        figure = FIGURES.get(name)
        stems = [f"{name}_{e}" for e in self.names(branch, figure.shows)] if figure and figure.each else [name]
        return [f"results/{branch}/figures/{stem}.{kind}" for stem in stems for kind in ("png", "pdf")]

    def figures(self, shows: str, branch: str) -> list[str]:
        """The picture files of all figures that show one list of a branch."""
        return [file for name in showing(shows) for file in self.figure(name, branch)]

    def everything(self, branch: str, kinds: tuple[str, ...] = tuple(parameters.WORDS)) -> list[str]:
        """Every figure and table of a branch that shows these kinds of evidence and no other."""
        of_kinds = [name for name, figure in FIGURES.items() if set(kinds_shown(figure)) <= set(kinds)]
        drawn = [file for name in of_kinds for file in self.figure(name, branch)]
        names = [name for name in self.names(branch) if self.evidence(name) in kinds]
        measured = [f"results/{branch}/metrics/{name}.csv" for name in names]
        gathered = [f"results/{branch}/metrics.csv"] if names == self.names(branch) else []
        annealed = [name for name in self.value(f"branches.{branch}.annealed") if self.evidence(name) in kinds]
        likelihoods = [f"results/{branch}/likelihoods/{name}.csv" for name in annealed]
        sets = list(dict.fromkeys(self.experiment(name)["dataset"] for name in names))
        return [*drawn, *self.judged(branch), *measured, *gathered, *likelihoods, *described(branch, sets)]

    def judged(self, branch: str) -> list[str]:
        """The verdicts on a branch's claims, and their figures."""
        figures = [file for name in self.claim_figures(branch) for file in self.figure(name, branch)]
        return [f"results/{branch}/metrics/claims.csv", *figures]

    def reported(self, wildcards: Any) -> list[str]:
        """What a branch's report is written from: all that it shows, and where each trained net comes from."""
        models = "results/{branch}/models/{experiment}"
        patterns = (f"{models}/provenance.json", f"{models}/experiment.json")
        of_experiments = [file for pattern in patterns for file in self.shown("all", pattern)(wildcards)]
        sets = parameters.datasets(self.config, wildcards.branch)
        judged = [name for name in self.config["classifiers"] if name in sets]
        records = ("provenance.json", "classifier.json", "accuracy.csv")
        judges = [f"results/{wildcards.branch}/classifiers/{name}/{file}" for name in judged for file in records]
        return [*self.everything(wildcards.branch), *of_experiments, *judges]

    @property
    def report_code(self) -> list[str]:
        """The scripts, the page and the captions that make a report, and the modules that say what it shows."""
        scripts = [f"workflow/{name}.py" for name in ("pictures", "report", "selection", "tables")]
        pages = sorted(path.as_posix() for kind in ("*.rst", "*.jinja") for path in Path("workflow/report").glob(kind))
        read = modules("ddgm.figures.registry", "ddgm.figures.metric", "ddgm.reading", "ddgm.record")
        return [*scripts, *pages, *read]

    def pick_report(self, wildcards: Any) -> str:
        """As `pick_shown`, for the report: what it says beside what was measured."""
        known = json.loads(self.pick_shown("all")(wildcards))
        return self.pick(*known, *(f"branches.{wildcards.branch}.{key}" for key in ("title", "not_reproduced")))(
            wildcards
        )

    def claim_figures(self, branch: str) -> list[str]:
        return [f"claim_{claim}" for claim in self.value(f"branches.{branch}.claims")]

    def data(self, branch: str) -> list[str]:
        """A table and a contact sheet of each data set of a branch, for which every split is prepared."""
        return described(branch, parameters.datasets(self.config, branch))


def kinds_shown(figure: Figure) -> tuple[str, ...]:
    """The kinds of evidence of what a figure shows: none, those of its list, or every one."""
    everything = tuple(parameters.WORDS) if figure.shows else ()
    return parameters.KINDS_SHOWN.get(figure.shows or "", everything)


def described(branch: str, names: Iterable[str]) -> list[str]:
    """The table and the contact sheet of data sets."""
    sheets = [f"results/{branch}/figures/sheet_{name}.{kind}" for name in names for kind in ("png", "pdf")]
    return [f"results/{branch}/data/{name}.csv" for name in names] + sheets
