"""The numbers of README.md and docs/ come from the published tables."""

import json
import math
import shutil

import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT, imported
from ddgm.errors import UserError
from ddgm.figures.registry import PHOTOGRAPHS
from ddgm.metrics.claims import judge
from ddgm.metrics.table import write


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """workflow/publish.py in a project with one measured experiment."""
    module = imported("workflow/publish.py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    write_page(tmp_path / "README.md", "glance", "headline", "claims")
    (tmp_path / "docs").mkdir()
    write_page(tmp_path / "docs/results.md", "planar", "digits", "images")
    write_page(tmp_path / "docs/data.md", "speed", "memory")
    write_page(tmp_path / "docs/clusters.md", "scale")
    write_page(tmp_path / "docs/sharing.md", "sharing")
    of_method = ("training", "image_training", "determinism", "judges", "lines", "further", "likelihoods")
    write_page(tmp_path / "docs/method.md", *of_method)
    shutil.copytree(ROOT / "docs/results/benchmarks", tmp_path / "docs/results/benchmarks")
    rows = [("four_spin", seed, "kl_data_model", value) for seed, value in ((0, 1.0), (1, 2.0))]
    rows += [("four_spin", seed, "kl_data_generator", value) for seed, value in ((0, 1.0), (1, math.inf))]
    results = tmp_path / "results/paper"
    digits = {
        "frechet": (2.0, 4.0),
        "frechet_floor": (0.5, 0.5),
        "crossed_8_2_by_3": (0.5, math.nan),
        "coverage": (0.5, 0.75),
    }
    images = {"swd_64": 9.5, "swd_64_floor": 4.25, "spread": 0.9}
    digits |= {f"lines_{a}_{b}": (4, 2) for a, b in ((8, 2), (5, 2), (7, 4))}
    drawn = [("mnist", seed, metric, values[seed]) for metric, values in digits.items() for seed in (0, 1)]
    for name, table in (
        ("four_spin", rows),
        ("mnist", drawn),
        ("celeba", [("celeba", 0, metric, value) for metric, value in images.items()]),
    ):
        write(table, results / f"metrics/{name}.csv")
        (results / f"models/{name}").mkdir(parents=True)
        provenance = {"seconds": 120.0, "device": "cpu: a processor", "threads": 1, "data_source": "subset: a few"}
        (results / f"models/{name}/provenance.json").write_text(json.dumps(provenance))
    test = {"experiment": "four_spin", "metric": "kl_data_model", "at": None, "seeds": None}
    at_most = [{**test, "comparison": "at most", "threshold": threshold} for threshold in (1.0, 2.0)]
    judge(
        {"fits": {"says": "The energy fits", "figure": "measures", "tests": at_most}},
        {"Eq. 15, the paper's": ["four_spin"]},
        {"four_spin": sorted({seed for _, seed, *_ in rows})},
        results,
        results / "metrics/claims.csv",
    )
    passed = [("mnist", 0, 8, 2, 3, 0.5, 4), ("mnist", 0, 8, 2, 9, 0.5, 4), ("mnist", 1, 8, 2, 6, 1.0, 2)]
    (results / "crossings").mkdir()
    head = ["experiment", "seed", "from", "to", "between", "share", "paths"]
    pd.DataFrame(passed, columns=head).to_csv(results / "crossings/mnist.csv", index=False)
    judged = results / "classifiers/mnist"
    judged.mkdir(parents=True)
    (judged / "accuracy.csv").write_text("dataset,seed,metric,value\nmnist,0,accuracy,0.994\nmnist,1,accuracy,0.992\n")
    (judged / "provenance.json").write_text(json.dumps(provenance))
    likely = [("mnist", seed, "log_partition", 50.0 + seed) for seed in (0, 1)]
    write([*likely, ("mnist", 0, "log_likelihood_uniform", 0.0)], results / "likelihoods/mnist.csv")
    (tmp_path / "results/paper/figures").mkdir()
    for figure in PHOTOGRAPHS:
        Image.new("RGB", (30, 20)).save(tmp_path / f"results/paper/figures/{figure}_celeba.png")
    Image.new("RGB", (30, 20), (200, 30, 40)).save(tmp_path / "results/paper/figures/fig2.png")
    return module


def test_at_a_glance_a_claim_has_its_tests_and_numbers_and_what_is_missing_is_said(publish, tmp_path, monkeypatch):
    rows = [
        ("It fits", ["fits"], "{four_spin[kl_data_model]:.1f} nats"),
        ("It works", ["x"], "{lsun_bedroom[swd]:.1f}"),
    ]
    monkeypatch.setattr(publish, "GLANCE", rows)
    publish.main(["paper"])
    page = (tmp_path / "README.md").read_text()
    assert "| It fits | The ◐ 1 of 2 | 1.5 nats |" in page and "| It works | not tested | not measured yet |" in page


def write_page(path, *tables):
    marks = [f"<!-- {table}: written by workflow/publish.py -->\n\n<!-- end of {table} -->" for table in tables]
    path.write_text("\n\n".join(["# before", *marks, "after\n"]))


def test_a_published_experiment_is_a_row_with_mean_sd_seeds_and_time(publish, tmp_path):
    publish.main(["paper"])
    text = (tmp_path / "docs/results.md").read_text()
    row = "| four-spin, Eq. 15 (`four_spin`) | 2 | 1.500 ± 0.707 | ∞ in 1 of 2 | "
    assert row in text and row in (tmp_path / "README.md").read_text()
    floor = "| `celeba` (subset: a few), some of it against the rest |  | 4.250 |  |  |"
    celeba = "| CelebA (`celeba`) | 1 | 9.500 | 0.900 | 2 min, cpu: a processor, 1 thread(s) |"
    head = "| experiment | seeds | sliced Wasserstein: 64 pixels | variance | trained in |"
    assert "\n".join([head, "|---|---|---|---|---|", floor, celeba]) in text
    assert text.startswith("# before") and text.endswith("after\n")
    assert Image.open(tmp_path / "docs/figures/paper_fig2.png").convert("RGB").getpixel((5, 5)) == (200, 30, 40)
    assert (tmp_path / "docs/results/paper/four_spin.provenance.json").exists()


def test_a_training_of_less_than_a_minute_is_told_in_seconds(publish):
    assert [publish.tables.took(seconds) for seconds in (26.2, 59.4, 60, 100)] == ["26 s", "59 s", "1 min", "2 min"]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"mean": 1.5, "sd": 0.213}, "kl not at most 1: `a` 1.5 ± 0.21"),
        ({"mean": 1.5, "sd": 0.6}, "kl not at most 1: `a` 1.5 ± 0.6 (within one sd)"),
        ({"mean": 0.9, "sd": 0.6, "holds": True}, "kl at most 1: `a` 0.9 ± 0.6 (within one sd)"),
        ({"mean": 0.9, "sd": 0.05, "holds": True}, ""),
        ({"mean": math.inf, "sd": math.nan}, "kl not at most 1: `a` inf"),
        ({"mean": math.nan, "sd": math.nan}, "kl not at most 1: `a` not measured in every seed"),
        ({"wanted": "5 seeds", "mean": 0.6, "sd": 0.5}, "kl not at most 1 in 5 seeds: `a` 0.6 on average"),
    ],
)
def test_what_a_claim_fails_or_only_just_passes_is_said_as_it_was_asked(test, words, publish):
    row = {"experiment": "a", "metric": "kl", "comparison": "at most", "threshold": 1.0, "holds": False}
    assert publish.tables.remarks(pd.DataFrame([row | {"wanted": "the mean"} | test])) == words


def test_what_several_experiments_fail_is_said_once(publish):
    row = {"metric": "kl", "comparison": "at most", "threshold": 1.0, "holds": False, "wanted": "the mean", "sd": 0.0}
    rows = [row | {"experiment": name, "mean": mean} for name, mean in (("a", 2), ("b", 3))]
    other = row | {"experiment": "a", "metric": "tv", "mean": 4}
    words = "kl not at most 1: `a` 2, `b` 3; tv not at most 1: `a` 4"
    assert publish.tables.remarks(pd.DataFrame([rows[0], other, rows[1]])) == words


def test_nothing_is_published_of_a_model_whose_provenance_is_not_here(publish, tmp_path):
    (tmp_path / "results/paper/models/mnist/provenance.json").unlink()
    with pytest.raises(
        UserError, match=r"mnist/provenance\.json is missing, and .*mnist\.csv is published with it: 'dvc"
    ):
        publish.main(["paper"])
    assert not (tmp_path / "docs/results/paper").exists() and not (tmp_path / "docs/figures").exists()


def test_of_a_branch_that_has_nothing_yet_nothing_is_published_and_that_is_said(publish, tmp_path):
    shutil.rmtree(tmp_path / "results/toy", ignore_errors=True)
    with pytest.raises(UserError, match=r"^results/toy has nothing to publish: make some of it"):
        publish.publish("toy")


def test_curves_are_published_with_the_numbers_they_are_drawn_from(publish, tmp_path):
    picture = tmp_path / "results/paper/figures/fig4_curves_mnist.png"
    Image.new("RGB", (10, 10)).save(picture)
    with pytest.raises(UserError, match=r"mnist/history\.csv is missing, and .*fig4_curves_mnist\.png is published"):
        publish.main(["paper"])
    assert not (tmp_path / "docs/results/paper").exists()
    (tmp_path / "results/paper/models/mnist/history.csv").write_text("seed,step\n0,50\n")
    publish.main(["paper"])
    assert (tmp_path / "docs/results/paper/histories/mnist.csv").read_text() == "seed,step\n0,50\n"


def test_nothing_is_published_of_a_classifier_whose_provenance_is_not_here(publish, tmp_path):
    (tmp_path / "results/paper/classifiers/mnist/provenance.json").unlink()
    with pytest.raises(UserError, match=r"mnist/provenance\.json is missing, and .*accuracy\.csv is published with it"):
        publish.main(["paper"])
    assert not (tmp_path / "docs/results/paper").exists() and not (tmp_path / "docs/figures").exists()


@pytest.mark.parametrize("harm", ["", "<!-- end of sharing --> <!-- end of sharing -->"])
def test_a_page_without_a_mark_is_one_sentence_and_nothing_is_written(harm, publish, tmp_path):
    page = tmp_path / "docs/sharing.md"
    page.write_text(page.read_text().replace("<!-- end of sharing -->", harm))
    before = {page: page.read_bytes() for page in tmp_path.rglob("*.md")}
    with pytest.raises(
        UserError, match=r"docs/sharing\.md has the line '<!-- end of sharing -->' [02] times: write it"
    ):
        publish.main(["paper"])
    assert {page: page.read_bytes() for page in tmp_path.rglob("*.md")} == before
    assert not (tmp_path / "docs/results/paper").exists()


def test_where_one_table_cannot_be_made_no_page_is_changed(publish, tmp_path):
    (tmp_path / "docs/results/benchmarks/sharing.csv").unlink()
    before = {page: page.read_bytes() for page in tmp_path.rglob("*.md")}
    with pytest.raises(FileNotFoundError):
        publish.main(["tables"])
    assert {page: page.read_bytes() for page in tmp_path.rglob("*.md")} == before


def test_figures_that_show_photographs_are_never_copied(publish, tmp_path):
    publish.main(["paper"])
    assert [path.name for path in (tmp_path / "docs/figures").iterdir()] == ["paper_fig2.png"]


def test_digits_have_a_table_of_their_own_that_begins_with_what_training_digits_score(publish, tmp_path):
    publish.main(["paper"])
    lines = [line for line in (tmp_path / "docs/results.md").read_text().splitlines() if "|" in line]
    floor = next(line for line in lines if line.startswith("| digits of the training set |"))
    measured = next(line for line in lines if "(`mnist`)" in line)
    assert "| 0.500 |" in floor and "| 2 |" in measured and "| 3.000 ± 1.414 |" in measured
    method = (tmp_path / "docs/method.md").read_text()
    assert "| mnist | 2 | 99.30 ± 0.14 % | 99.20 % | 2 min |" in method
    assert "| 0.500 in 1 of 2 of 6 | " in method and "| 3=9, 6; none, none; " in method
    assert "| 0.625 ± 0.177 |" in method
    assert "| `mnist` | 50.5 ± 0.7 |" in method


def test_writing_twice_changes_nothing_and_an_edited_number_is_noticed(publish, tmp_path):
    publish.main(["paper"])
    pages = [tmp_path / "README.md", tmp_path / "docs/data.md"]
    before = [page.read_text() for page in pages]
    publish.main(["tables"])
    assert [page.read_text() for page in pages] == before
    publish.main(["--check"])
    pages[0].write_text(before[0].replace("1.500", "0.500"))
    with pytest.raises(SystemExit, match=r"README\.md's table of headline is not what docs/results says"):
        publish.main(["--check"])


def test_the_speed_of_the_preparation_is_a_table_with_spread_and_machine(publish, tmp_path):
    publish.main(["tables"])
    text = (tmp_path / "docs/data.md").read_text()
    assert "| torchvision CenterCrop(148), Resize(64), DataLoader |" in text and "| 1.00 |" in text
    assert " to " in text and "simplejpeg" in text and " MB |" in text


def test_a_claim_is_a_row_with_its_verdict_and_what_does_not_hold(publish, tmp_path):
    publish.main(["paper"])
    failed = "kl_data_model not at most 1: `four_spin` 1.5 ± 0.71 (within one sd)"
    assert "| claim | Eq. 15, the paper's | what does not hold, or only just |" in (tmp_path / "README.md").read_text()
    only_just = "kl_data_model at most 2: `four_spin` 1.5 ± 0.71 (within one sd)"
    assert f"| The energy fits | ◐ 1 of 2 | {failed}; {only_just} |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "docs/results/paper/claims.csv").exists()


TRAINING = """experiment,what,threads,steps,seed_steps_per_second,slowest,fastest,times_plain,compilation_seconds
four_spin,ddgm,1,1000,1500,1400,1600,5.00,31.4
four_spin,ddgm,2,1000,1200,1100,1300,4.00,33.0
four_spin,plain PyTorch,1,1000,300,290,310,1.00,0.0
four_spin,plain PyTorch,2,1000,250,240,260,0.83,0.0
"""


def test_each_loop_is_shown_with_the_threads_it_is_fastest_with(publish, tmp_path):
    (tmp_path / "docs/results/benchmarks/training_speed.csv").write_text(TRAINING)
    about = {"python": "3", "cores": 2, "code": "c", "processor": "a processor", "torch": "2"}
    (tmp_path / "docs/results/benchmarks/training_speed.json").write_text(json.dumps(about))
    publish.main(["tables"])
    text = (tmp_path / "docs/method.md").read_text()
    assert "| `four_spin` | ddgm | 1 | 1,500 (1,400 to 1,600) | 5.00 | 31 s, once |" in text
    assert "| `four_spin` | plain PyTorch | 1 | 300 (290 to 310) | 1.00 | none |" in text
    assert "1,200" not in text and "a processor, 2 cores; code c; PyTorch 2, Python 3." in text


def test_a_table_that_was_never_measured_says_so(publish, tmp_path):
    (tmp_path / "docs/results/benchmarks/training_speed.csv").unlink(missing_ok=True)
    publish.main(["tables"])
    assert "Not measured yet: `make bench` does." in (tmp_path / "docs/method.md").read_text()
