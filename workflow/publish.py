"""Keep a branch's finished results in docs/, and write their numbers into the tables of README.md and docs/.

python workflow/publish.py paper     copy figures, metrics and provenance from results/paper, then write the tables
python workflow/publish.py toy       the same for the toy branch
python workflow/publish.py tables    write the tables alone, as after a benchmark
python workflow/publish.py --check   exit with 1 and one sentence if a table is not what docs/results says

Run after a Snakemake run. Tables and provenance are copied as they are, so that each number can be traced to code and
data; pictures are saved with 256 colours, which keeps the repository small. Figures that show photographs of the data
are never copied.
"""

import shutil
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pandas as pd

import tables
from ddgm import parameters
from ddgm.errors import UserError
from ddgm.figures.registry import PHOTOGRAPHS
from ddgm.paper import DIGITS_BETWEEN
from ddgm.reading import read_record
from ddgm.whole_file import whole_file
from pictures import reduced
from tables import PLANAR, Measured, Table, measured_experiments

DOCS = Path("docs")
# In README.md: how the names of the rows end that it compares.
COMPARED = (
    "",
    "_literal",
    "_literal_no_entropy",
    "_no_eq_15",
    "_outputs",
    "_outputs_penalty",
    "_outputs_weighted",
    "_neighbour",
    "_blurred",
    "_gan",
    "_exact",
)
# The first that README.md says: a claim of the paper in short, the claims tested for it (params.yaml), and what was
# measured, with {experiment[metric]} for a mean over seeds.
GLANCE = [
    (
        "Samples follow the energy model, and the energy fits the data (Fig. 2)",
        ["samples_follow_energy", "energy_fits_data"],
        "The samples come about as close to the data as a GAN's; the energy ends {four_spin[kl_data_model]:.2f} and "
        "{two_spiral[kl_data_model]:.2f} nats from the data, no closer than a bare Gaussian; with Eq. 15 on the "
        "outputs too {four_spin_outputs[kl_data_model]:.2f} and {two_spiral_outputs[kl_data_model]:.2f}, and with "
        "noise and weights of ours on the samples {four_spin_outputs_weighted[kl_data_model]:.2f} and "
        "{two_spiral_outputs_weighted[kl_data_model]:.2f}. By "
        "[a recipe of ours](docs/method.md#what-is-ours-and-not-the-papers) it ends "
        "{four_spin_neighbour[kl_data_model]:.2f} and {two_spiral_neighbour[kl_data_model]:.2f} nats from them, by its "
        "latest version {four_spin_blurred[kl_data_model]:.2f} and {two_spiral_blurred[kl_data_model]:.2f}",
    ),
    (
        "No mode is missed, because Eq. 15 raises the generator's entropy",
        ["modes_are_represented", "entropy_is_essential", "eq_15_is_the_entropy", "activations_are_normal"],
        "No mode is missed, in any seed: neither with Eq. 15's sum over the hidden scales, nor without it (KL(D‖G) "
        "{four_spin_literal[kl_data_generator]:.2f} and {two_spiral_literal[kl_data_generator]:.2f} with it, "
        "{four_spin_literal_no_entropy[kl_data_generator]:.2f} and "
        "{two_spiral_literal_no_entropy[kl_data_generator]:.2f} without). Its value does not follow the entropy",
    ),
    (
        "Interpolating z passes through plausible digits (Fig. 3)",
        ["digits_are_drawn", "lines_pass_digits"],
        "With a penalty, Adam and averaged weights of ours all ten digits are drawn in every seed, without Eq. 15 as "
        "well. The digit that the paper names lies on {mnist_eq_15[crossed_8_2_by_3]:.0%}, "
        "{mnist_eq_15[crossed_5_2_by_3]:.0%} and {mnist_eq_15[crossed_7_4_by_9]:.0%} of the lines, in its "
        "three cases. By the lab's own settings, in 4,000 steps, digits are poor",
    ),
    (
        "The same works for 64x64 colour images (Fig. 4)",
        [],
        "Not tested at the paper's width, nor on LSUN. At a quarter of it, on a subset of CelebA, by settings of ours "
        "and with little of Eq. 15, both seeds draw faces, and the energy tells noise from them (an AUROC of "
        "{celeba_quarter_slow[auroc_noise]:.2f}), inverted faces not ({celeba_quarter_slow[auroc_inverted]:.2f}). "
        "Without Eq. 15, or as a GAN, both draw faces as well",
    ),
]


def publish(branch: str) -> None:
    """Copy what results/{branch} holds of figures, metrics and provenance into docs/, or nothing if some is missing."""
    results, kept = Path("results") / branch, DOCS / "results" / branch
    verdicts = results / "metrics" / "claims.csv"
    copies = {verdicts: kept / verdicts.name} if verdicts.exists() else {}
    numbers = {table: kept / table.name for table in sorted((results / "metrics").glob("*.csv")) if table != verdicts}
    with_provenance = {results / "models" / table.stem / "provenance.json": table for table in numbers}
    for judge in sorted((results / "classifiers").glob("*/accuracy.csv")):
        numbers[judge] = kept / "classifiers" / f"{judge.parent.name}.csv"
        with_provenance[judge.with_name("provenance.json")] = judge
    drawn = "fig4_curves_"
    curves = {
        results / "models" / picture.stem.removeprefix(drawn) / "history.csv": picture
        for picture in sorted((results / "figures").glob(f"{drawn}*.png"))
    }
    for needed, shown in (with_provenance | curves).items():
        if not needed.exists():
            raise UserError(f"{needed} is missing, and {shown} is published with it: 'dvc pull {needed}'")
    for provenance, table in with_provenance.items():
        copies |= {table: numbers[table], provenance: numbers[table].with_suffix(".provenance.json")}
    copies |= {history: kept / "histories" / f"{history.parent.name}.csv" for history in curves}
    for folder in ("traces", "mixing", "interpolations", "crossings", "likelihoods", "searches"):
        copies |= {table: kept / folder / table.name for table in sorted((results / folder).glob("*.csv"))}
    pictures = [path for kind in ("fig*.png", "claim_*.png") for path in sorted((results / "figures").glob(kind))]
    if not copies and not pictures:
        raise UserError(
            f"{results} has nothing to publish: make some of it, as by 'snakemake {results}/figures/fig2.png'"
        )
    for picture in pictures:
        if not picture.name.startswith(PHOTOGRAPHS):
            with whole_file(DOCS / "figures" / f"{branch}_{picture.name}") as path:
                path.write_bytes(reduced(picture))
    for source, target in copies.items():
        with whole_file(target) as path:
            shutil.copyfile(source, path)


@cache
def published() -> list[Measured]:
    """The published experiments of the paper branch, read once for all tables."""
    folder = f"{DOCS}/results/paper"
    rows = parameters.load("params.yaml")["experiments"]
    return list(measured_experiments(rows, f"{folder}/{{name}}.csv", f"{folder}/{{name}}.provenance.json"))


def of_kind(kind: str) -> list[Measured]:
    return [experiment for experiment in published() if experiment.kind == kind]


def glance() -> str:
    """The paper's claims in short, whether tests of them hold by its own recipe, and what was measured."""
    means = {experiment.name: experiment.values.mean(skipna=False) for experiment in published()}
    tests = judged()
    own = tests[tests["recipe"] == next(iter(parameters.load("params.yaml")["branches"]["paper"]["recipes"]))]
    rows = []
    for says, claims, found in GLANCE:
        of_claims = [own[own["claim"] == claim] for claim in claims]
        signs = [f"{t['says'].iloc[0][:3]} {tables.sign(t)}" for t in of_claims if len(t)]
        try:
            measured = found.format(**means)
        except KeyError:
            measured = "not measured yet"
        rows.append([says, ", ".join(signs) or "not tested", measured])
    return Table(["the paper says", "tests that hold with Eq. 15", "what was measured"], rows).markdown()


def headline() -> str:
    """Of the experiments in two dimensions those that README.md compares, in its order."""
    by_name = {experiment.name: experiment for experiment in of_kind("planar")}
    names = [f"{dataset}{recipe}" for recipe in COMPARED for dataset in ("four_spin", "two_spiral")]
    return tables.planar(by_name[name] for name in names if name in by_name).markdown()


def planar() -> str:
    return tables.planar(of_kind("planar")).markdown()


def digits() -> str:
    return tables.digits(of_kind("digits")).markdown()


def further() -> str:
    return tables.digits(of_kind("digits"), tables.DIGITS_FURTHER).markdown()


def judges() -> str:
    """How well the published classifiers tell the digits that they were not trained on, as a Markdown table."""
    rows = []
    for file in sorted((DOCS / "results/paper/classifiers").glob("*.csv")):
        values = pd.read_csv(file)["value"]
        about = read_record(file.with_name(f"{file.stem}.provenance.json"))
        spread = f" ± {100 * values.std():.2f}" if len(values) > 1 else ""
        told = f"{100 * values.mean():.2f}{spread} %"
        rows.append([file.stem, f"{len(values)}", told, f"{100 * values.min():.2f} %", tables.took(about["seconds"])])
    return Table(["data set", "seeds", "test digits told right", "the worst seed", "trained in"], rows).markdown()


def likelihoods() -> str:
    """The published annealed likelihoods as a Markdown table, nats."""
    shown = {
        "log_partition": "log Z, annealed",
        "log_partition_from_samples": "annealed back",
        "log_partition_quadrature": "by quadrature",
        "log_likelihood": "log p of held-out data",
        "log_likelihood_uniform": "of the uniform density",
    }
    rows = []
    for file in sorted((DOCS / "results/paper/likelihoods").glob("*.csv")):
        values = pd.read_csv(file).pivot(index="seed", columns="metric", values="value")
        rows.append([f"`{file.stem}`", *tables.cells(values, shown)])
    return Table(["experiment", *shown.values()], rows).markdown()


def lines() -> str:
    """What lies between the paper's three pairs of digits, in the published experiments."""
    head = [f"{a} to {b} by way of {by}" for a, b, by in DIGITS_BETWEEN]
    rows = []
    for experiment in of_kind("digits"):
        values = experiment.values
        passed = pd.read_csv(DOCS / f"results/paper/crossings/{experiment.name}.csv")
        shares = tables.cells(values, [f"crossed_{a}_{b}_by_{by}" for a, b, by in DIGITS_BETWEEN])
        counts = [int(values[f"lines_{a}_{b}"].sum()) for a, b, _ in DIGITS_BETWEEN]
        most = [", ".join(most_between(passed, a, b, values.index)) for a, b, _ in DIGITS_BETWEEN]
        rows.append(
            [experiment.label, *(f"{share} of {n}" for share, n in zip(shares, counts, strict=True)), "; ".join(most)]
        )
    return Table(["experiment", *head, "most often between, in each"], rows).markdown()


def most_between(passed: pd.DataFrame, a: int, b: int, seeds: Iterable[int]) -> list[str]:
    """The digit that most lines from a to b pass, seed by seed: all of them where several are passed alike."""
    told = []
    for seed in seeds:
        between = passed[(passed["seed"] == seed) & (passed["from"] == a) & (passed["to"] == b)]
        most = between[(between["share"] == between["share"].max()) & (between["share"] > 0)]
        told.append("=".join(map(str, most["between"])) or "none")
    return told


def images() -> str:
    table = tables.images(of_kind("images"))
    return table.markdown() if table.rows else "Figure 4's experiments have not been trained yet."


def claims() -> str:
    return tables.claims(judged()).markdown()


def judged() -> pd.DataFrame:
    """The published tests of the claims, or an empty table."""
    file = DOCS / "results/paper/claims.csv"
    return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["claim", "recipe"])


def speed() -> str:
    """The speed of the preparation as a Markdown table: medians, and the slowest and the fastest of all runs."""
    rates = pd.read_csv(DOCS / "results/benchmarks/preparation_speed.csv")
    rows = []
    for name, runs in rates.groupby("what", sort=False):
        cells = [
            (f"{run.images_per_second:,} ({run.slowest:,} to {run.fastest:,})", f"{run.times_torchvision:.2f}")
            for run in runs.itertuples()
        ]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    head = ["images per second", "1 core", "times torchvision's", "2 cores", "times torchvision's"]
    return Table(head, rows).markdown() + "\n\n" + about_machine("preparation_speed")


def memory() -> str:
    """The peak memory of the preparation as a Markdown table."""
    peaks = pd.read_csv(DOCS / "results/benchmarks/preparation_memory.csv")
    rows = [
        [f"{run.images:,}", f"{run.cores}", f"{run.peak_megabytes} MB", f"{run.images_per_second:,}"]
        for run in peaks.itertuples()
    ]
    head = ["images", "processes", "peak memory, all together", "images per second"]
    return Table(head, rows).markdown() + "\n\n" + about_machine("preparation_memory")


def training() -> str:
    """The speed of training as a Markdown table: each competitor with the number of threads it is fastest with."""
    file = DOCS / "results/benchmarks/training_speed.csv"
    if not file.exists():
        return "Not measured yet: `make bench` does."
    rates = pd.read_csv(file)
    rows = []
    fastest = rates.groupby(["experiment", "what"], sort=False)["seed_steps_per_second"].idxmax()
    for run in rates.loc[fastest].itertuples():
        speed = f"{run.seed_steps_per_second:,} ({run.slowest:,} to {run.fastest:,})"
        compilation = f"{run.compilation_seconds:.0f} s, once" if run.compilation_seconds else "none"
        rows.append([f"`{run.experiment}`", run.what, f"{run.threads}", speed, f"{run.times_plain:.2f}", compilation])
    head = ["experiment", "what", "threads", "steps × seeds per second", "times plain", "compilation"]
    return Table(head, rows).markdown() + "\n\n" + about_machine("training_speed")


def image_training() -> str:
    """The speed of training with convolutions as Markdown tables, one for each kind of device it was measured on."""
    return "\n\n".join(
        image_speed(file.stem) for file in sorted((DOCS / "results/benchmarks").glob("image_speed_*.csv"))
    )


def image_speed(benchmark: str) -> str:
    """One device's, and what a GPU's time went into where that was looked at."""
    rates = pd.read_csv(DOCS / f"results/benchmarks/{benchmark}.csv")
    rows = [
        [run.what, f"{run.batch}", f"{run.images_per_second:,} ({run.slowest:,} to {run.fastest:,})",
         f"{run.times_plain:.2f}", f"{run.gflop_per_image}", f"{100 * run.share_of_matrix_rate:.0f} %"]
        for run in rates.itertuples()
    ]  # fmt: skip
    head = ["what", "batch", "image pairs per second", "times plain", "GFLOP a pair"]
    parts = [Table([*head, "of the rate of large matrix products"], rows).markdown()]
    spent = DOCS / f"results/benchmarks/{benchmark.replace('speed', 'time')}.csv"
    if spent.exists():
        wide = pd.read_csv(spent).pivot_table("ms", ["what", "batch"], "kernels", sort=False)
        rows = [
            [what, f"{batch}", *(f"{ms:.2f} ms" for ms in of)]
            for (what, batch), of in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        parts.append(Table(["a round's time by what ran", "batch", *wide.columns], rows).markdown())
    return "\n\n".join([*parts, about_machine(benchmark)])


def scale() -> str:
    """What Snakemake and the bridge cost with many experiments as a Markdown table."""
    costs = pd.read_csv(DOCS / "results/benchmarks/scale.csv")
    kinds = ["state", "command", "bridge"]
    wide = costs.pivot(index=kinds, columns="experiments", values="seconds")
    rows = [
        [state, f"`{command}`", bridge, *(f"{seconds:.1f}" for seconds in wide.loc[(state, command, bridge)])]
        for state, command, bridge in costs[kinds].drop_duplicates().itertuples(index=False)
    ]
    head = ["results", "command", "bridge to DVC", *(f"+ {count:,}" for count in wide.columns)]
    return Table(head, rows).markdown() + "\n\n" + about_machine("scale")


def sharing() -> str:
    """What recording, pushing, pulling and adopting large results costs as a Markdown table."""
    costs = pd.read_csv(DOCS / "results/benchmarks/sharing.csv")
    times = costs["seconds"].map("{:.1f} s".format)
    span = costs["fastest"].map("{:.1f}".format) + " to " + costs["slowest"].map("{:.1f}".format)
    costs["cell"] = times + " (" + span + ")"
    kinds = ["what", "command"]
    wide = costs.pivot(index=kinds, columns="gigabytes", values="cell")
    rows = [
        [what, f"`{command}`", *wide.loc[(what, command)]]
        for what, command in costs[kinds].drop_duplicates().itertuples(index=False)
    ]
    head = ["", "command", *(f"{size:g} GB" if size else "nothing" for size in wide.columns)]
    return Table(head, rows).markdown() + "\n\n" + about_machine("sharing")


def determinism() -> str:
    """How far apart trainings with the same seeds end as a Markdown table."""
    runs = pd.read_csv(DOCS / "results/benchmarks/determinism.csv")
    ends = runs.groupby("what", sort=False).tail(1).set_index("what")
    metrics = {metric: name for metric, name in PLANAR.items() if metric in runs}
    rows = [
        [what, *(f"{distance:.2g}" for distance in of["weights"]),
         *(f"{ends.at[what, metric]:.2g} (sd {ends.at[what, f'{metric}_sd']:.2g})" for metric in metrics)]
        for what, of in runs.groupby("what", sort=False)
    ]  # fmt: skip
    steps = [f"weights after {steps:,} steps" for steps in runs["steps"].unique()]
    return Table(["what", *steps, *metrics.values()], rows).markdown() + "\n\n" + about_machine("determinism")


def about_machine(benchmark: str) -> str:
    """On what a benchmark was run, in one line."""
    about = read_record(DOCS / f"results/benchmarks/{benchmark}.json")
    libraries = {"pillow": "Pillow", "simplejpeg": "simplejpeg", "torchvision": "torchvision", "torch": "PyTorch"}
    libraries |= {"snakemake": "Snakemake", "dvc": "DVC"}
    versions = [f"{name} {about[key]}" for key, name in libraries.items() if key in about]
    versions.append(f"Python {about['python']}")
    machine = dict.fromkeys([about.get("device", about["processor"]), about["processor"]])
    return f"{', '.join(machine)}, {about['cores']} cores; code {about['code']}; {', '.join(versions)}."


TABLES = [
    (Path("README.md"), glance),
    (Path("README.md"), headline),
    (Path("README.md"), claims),
    (DOCS / "results.md", planar),
    (DOCS / "results.md", digits),
    (DOCS / "results.md", images),
    (DOCS / "method.md", judges),
    (DOCS / "method.md", further),
    (DOCS / "method.md", lines),
    (DOCS / "method.md", likelihoods),
    (DOCS / "data.md", speed),
    (DOCS / "data.md", memory),
    (DOCS / "method.md", training),
    (DOCS / "method.md", image_training),
    (DOCS / "method.md", determinism),
    (DOCS / "clusters.md", scale),
    (DOCS / "sharing.md", sharing),
]


def around(page: Path, text: str, table: Callable[[], str]) -> tuple[str, str]:
    """What a page has before and after one of its tables, with the marks; UserError unless each mark is there once."""
    begin, end = f"<!-- {table.__name__}: written by workflow/publish.py -->", f"<!-- end of {table.__name__} -->"
    for mark in (begin, end):
        if (count := text.count(mark)) != 1:
            raise UserError(f"{page} has the line '{mark}' {count} times: write it once, where the table is to be")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    if end in before:
        raise UserError(f"{page} has '{end}' before '{begin}': write it below the table")
    return before, after


def main(arguments: list[str]) -> None:
    if arguments not in (["paper"], ["toy"], ["tables"], ["--check"]):
        sys.exit("write 'python workflow/publish.py paper', 'toy', 'tables' or '--check'")
    parameters.load("params.yaml")  # Refuses a folder that is no project before anything is written there.
    pages = {page: page.read_text() for page, _ in TABLES}
    for page, table in TABLES:
        around(page, pages[page], table)
    if arguments[0] in ("paper", "toy"):
        publish(arguments[0])
    published.cache_clear()
    for page, table in TABLES:
        written = f"\n\n{table()}\n\n".join(around(page, pages[page], table))
        if arguments == ["--check"] and written != pages[page]:
            sys.exit(
                f"{page}'s table of {table.__name__} is not what docs/results says: run 'python workflow/publish.py "
                "tables'"
            )
        pages[page] = written
    for page, text in pages.items():
        if text != page.read_text():
            with whole_file(page) as path:
                path.write_text(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"ddgm: {error}")
    except FileNotFoundError as error:
        sys.exit(f"ddgm: {error.filename} is missing: 'git checkout {error.filename}', or publish its branch again")
