"""The toy branch for real, in a temporary copy of the project, and what a user sees around it."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from conftest import PARAMETERS, ROOT
from ddgm import record
from ddgm.figures.registry import FIGURES
from ddgm.parameters import LOADER
from ddgm.provenance import checksum

BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(not (BIN / "snakemake").exists(), reason="needs Snakemake: make setup"),
]


def run(project, command, code=0):
    """What a command says on both its channels, run in a project whose own sources come first."""
    # No cluster of the user's, and none of his settings.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE_", "DVC_"))}
    done = subprocess.run(
        command, shell=True, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**inherited, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(project / "src"),
             "PYTHONDONTWRITEBYTECODE": "1", "DDGM_BRIDGE": "off"},
    )  # fmt: skip
    assert done.returncode == code, f"{command} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


TOY_CLAIMS = list(PARAMETERS["branches"]["toy"]["claims"])
TOY_SETS = ["four_spin", "two_spiral", "toy_digits", "toy_faces", "toy_rooms"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of every file that git tracks or would track, as it is in the working tree."""
    copy = tmp_path_factory.mktemp("pipeline") / "project"
    listed = run(ROOT, "git ls-files --cached --others --exclude-standard -z").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
            (copy / name).chmod((ROOT / name).stat().st_mode)
    return copy


@pytest.fixture(scope="module")
def toy(project):
    """The project with its toy branch made; of the nets for images, which no test judges, a fifth of the steps."""
    file = project / "params.yaml"
    text = file.read_text()
    assert text.count("steps: 500, batch: 24,") == 2
    file.write_text(text.replace("steps: 500, batch: 24,", "steps: 100, batch: 24,"))
    run(project, "snakemake --cores 2 toy")
    return project


def test_every_figure_of_the_toy_branch_is_a_picture(toy):
    figures = toy / "results/toy/figures"
    shown = PARAMETERS["branches"]["toy"]
    names = []
    for name, figure in FIGURES.items():
        names += [f"{name}_{experiment}" for experiment in shown[figure.shows]] if figure.each else [name]
    names += [f"sheet_{name}" for name in TOY_SETS] + [f"claim_{name}" for name in TOY_CLAIMS]
    for name in names:
        picture = np.asarray(Image.open(figures / f"{name}.png").convert("RGB"))
        assert min(picture.shape[:2]) > 300 and picture.std() > 5, f"{name} is blank"
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert {path.stem for path in figures.iterdir()} == set(names)


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
# What a reader's browser finds in the page, as the title of what is dumped.
FOUND = """<script>
addEventListener("load", () => {
  const pictures = [...document.images];
  document.title = JSON.stringify({
    pictures: pictures.length,
    broken: pictures.filter(picture => !picture.complete || !picture.naturalWidth).length,
    fetched: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length,
    wider: document.documentElement.scrollWidth - innerWidth,
    places: [...document.links].filter(link => !document.querySelector(link.hash)).length,
  });
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium: write 'apt-get install chromium'")
def test_the_report_opens_in_a_browser_without_network_and_shows_every_picture(toy, tmp_path):
    report = toy / "results/toy/report.html"
    assert report.stat().st_size < 10_000_000

    def browse(what, page):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
        command += ["--virtual-time-budget=20000", "--window-size=1280,3000", what, f"file://{page}"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    asked = tmp_path / "asked.html"
    asked.write_text(report.read_text().replace("</body>", f"{FOUND}</body>"))
    title = re.search("<title>(.*?)</title>", browse("--dump-dom", asked))[1]
    found = json.loads(html.unescape(title))
    drawn = len(list((toy / "results/toy/figures").glob("*.png")))
    assert found == {"pictures": drawn, "broken": 0, "fetched": 0, "wider": 0, "places": 0}
    browse(f"--screenshot={tmp_path / 'report.png'}", report)
    seen = np.asarray(Image.open(tmp_path / "report.png").convert("L"))
    # Text and figures all the way down: no band of it is empty.
    assert seen.shape == (3000, 1280) and all(band.std() > 10 for band in np.split(seen, 10))


def test_every_experiment_of_the_toy_branch_is_measured(toy):
    summary = pd.read_csv(toy / "results/toy/metrics.csv")
    branch = PARAMETERS["branches"]["toy"]
    lists = ("fig2", "fig3", "fig4", "compared")
    assert set(summary["experiment"]) == {name for figure in lists for name in branch[figure]}
    assert summary["mean"].notna().all()
    # A GAN may lose modes, and is there to show it.
    planar = summary[(summary["metric"] == "kl_data_generator") & ~summary["experiment"].str.endswith("_gan")]
    assert set(planar["experiment"]) == {"toy_four_spin", "toy_two_spiral"}
    assert (planar["mean"] < 1.5).all(), "a trained generator is nearer to the data than a blind one"
    digits = summary[(summary["experiment"] == "toy_digits") & (summary["metric"] == "auroc_noise")]
    assert (digits["mean"] > 0.9).all(), "a trained energy tells digits from noise"


def test_every_result_of_the_toy_branch_has_the_record_of_its_job(toy):
    results = toy / "results"
    recorded = {file: about for _, about in record.read(results) for file in about["files"]}
    made = [path for path in sorted(results.glob("toy/**/*")) if path.is_file()]
    made = [path for path in made if path.relative_to(results / "toy").parts[0] not in ("provenance", "state")]
    assert len(made) > 100
    for path in made:
        name = path.relative_to(toy).as_posix()
        assert recorded[name]["files"][name] == checksum(path, "md5"), name
        assert recorded[name]["versions"]["ddgm"] and recorded[name]["device"].startswith("cpu: ")
    assert ", and all match" in run(toy, "ddgm verify")


def test_every_claim_of_the_toy_branch_has_a_verdict(toy):
    verdicts = pd.read_csv(toy / "results/toy/metrics/claims.csv")
    branch = PARAMETERS["branches"]["toy"]
    tests = [(claim, test["metric"]) for claim, about in branch["claims"].items() for test in about["tests"]]
    assert list(zip(verdicts["claim"], verdicts["metric"], strict=True)) == tests
    assert set(verdicts["verdict"]) <= {"reproduced", "partly", "not reproduced"}
    integrable = verdicts[verdicts["claim"] == "energy_is_integrable"]
    assert (integrable["verdict"] == "reproduced").all(), "bounded features and a quadratic term"


def test_digits_are_judged_by_a_classifier_that_knows_them_and_have_a_likelihood(toy):
    results = toy / "results/toy"
    judged = pd.read_csv(results / "classifiers/toy_digits/accuracy.csv")
    assert (judged["value"] > 0.95).all(), "of the digits that it was not trained on"
    table = pd.read_csv(results / "metrics/toy_digits.csv").set_index("metric")["value"]
    assert table["frechet"] > table["frechet_floor"] and table["classes_found"] >= 8
    branch = PARAMETERS["branches"]["toy"]
    assert {path.stem for path in (results / "likelihoods").iterdir()} == set(branch["annealed"])
    planar = pd.read_csv(results / "likelihoods/toy_two_spiral.csv").pivot(
        index="seed", columns="metric", values="value"
    )
    assert (planar["log_partition"] - planar["log_partition_quadrature"]).abs().max() < 0.5


def test_traces_and_chains_are_tables_with_a_row_for_each_seed(toy):
    branch = PARAMETERS["branches"]["toy"]
    for folder, names in (("traces", branch["traced"]), ("mixing", branch["mixed"])):
        assert {path.stem for path in (toy / "results/toy" / folder).iterdir()} == set(names)
        for name in names:
            assert set(pd.read_csv(toy / f"results/toy/{folder}/{name}.csv")["seed"]) == {0, 1}, name


def test_what_is_made_is_not_made_again(toy):
    assert "Nothing to be done" in run(toy, "snakemake -n toy")


def test_a_log_of_each_training_says_what_was_chosen(toy):
    rows = yaml.load((toy / "params.yaml").read_text(), LOADER)["experiments"]
    for log in (toy / "logs/train/toy").iterdir():
        said, row = log.read_text(), rows[log.stem]
        assert said.startswith(f"experiment    {log.stem}\n")
        for key in ("precision", "negative", "schedule", "watch"):
            assert f"\n{key:<13} {row[key]}\n" in said, key


def test_nothing_half_made_is_left(toy):
    left = [path for folder in ("data", "results") for path in (toy / folder).rglob(".*")]
    assert left == []
    assert list((toy / "results/toy/state").rglob("*.pt")) == []


def test_the_whole_paper_is_planned_without_data_and_without_a_network(project):
    planned = run(project, "snakemake -n all")
    for name in ("img_align_celeba.zip", "bedroom_train_lmdb.zip", "train-images-idx3-ubyte.gz", "metrics.csv"):
        assert name in planned, name


def test_all_that_needs_no_gpu_is_one_target(project):
    planned = run(project, "snakemake -n cpu")
    rows = PARAMETERS
    shown = [name for key in ("fig2", "fig3", "compared") for name in rows["branches"]["paper"][key]]
    for name in shown:
        is_of_images = rows["datasets"][rows["experiments"][name]["dataset"]]["kind"] in ("celeba", "lsun")
        assert (f"results/paper/metrics/{name}.csv" in planned) != is_of_images, name
    for made in ("draw_fig1", "draw_fig2_extended", "draw_fig2_curves", "draw_fig3_steps", "draw_claim", "anneal"):
        assert made in planned, made
    assert not any(word in planned for word in ("celeba", "lsun", "draw_fig4", "draw_curves"))


@pytest.mark.parametrize("target", ["fig1", "fig2", "fig3", "fig4"])
def test_a_figure_is_a_target_that_needs_nothing_of_the_others(target, project):
    planned = run(project, f"snakemake -n --forceall {target}")
    others = {"fig1", "fig2", "fig3", "fig4"} - {target}
    assert f"draw_{target}" in planned and not [other for other in others if f"draw_{other}" in planned]


def test_the_data_sets_of_a_branch_are_described(toy):
    tables = pd.concat([pd.read_csv(toy / f"results/toy/data/{name}.csv") for name in TOY_SETS])
    counts = tables[tables["measure"] == "examples"].groupby("dataset")["value"].sum()
    assert counts["toy_digits"] == 1797 and counts["toy_faces"] == 600 and counts["toy_rooms"] == 400
    assert tables.set_index("dataset")["source"]["toy_faces"].iloc[0] == "drawn by code: 600 pictures, seed 0"
    assert (tables[tables["measure"] == "left_out"]["value"] == 0).all()


def test_all_data_of_the_paper_is_one_target(project):
    planned = run(project, "snakemake -n --forceall data")
    for name in ("mnist", "celeba", "lsun_bedroom", "four_spin", "two_spiral"):
        assert f"Drawing a sheet of {name}" in planned and f"Describing {name}" in planned
        assert f"Preparing the train split of {name}" in planned
    assert "Training" not in planned


def test_another_crop_does_not_download_again(project):
    stages = yaml.load((project / "dvc.yaml").read_text(), LOADER)["stages"]
    keys = stages["fetch-celeba-img_align_celeba_zip"]["params"]
    assert keys == ["datasets.celeba.kind", "datasets.celeba.draw"]


@pytest.mark.parametrize(
    "file",
    [
        "celeba/img_align_celeba.zip",
        "lsun_bedroom/bedroom_val_lmdb.zip",
        "inception/pt_inception-2015-12-05-6726825d.pth",
    ],
)
def test_a_mirror_without_the_file_stops_with_the_sentence_and_leaves_nothing(file, project, tmp_path, monkeypatch):
    monkeypatch.setenv("DDGM_MIRROR", str(tmp_path))
    said = run(project, f"snakemake data/raw/{file}", code=1)
    assert "ddgm: the mirror has no readable file" in said and "Traceback" not in said
    assert not (project / "data/raw" / file).exists()


def test_the_weights_of_inception_are_no_input_that_stops_the_rest(project):
    planned = run(project, "snakemake -n --forceall results/paper/metrics/celeba.csv")
    assert "Measuring the images of celeba against themselves" in planned and "Measuring celeba" in planned
    assert "data/raw/inception" not in planned


def test_a_subset_is_refused_where_it_is_not_declared_and_prepared_where_it_is(project, mirror, monkeypatch):
    monkeypatch.setenv("DDGM_MIRROR", str(mirror))
    said = run(project, "snakemake --cores 1 data/raw/lsun_bedroom/bedroom_val_lmdb.zip", code=1)
    assert "is not bedroom_val_lmdb.zip as published" in said and "Traceback" not in said
    assert 'checksums: {bedroom_val_lmdb.zip: "sha256:' in said
    run(project, "snakemake --cores 2 results/paper/data/lsun_stand_in.csv")
    table = pd.read_csv(project / "results/paper/data/lsun_stand_in.csv")
    assert table[table["measure"] == "examples"]["value"].tolist() == [434, 100]
    assert table["source"].str.startswith("subset: ").all()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "reuse_latent: false",
            "reuse_latents: false",
            "has an unknown key 'reuse_latents': did you mean 'reuse_latent'?",
        ),
        ("dataset: mnist", "dataset: minst", "is 'minst', which is no data set: did you mean 'mnist'?"),
        ("kind: alternating, steps:", "kind: alternating steps:", "ddgm: params.yaml is not YAML at line "),
    ],
)
def test_a_mistake_in_params_yaml_stops_before_the_first_job(old, new, sentence, project):
    committed = (project / "params.yaml").read_text()
    assert old in committed
    (project / "params.yaml").write_text(committed.replace(old, new, 1))
    try:
        said = run(project, "snakemake -n toy", code=1)
    finally:
        (project / "params.yaml").write_text(committed)
    assert sentence in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("figures/fig3_mnits.png", "experiments has no entry 'mnits': did you mean 'mnist'? allowed are "),
        ("figures/fig3_steps_mnits.png", "experiments has no entry 'mnits': did you mean 'mnist'? allowed are "),
        (
            "figures/fig3_four_spin.png",
            "fig3 is for data that are digits, and those of four_spin are two-dimensional: ",
        ),
        (
            "figures/fig4_curves_mnist.pdf",
            "fig4_curves is for data that are colour images, and those of mnist are digits",
        ),
        (
            "figures/claim_energy_fits.png",
            "claims has no entry 'energy_fits': did you mean 'energy_fits_data'? allowed ",
        ),
        ("metrics/mnits.csv", "experiments has no entry 'mnits': did you mean 'mnist'? allowed are "),
        ("traces/mnist.csv", "trace is for data that are two-dimensional, and those of mnist are digits: "),
        ("mixing/mnits.csv", "experiments has no entry 'mnits': did you mean 'mnist'? allowed are "),
        ("data/celeb.csv", "datasets has no entry 'celeb': did you mean 'celeba'? allowed are four_spin, "),
    ],
)
def test_a_target_of_a_wrong_name_stops_before_the_first_job_in_one_sentence(target, sentence, project):
    said = run(project, f"snakemake -n results/paper/{target}", code=1)
    assert sentence in said and "Traceback" not in said and len(said.splitlines()[-1]) < 1000


@pytest.mark.parametrize(
    "command",
    [
        "ruff check .",
        "ruff format --check .",
        "snakefmt --check Snakefile workflow",
        "snakemake --lint",
        "python workflow/engines.py check",
        "python workflow/publish.py --check",
    ],
)
def test_the_sources_are_clean(command, project):
    run(project, command)
