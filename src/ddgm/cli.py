"""The command line: one verb a rule. A user's mistake is one sentence and exit code 1."""

import argparse
import errno
import logging
import math
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from ddgm import parameters
from ddgm.errors import TRY_AGAIN, UserError, out_of_memory
from ddgm.figures.registry import FIGURES, FILES
from ddgm.progress import log, start_log
from ddgm.torchrun import run_on_devices, started_by_torchrun
from ddgm.whole_file import WRITTEN

RAW, PREPARED, RESULTS = Path("data/raw"), Path("data/prepared"), Path("results")
FIRST_SPEAKS = 30.0  # seconds that the first of several processes has to say what all have met
# What the faults of a disk, or of a path, that are met most often mean, and what to do.
IN_THE_WAY = "a file, or a link that leads nowhere, lies where a folder is needed: move it away, or name another place"
NO_PERMISSION = "no permission there (reading or writing): change the owner or the mode"
FAULTS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE), "the disk, or the way to it, failed: check it, and run the same command"
    ),
    errno.EISDIR: "a folder lies where a file is needed: move it away, or name another place",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), IN_THE_WAY),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NO_PERMISSION),
}


def fetch(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Download, or draw, one raw file of a data set."""
    from ddgm.datasets import registry
    from ddgm.datasets.download import fetch as fetch_file

    folder, mirror = parameters.place_of_files(args.dataset, file_of_parameters(args))
    if args.dataset == registry.INCEPTION["kind"]:
        row = registry.INCEPTION
    else:
        # Not given where no byte of this file depends on it (workflow/selection.py).
        row = {"folder": folder, "subset": None} | parameters.select(params, f"datasets.{args.dataset}")
    fetch_file(args.dataset, row, args.file, RAW / args.dataset / args.file, mirror)


def file_of_parameters(args: argparse.Namespace) -> str:
    """The parameter file that a command was given, or the project's where it was given a job's values."""
    return "params.yaml" if args.params.lstrip().startswith("{") else args.params


def prepare(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Turn the raw files of a data set into one array file for a split, on all cores."""
    import importlib

    from ddgm.datasets import registry
    from ddgm.datasets.verify import verify_raw_files

    row = parameters.select(params, f"datasets.{args.dataset}")
    if registry.files(row):
        verify_raw_files(args.dataset, row, args.split, RAW / args.dataset)
    module = importlib.import_module(registry.module(row))
    workers = args.workers or len(os.sched_getaffinity(0))
    module.prepare(row, RAW / args.dataset, args.split, PREPARED / args.dataset / f"{args.split}.npy", workers)


def describe(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Count and average what a prepared data set holds."""
    from ddgm.metrics.dataset import describe as describe_arrays

    describe_arrays(splits(args.dataset, params), RESULTS / args.branch / "data" / f"{args.dataset}.csv")


def train(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Train the energy and the generator of an experiment, all its seeds."""
    row = parameters.select(params, f"experiments.{args.experiment}")
    array = training_array(row["dataset"])
    from ddgm import device, training

    if row["devices"] > 1 and not started_by_torchrun():
        # Said once and at once, before there are several processes to say it.
        training.refuse_other_model(model(args), args.experiment, row, args.restart)
        device.wants_gpu(row["device"])
        sys.exit(run_on_devices(row["devices"], sys.argv[1:], TRY_AGAIN))
    training.train(
        args.experiment,
        row,
        array,
        model(args),
        RESULTS / args.branch / "state" / args.experiment,
        threads=args.threads or row["threads"],
        restart=args.restart,
        checkpoint_minutes=args.checkpoint_minutes,
        checkpoints=args.checkpoints,
    )


def classify(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Train the classifier that judges a data set's digits, all its seeds."""
    from ddgm.classifier import train as train_all

    row = parameters.select(params, f"classifiers.{args.dataset}")
    target = RESULTS / args.branch / "classifiers" / args.dataset
    train_all(args.dataset, row, *measured_on(args.dataset, params), target)


def sample(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Draw from a trained generator what the figures show."""
    from ddgm.sampling import sample as sample_all

    settings, dataset = measured_with(args, params, "sampling")
    sample_all(model(args), settings, dataset, RESULTS / args.branch / "samples" / f"{args.experiment}.npz")


def evaluate(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Measure a trained energy and generator."""
    from ddgm import experiment

    row = experiment.describe(model(args))["row"]
    name, dataset = row["dataset"], parameters.select(params, f"datasets.{row['dataset']}")
    kind = parameters.evidence(dataset)
    settings = params["branches"][args.branch]["evaluation" if kind == "density" else kind]
    folder = RESULTS / args.branch
    targets = {
        "metrics": folder / "metrics" / f"{args.experiment}.csv",
        "interpolations": folder / "interpolations" / f"{args.experiment}.csv",
        "crossings": folder / "crossings" / f"{args.experiment}.csv",
        "evidence": folder / "evidence" / f"{args.experiment}.npz",
    }
    if kind == "density":
        from ddgm.metrics import density

        density.evaluate(args.experiment, model(args), settings, dataset, targets["metrics"])
    elif kind == "digits":
        from ddgm.metrics import digits

        samples = existing(folder / "samples" / f"{args.experiment}.npz", f"ddgm sample {args.experiment}")
        arrays, judge = measured_on(name, params), classifier(args, name)
        digits.evaluate(args.experiment, model(args), settings, targets, samples, *arrays, judge)
    else:
        from ddgm.metrics import images

        known = existing(folder / "references" / f"{name}.npz", f"ddgm reference {name}")
        other = settings.get("others", {}).get(name)
        # Statistics that came without the weights, by `dvc pull`, are compared with all the same.
        weights = inception_weights(settings, images.known_by_inception(known), file_of_parameters(args))
        images.evaluate(
            args.experiment, model(args), settings, targets, known, *weights,
            *measured_on(name, params), held_out(other, params) if other else None,
        )  # fmt: skip


def reference(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Measure what the images of a data set score against themselves: what samples are compared with."""
    from ddgm.metrics import images

    parameters.refuse_kind(params, "reference", args.dataset, args.dataset, ("images",))
    array = training_array(args.dataset)
    settings = params["branches"][args.branch]["images"]
    weights, absent = inception_weights(settings, True, file_of_parameters(args))
    if absent:
        log.info(f"{args.dataset}: without Inception's distances: {absent}")
    target = RESULTS / args.branch / "references" / f"{args.dataset}.npz"
    images.reference(array, settings, target, weights, absent)


def inception_weights(
    settings: dict[str, Any], fetch_them: bool = False, file: str = "params.yaml"
) -> tuple[Path | None, str]:
    """Where Inception's weights lie, verified, and fetched if asked for; or None, and why not, in one sentence.

    `file` is the parameter file that says which mirror has them.
    """
    from ddgm.datasets import download, registry

    if not settings["inception"]:
        return None, "branches.*.images.inception is false"
    (weights,) = registry.files(registry.INCEPTION)
    target = RAW / "inception" / weights
    if not fetch_them and not target.exists():
        return None, f"{target} is missing: get it with 'snakemake {target}'"
    _, mirror = parameters.place_of_files("inception", file)
    try:
        # What is in place is verified, and the network left alone.
        download.fetch("inception", registry.INCEPTION, weights, target, mirror)
    except download.DiskError:
        raise
    except UserError as error:
        return None, str(error)
    return target, ""


def trace(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Measure a two-dimensional energy and generator along their training."""
    from ddgm.metrics.trace import evaluate as measure

    parameters.refuse_experiment(params, "trace", args.experiment, "traced")
    settings, dataset = measured_with(args, params, "tracing")
    target = RESULTS / args.branch / "traces" / f"{args.experiment}.csv"
    measure(args.experiment, model(args), settings, dataset, target)


def mix(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Let Langevin chains sample a trained energy beside its generator."""
    from ddgm.metrics.mixing import evaluate as measure

    parameters.refuse_experiment(params, "mix", args.experiment, "mixed")
    settings, dataset = measured_with(args, params, "mixing")
    target = RESULTS / args.branch / "mixing" / f"{args.experiment}.csv"
    measure(args.experiment, model(args), settings, dataset, target)


def anneal(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Estimate how likely held-out data are under a trained energy, by annealed importance sampling."""
    from ddgm import experiment
    from ddgm.metrics.annealing import evaluate as measure

    name = experiment.describe(model(args))["row"]["dataset"]
    target = RESULTS / args.branch / "likelihoods" / f"{args.experiment}.csv"
    settings = params["branches"][args.branch]["annealing"]
    measure(args.experiment, model(args), settings, target, held_out(name, params))


def judge(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Compare the paper's claims with what was measured: a verdict for each, by each recipe."""
    from ddgm.metrics.claims import judge as judge_all

    folder, shown = RESULTS / args.branch, params["branches"][args.branch]
    seeds = {name: row["seeds"] for name, row in params["experiments"].items() if "seeds" in row}
    for about in shown["claims"].values():
        existing_tables(about, folder)
    judge_all(shown["claims"], shown["recipes"], seeds, folder, folder / "metrics" / "claims.csv")


def search(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Train and measure an experiment in many versions, drawn at random: a row for each."""
    from ddgm.search import search as search_all

    row = parameters.select(params, f"experiments.{args.experiment}")
    dataset = parameters.select(params, f"datasets.{row['dataset']}")
    name = parameters.search_of(params, args.branch, args.experiment)
    plan = params["branches"][args.branch]["searches"][name]
    if parameters.evidence(dataset) == "density":
        from ddgm.metrics import density

        judged_by: list[Path] = []

        def evaluate(name: str, directory: Path, table: Path) -> None:
            density.evaluate(name, directory, plan["evaluation"], dataset, table)
    else:
        from ddgm.metrics import digits

        arrays, judge = measured_on(row["dataset"], params), classifier(args, row["dataset"])
        judged_by = [*arrays, judge / "weights.safetensors"]

        def evaluate(name: str, directory: Path, table: Path) -> None:
            digits.evaluate_metrics(name, directory, plan["evaluation"], table, *arrays, judge)

    search_all(
        args.experiment,
        row,
        dataset,
        plan,
        training_array(row["dataset"]),
        evaluate,
        RESULTS / args.branch / "search" / f"{args.experiment}.csv",
        RESULTS / args.branch / "state" / "search" / args.experiment,
        row["threads"],
        judged_by,
    )


def rank(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Put the versions that one of a branch's searches tried in order."""
    from ddgm.search import rank as rank_all

    plan = parameters.select(params, f"branches.{args.branch}.searches.{args.search}")
    folder = RESULTS / args.branch
    tables = [existing(folder / "search" / f"{name}.csv", f"ddgm search {name}") for name in plan["experiments"]]
    rank_all(tables, plan, folder / "searches" / f"{args.search}.csv")


def tabulate(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Gather a branch's metrics into one table: mean and standard deviation over seeds."""
    from ddgm.metrics.table import tabulate as gather

    names, titles = shown(args.branch, params)
    tables = [existing(RESULTS / args.branch / "metrics" / f"{name}.csv", f"ddgm evaluate {name}") for name in names]
    gather(tables, titles, RESULTS / args.branch / "metrics.csv")


def verify(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Hash again what lies here, and say what is not what its records say."""
    from ddgm.verify import restores
    from ddgm.verify import verify as verify_all

    found = verify_all(params, RAW, PREPARED, RESULTS, Path("dvc.lock"))
    made = [one for one in found if not one.absent]
    faults = list(dict.fromkeys(one.fault for one in found if one.fault))
    for fault in faults:
        log.info(fault)
    away = [one.file for one in found if one.absent]
    more = f"; {len(away)} recorded files are not here, the first {away[0]}: {restores(away[0])}" if away else ""
    if faults:
        raise UserError(f"{len(faults)} of {len(made)} comparisons do not match; each is named above{more}")
    if not found:
        log.info("nothing lies here that a record is of: 'make toy' makes something")
        return
    log.info(f"{len(made)} comparisons, and all match{more}")


def provenance(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Say where a result comes from: its job, code, parameters and inputs, and the nets behind it."""
    from ddgm.lineage import lines

    try:
        print(*lines(args.result, Path("dvc.lock"), RESULTS), sep="\n", flush=True)
    except BrokenPipeError:
        # Who reads has heard enough; what is left must not be said again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def draw(args: argparse.Namespace, params: dict[str, Any]) -> None:
    """Draw one figure, as PNG and PDF."""
    stem = f"{args.figure}_{args.experiment}" if args.experiment else args.figure
    outputs = [RESULTS / args.branch / "figures" / f"{stem}.{kind}" for kind in ("png", "pdf")]
    {"sheet": draw_sheet, "claim": draw_claim}.get(args.figure, draw_figure)(args, params, outputs)


def draw_figure(args: argparse.Namespace, params: dict[str, Any], outputs: list[Path]) -> None:
    """A figure of one experiment, or of all that a branch shows in it."""
    import importlib

    module, figure = importlib.import_module(f"ddgm.figures.{args.figure}"), FIGURES[args.figure]
    if args.experiment and not figure.each:
        given = f"draw {args.figure}"
        raise UserError(
            f"{args.figure} takes no name: write 'ddgm {given}' in place of 'ddgm {given} {args.experiment}'"
        )
    if figure.each:
        title = title_of(args, params)
        module.draw(*(drawn_from(kind, args.experiment, args, params) for kind in figure.drawn_from), outputs, title)
    elif figure.shows:
        names, titles = shown(args.branch, params, figure.shows)
        files = [{name: drawn_from(kind, name, args, params) for name in names} for kind in figure.drawn_from]
        module.draw(*files, *([titles] if figure.titles else []), outputs)
    else:
        module.draw(outputs)


def title_of(args: argparse.Namespace, params: dict[str, Any]) -> str:
    """The title of the experiment that a figure is drawn for, or UserError if it shows no such experiments."""
    if not args.experiment:
        raise UserError(f"{args.figure} is drawn for one experiment: write 'ddgm draw {args.figure} EXPERIMENT'")
    title = parameters.select(params, f"experiments.{args.experiment}.title")
    parameters.refuse_experiment(params, args.figure, args.experiment, FIGURES[args.figure].shows)
    return title


def drawn_from(kind: str, experiment: str, args: argparse.Namespace, params: dict[str, Any]) -> Path:
    """A file of one experiment that a figure is drawn from, or UserError with the command that makes it."""
    path, command = FILES[kind]
    known = {"branch": args.branch, "experiment": experiment, **params["experiments"][experiment]}
    return existing(Path(path.format(**known)), command.format(**known))


def draw_sheet(args: argparse.Namespace, params: dict[str, Any], outputs: list[Path]) -> None:
    """The contact sheet of one data set."""
    from ddgm.figures import sheet

    if not args.experiment:
        raise UserError("a sheet is drawn of one data set: write 'ddgm draw sheet DATASET'")
    sheet.draw(splits(args.experiment, params), outputs)


def draw_claim(args: argparse.Namespace, params: dict[str, Any], outputs: list[Path]) -> None:
    """The figure of one claim: what its tests look at."""
    from ddgm.figures import claims

    if not args.experiment:
        raise UserError("a claim's figure is drawn of one claim: write 'ddgm draw claim CLAIM'")
    folder = RESULTS / args.branch
    claim = parameters.select(params, f"branches.{args.branch}.claims.{args.experiment}")
    verdicts = existing(folder / "metrics" / "claims.csv", "ddgm judge")
    tables = existing_tables(claim, folder)
    rows = {name: params["experiments"][name] for name in tables}
    titles = {name: row["title"] for name, row in rows.items()}
    more = ({name: row["dataset"] for name, row in rows.items()},) if claim["figure"] == "traces" else ()
    getattr(claims, claim["figure"])(args.experiment, verdicts, tables, titles, *more, outputs)


def existing_tables(about: dict[str, Any], folder: Path) -> dict[str, Path]:
    """The tables that a claim is tested on, by experiment, or UserError with the command that makes one."""
    from ddgm.metrics.claims import tables

    verb = {"metrics": "evaluate", "traces": "trace", "mixing": "mix"}[parameters.CLAIM_TABLES[about["figure"]]]
    return {name: existing(path, f"ddgm {verb} {name}") for name, path in tables(about, folder).items()}


def shown(branch: str, params: dict[str, Any], figure: str = "all") -> tuple[list[str], dict[str, str]]:
    """The experiments of a branch's list, or of all its figures, and their titles."""
    names = parameters.experiments(params, branch) if figure == "all" else params["branches"][branch][figure]
    return names, {name: params["experiments"][name]["title"] for name in names}


def measured_with(args: argparse.Namespace, params: dict[str, Any], key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A branch's settings for sampling, tracing or mixing, and the row of the experiment's data set."""
    from ddgm import experiment

    dataset = experiment.describe(model(args))["row"]["dataset"]
    return params["branches"][args.branch][key], parameters.select(params, f"datasets.{dataset}")


def note_code() -> None:
    """Have the code version read before the job's work, after which another commit may lie here."""
    from ddgm.provenance import code_version

    code_version()


def note_job(command: list[str], started: float) -> None:
    """Leave the record of a job that wrote results, with how long it took.

    What it wrote is whole by now: a record that cannot be written does not undo it, nor does a signal meanwhile.
    """
    if not WRITTEN:
        return
    from ddgm import record

    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        record.write(command, WRITTEN, RESULTS, time.monotonic() - started)
    except OSError as error:
        log.warning(f"this job has no record, for {error.filename or RESULTS} cannot be written ({error.strerror})")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def model(args: argparse.Namespace) -> Path:
    return RESULTS / args.branch / "models" / args.experiment


def splits(dataset: str, params: dict[str, Any]) -> list[Path]:
    """The prepared arrays of a data set, every split."""
    from ddgm.datasets import registry

    names = registry.splits(parameters.select(params, f"datasets.{dataset}"))
    return [prepared(dataset, name) for name in names]


def measured_on(dataset: str, params: dict[str, Any]) -> tuple[Path, Path]:
    """The prepared arrays that image experiments are measured on: the training split and the last one."""
    return training_array(dataset), held_out(dataset, params)


def held_out(dataset: str, params: dict[str, Any]) -> Path:
    """The prepared array of a data set's last split."""
    from ddgm.datasets import registry

    return prepared(dataset, registry.splits(parameters.select(params, f"datasets.{dataset}"))[-1])


def classifier(args: argparse.Namespace, dataset: str) -> Path:
    """The folder of the classifier that judges a data set, or UserError if it has not been trained."""
    folder = RESULTS / args.branch / "classifiers" / dataset
    existing(folder / "weights.safetensors", f"ddgm classify {dataset}")
    return folder


def training_array(dataset: str) -> Path:
    """The prepared training split of a data set."""
    return prepared(dataset, "train")


def prepared(dataset: str, split: str) -> Path:
    """The array of one prepared split."""
    return existing(PREPARED / dataset / f"{split}.npy", f"ddgm prepare {dataset} {split}")


def existing(path: Path, command: str) -> Path:
    """The path, or UserError with the command that makes the file, in the branch whose it is."""
    if not path.exists():
        if path.is_relative_to(RESULTS):
            command += f" --branch {path.relative_to(RESULTS).parts[0]}"
        raise UserError(f"{path} is missing: make it with '{command}', or let 'snakemake {path}' make all it needs")
    return path


class Parser(argparse.ArgumentParser):
    """Arguments of a command, whose slips are UserErrors like any other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ('{self.prog} --help' shows what to write)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own sentence guesses no neighbour.
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            raise argparse.ArgumentError(action, f"there is no '{value}'{parameters.nearest(str(value), known)}")


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1: write 1 or more")
    return int(text)


def minutes(text: str) -> float:
    """A finite time from 0: with any other no state would ever be saved."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no time in minutes: write a number from 0, as 5 or 0.5")
    return number


def parser() -> Parser:
    """Arguments of every verb."""
    top = Parser(prog="ddgm", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for run, positional in (
        (fetch, ["dataset", "file"]),
        (prepare, ["dataset", "split"]),
        (describe, ["dataset"]),
        (reference, ["dataset"]),
        (classify, ["dataset"]),
        (train, ["experiment"]),
        (sample, ["experiment"]),
        (evaluate, ["experiment"]),
        (trace, ["experiment"]),
        (mix, ["experiment"]),
        (anneal, ["experiment"]),
        (search, ["experiment"]),
        (rank, ["search"]),
        (judge, []),
        (tabulate, []),
        (verify, []),
        (provenance, ["result"]),
        (draw, ["figure"]),
    ):
        verb = verbs.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        verb.set_defaults(run=run)
        for name in positional:
            choices = [*FIGURES, "sheet", "claim"] if name == "figure" else None
            verb.add_argument(name, choices=choices, type=Path if name == "result" else str)
        if run is draw:
            verb.add_argument(
                "experiment",
                nargs="?",
                metavar="name",
                help="experiment of fig3 or fig4, data set of a sheet, a claim",
            )
        if run not in (fetch, prepare, verify, provenance):
            verb.add_argument("--branch", help="paper or toy; the one that shows it, by default")
        if run is prepare:
            verb.add_argument("--workers", type=positive, help="processes that decode pictures; all cores by default")
        if run is train:
            verb.add_argument("--threads", type=positive, help="CPU threads; the experiment's own number by default")
            verb.add_argument(
                "--restart",
                action="store_true",
                help="begin anew: forget a saved state, and replace a model of other parameters",
            )
            verb.add_argument("--checkpoint-minutes", type=minutes, default=5.0, help="between two saved states")
            verb.add_argument("--checkpoints", type=positive, default=2, help="how many saved states are kept")
        verb.add_argument("--params", default="params.yaml", help="a parameter file, or JSON of dotted keys")
        verb.add_argument("--log", type=Path, help="a file that gets what is said on standard error")
    return top


def too_little_memory(args: argparse.Namespace, error: BaseException) -> str:
    """What to do about it, in one sentence."""
    more = re.search(r"allocate (\d[\d.]* \w+)", str(error))
    what = f"not enough memory{f' for {more[1]} more' if more else ''}: "
    if args.verb not in ("train", "search"):
        return what + "end other programs, or run the same command where there is more"
    kept = ", and --restart; a state that was saved is kept, to go on from where there is more" * (args.verb == "train")
    of_device = ", or device: cpu" * (type(error).__name__ == "OutOfMemoryError")
    return f"{what}write a smaller experiments.{args.experiment}.schedule.batch{of_device}{kept}"


def last_word(what: str, quiet: bool) -> int:
    """Say what ends the command, with its exit code."""
    if quiet:
        # The first process says it and ends, which ends this one. If it does not, this one alone has met it.
        time.sleep(FIRST_SPEAKS)
    log.critical(f"ddgm: {what}")
    return 1


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0, 1 for a user's mistake or a fault of the machine, 75 to run again, 130 when interrupted.

    Asked to end it leaves with 143, but for a training or a search, which are run again; with 141 where nobody reads
    what it says.
    """
    started = time.monotonic()
    WRITTEN.clear()
    start_log(None)
    # Of several processes one speaks.
    quiet = started_by_torchrun() and int(os.environ["RANK"]) > 0
    # Asked to end (a cluster, or Snakemake's Ctrl-C), leave by the way that removes temporary files.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if quiet:
            log.setLevel(logging.CRITICAL)
        args = parser().parse_args(argv)
        if args.run in (train, search):
            # A state is saved or not needed yet: the same command goes on, whatever it was at.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TRY_AGAIN))
        if args.log and not quiet:
            start_log(args.log)
        params = parameters.load(args.params)
        if "branch" in args:
            kind = next((kind for kind in ("dataset", "search", "experiment") if kind in args), "experiment")
            name = getattr(args, kind, None)
            kind = {"sheet": "dataset", "claim": "claim"}.get(getattr(args, "figure", None), kind)
            args.branch = parameters.choose_branch(params, args.branch, kind, name)
        note_code()
        args.run(args, params)
        note_job(["ddgm", *(sys.argv[1:] if argv is None else argv)], started)
    except UserError as error:
        return last_word(str(error), quiet)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return last_word(f"{args.verb}: {too_little_memory(args, error)}", quiet=False)
        if error.errno not in FAULTS:
            raise
        half_made = "(what is half-made was removed, or is continued)"
        return last_word(f"{error.filename or args.verb}: {FAULTS[error.errno]} {half_made}", quiet)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            if quiet or (started_by_torchrun() and "by peer" in str(error)):
                # Another process has met it, and says so, or has been ended, which the launcher says; it ends this one.
                time.sleep(FIRST_SPEAKS)
            raise
        # Also where another process speaks: its device may have had enough.
        return last_word(f"{args.verb}: {too_little_memory(args, error)}", quiet=False)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
