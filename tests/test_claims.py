"""Verdicts on the paper's claims follow from small tables as they should."""

import math
import shutil

import pandas as pd
import pytest

from conftest import ROOT
from ddgm import cli
from ddgm.errors import UserError
from ddgm.figures import claims as figures
from ddgm.metrics import claims
from ddgm.metrics.claims import holds, judge, values_of, verdict


def a_test(**changed):
    return {
        "experiment": "spin", "metric": "kl", "at": None, "comparison": "at most",
        "threshold": 0.5, "seeds": None,
    } | changed  # fmt: skip


SEEDS = {"spin": [0, 1], "rival": [0, 1]}
METRICS = pd.DataFrame(
    [("spin", 0, "kl", 0.1), ("spin", 1, "kl", 0.3), ("spin", 0, "modes", 1.0), ("spin", 1, "modes", 0.5)],
    columns=["experiment", "seed", "metric", "value"],
)
TRACE = pd.DataFrame(
    [("spin", seed, step, "cosine", seed + step / 100) for seed in (0, 1) for step in (16, 100, 20)],
    columns=["experiment", "seed", "step", "metric", "value"],
)
CHAINS, GENERATOR = "Langevin from one mode", "generator"
MIXING = pd.DataFrame(
    [
        ("spin", seed, *row)
        for seed in (0, 1)
        for row in (
            (GENERATOR, 1, 0.01, "error", 0.02),
            (CHAINS, 0, 0.0, "error", 0.75),
            (CHAINS, 500, 9.0, "error", 0.6),
            (CHAINS, 500, 9.0, "slowdown", math.inf),
        )
    ],
    columns=["experiment", "seed", "sampler", "step", "seconds", "metric", "value"],
)


def test_a_metric_has_a_value_for_each_seed():
    assert values_of(a_test(), METRICS).to_dict() == {0: 0.1, 1: 0.3}


def test_a_threshold_may_be_so_many_times_what_a_metric_is(tmp_path):
    (tmp_path / "metrics").mkdir()
    METRICS.to_csv(tmp_path / "metrics/spin.csv", index=False)
    METRICS.assign(experiment="rival", value=METRICS["value"] * 5).to_csv(tmp_path / "metrics/rival.csv", index=False)
    tests = [
        a_test(threshold={"experiment": "rival", "metric": "kl", "at": None, "times": times}) for times in (0.5, 0.1)
    ]
    judge({"better": {"says": "x", "figure": "measures", "tests": tests}}, {}, SEEDS, tmp_path, tmp_path / "c.csv")
    table = pd.read_csv(tmp_path / "c.csv")
    assert table["threshold"].tolist() == pytest.approx([0.5, 0.1]) and table["holds"].tolist() == [True, False]
    assert table["against"].tolist() == ["0.5 times kl of rival", "0.1 times kl of rival"]
    of_itself = a_test(metric="modes", threshold={"experiment": "spin", "metric": "kl", "at": None, "times": 4.0})
    better = {"says": "x", "figure": "measures", "tests": [of_itself]}
    judge({"better": better}, {}, SEEDS, tmp_path, tmp_path / "c.csv")
    assert pd.read_csv(tmp_path / "c.csv")[["mean", "threshold", "holds"]].values.tolist() == [[0.75, 0.8, True]]


def test_the_end_of_a_trace_may_be_compared_with_its_beginning(tmp_path):
    (tmp_path / "traces").mkdir()
    TRACE.to_csv(tmp_path / "traces/spin.csv", index=False)
    before = {"experiment": "spin", "metric": "cosine", "at": "first", "times": 1.0}
    tests = [a_test(metric="cosine", at="last", comparison=side, threshold=before) for side in ("at least", "at most")]
    judge({"grows": {"says": "x", "figure": "traces", "tests": tests}}, {}, SEEDS, tmp_path, tmp_path / "c.csv")
    table = pd.read_csv(tmp_path / "c.csv")
    assert table[["mean", "threshold"]].values.tolist() == [[1.5, 0.66]] * 2
    assert table["holds"].tolist() == [True, False]
    assert set(table["against"]) == {"1 times cosine of spin at first"}


def test_a_mean_over_seeds_of_which_one_could_not_be_measured_does_not_hold():
    assert not holds(a_test(), pd.Series([0.1, math.nan]))
    assert holds(a_test(seeds=1), pd.Series([0.1, math.nan]))


@pytest.mark.parametrize(("at", "step"), [("first", 16), ("last", 100)])
def test_a_trace_is_looked_at_where_it_begins_or_ends(at, step):
    """By its steps and not by the order of its rows."""
    found = values_of(a_test(metric="cosine", at=at), TRACE)
    assert found.to_dict() == {0: step / 100, 1: 1 + step / 100}


def test_a_sampler_is_looked_at_at_its_last_step():
    chains = a_test(metric="error", at=CHAINS)
    assert values_of(chains, MIXING).tolist() == [0.6] * 2
    assert values_of(chains | {"at": GENERATOR}, MIXING).tolist() == [0.02] * 2
    assert values_of(chains | {"metric": "slowdown"}, MIXING).tolist() == [math.inf] * 2


@pytest.mark.parametrize(
    ("test", "table", "sentence"),
    [
        (a_test(metric="kll"), METRICS, "asks for kll of spin, and its table has none: allowed are kl, modes"),
        (
            a_test(metric="slowdown", at=GENERATOR),
            MIXING,
            "asks for slowdown at 'generator' of spin, and its table has none",
        ),
        (a_test(metric="kl", at="last"), TRACE, "its table has none: allowed are cosine"),
    ],
)
def test_what_the_table_does_not_have_is_one_sentence(test, table, sentence):
    with pytest.raises(UserError) as error:
        values_of(test, table)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "comparison", "threshold", "seeds", "expected"),
    [
        ([0.1, 0.8], "at most", 0.5, None, True),  # the mean is 0.45
        ([0.1, 0.8], "at most", 0.4, None, False),
        ([0.1, 0.8], "at least", 0.4, None, True),
        ([0.5, 0.5], "at most", 0.5, None, True),  # the threshold itself is allowed
        ([1.0, 1.0], "at least", 1.0, None, True),
        ([1.0, 0.9, 1.0], "at least", 1.0, 2, True),  # so many seeds
        ([1.0, 0.9, 1.0], "at least", 1.0, 3, False),
        ([0.1, 0.2, 9.0], "at most", 0.3, 2, True),  # a mean would say no
        ([math.inf, math.inf], "at least", 100, None, True),
        ([math.inf, 5.0], "at least", 100, None, True),  # one that never arrived makes the mean infinite
        ([math.inf, 5.0], "at least", 100, 2, False),
        ([0.1, math.inf], "at most", 0.15, None, False),
        ([math.nan, 1.0], "at least", 0.5, 2, False),  # what is no number holds nothing
    ],
)
def test_a_test_holds_by_the_mean_or_by_so_many_seeds(values, comparison, threshold, seeds, expected):
    test = a_test(comparison=comparison, threshold=threshold, seeds=seeds)
    assert holds(test, pd.Series(values)) is expected


def test_a_verdict_is_partly_when_some_tests_hold():
    assert verdict([True, True]) == "reproduced"
    assert verdict([True, False]) == verdict([False, True]) == "partly"
    assert verdict([False, False]) == "not reproduced"


@pytest.fixture
def folder(tmp_path):
    """A branch's results with one table of each kind."""
    for kind, table in (("metrics", METRICS), ("traces", TRACE), ("mixing", MIXING)):
        (tmp_path / kind).mkdir()
        table.to_csv(tmp_path / kind / "spin.csv", index=False)
    return tmp_path


CLAIMS = {
    "follows": {
        "says": "(a) It follows",
        "figure": "measures",
        "tests": [a_test(threshold=0.2), a_test(metric="modes", comparison="at least", threshold=1.0, seeds=2)],
    },
    "converges": {
        "says": "(f) It converges, at the end",
        "figure": "traces",
        "tests": [a_test(metric="cosine", at="last", comparison="at least", threshold=0.9)],
    },
    "mixes": {
        "says": "(c) It mixes",
        "figure": "mixing",
        "tests": [
            a_test(metric="slowdown", at=CHAINS, threshold=1.0),
            a_test(metric="error", at=CHAINS, threshold=0.1),
        ],
    },
}


RECIPES = {"the paper's": ["spin"]}


def test_each_test_is_a_row_with_its_claims_verdict(folder):
    judge(CLAIMS, RECIPES, SEEDS, folder, folder / "claims.csv")
    rows = pd.read_csv(folder / "claims.csv")
    assert list(rows.columns) == claims.COLUMNS
    assert rows["claim"].tolist() == ["follows", "follows", "converges", "mixes", "mixes"]
    assert rows["verdict"].tolist() == ["partly", "partly", "reproduced", "not reproduced", "not reproduced"]
    assert rows["holds"].tolist() == [True, False, True, False, False]
    assert rows["wanted"].tolist() == ["the mean", "2 seeds", "the mean", "the mean", "the mean"]
    assert rows["mean"].tolist() == pytest.approx([0.2, 0.75, 1.5, math.inf, 0.6])
    assert rows["sd"][0] == pytest.approx(0.1414, rel=1e-3) and math.isnan(rows["sd"][3])
    assert rows["seeds"].tolist() == [2, 2, 2, 2, 2] and rows["says"][2] == "(f) It converges, at the end"


def test_a_verdict_is_of_one_recipe_and_rivals_have_their_own(folder):
    METRICS.assign(experiment="rival").to_csv(folder / "metrics/rival.csv", index=False)
    tests = [a_test(threshold=0.2), a_test(experiment="rival", threshold=0.1), a_test(threshold=0.3)]
    judge({"follows": CLAIMS["follows"] | {"tests": tests}}, RECIPES, SEEDS, folder, folder / "claims.csv")
    rows = pd.read_csv(folder / "claims.csv")
    assert rows["recipe"].tolist() == ["the paper's", claims.OTHERS, "the paper's"]
    assert rows["holds"].tolist() == [True, False, True]
    assert rows["verdict"].tolist() == ["reproduced", "not reproduced", "reproduced"]


def test_a_mean_that_leaves_no_seed_out_is_written_where_the_mean_is_asked_for(tmp_path):
    rows = [("spin", 0, "kl", 0.1), ("spin", 1, "kl", math.nan)]
    (tmp_path / "metrics").mkdir()
    pd.DataFrame(rows, columns=METRICS.columns).to_csv(tmp_path / "metrics/spin.csv", index=False)
    about = {"says": "It fits", "figure": "measures", "tests": [a_test(), a_test(seeds=1)]}
    judge({"fits": about}, {}, SEEDS, tmp_path, tmp_path / "claims.csv")
    of_all, of_some = pd.read_csv(tmp_path / "claims.csv").to_dict("records")
    assert math.isnan(of_all["mean"]) and not of_all["holds"]
    assert of_some["mean"] == 0.1 and of_some["holds"] and of_some["wanted"] == "1 seeds"


@pytest.mark.parametrize(
    "content",
    ["", "seed,metric\n0,kl\n", "seed,metric,value\n", "seed,metric,value\n0,kl,0.1\n1,kl,0.x\n"],
    ids=["empty", "short", "bare", "no number"],
)
def test_a_damaged_table_is_named_and_no_verdict_is_written(folder, content):
    damaged = folder / "metrics/spin.csv"
    damaged.write_text(content)
    with pytest.raises(UserError, match=f"{damaged} .*make it again with 'snakemake"):
        judge(CLAIMS, RECIPES, SEEDS, folder, folder / "claims.csv")
    assert not (folder / "claims.csv").exists()


@pytest.mark.parametrize("table", ["metrics/toy_two_spiral.csv", "traces/toy_two_spiral.csv"])
def test_a_table_that_was_cut_in_its_last_seed_gives_no_verdict(table, tmp_path, monkeypatch, capsys):
    """Where the cut is between two rows nothing else tells; a trace lacks a seed's last step then."""
    published, results = ROOT / "docs/results/toy", tmp_path / "results/toy"
    shutil.copytree(published, results)
    (results / "metrics").mkdir()
    for file in results.glob("*.csv"):
        file.rename(results / "metrics" / file.name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    verdicts = results / "metrics/claims.csv"
    verdicts.unlink()
    assert cli.main(["judge", "--branch", "toy"]) == 0
    assert verdicts.read_text() == (published / "claims.csv").read_text()
    cut = results / table
    rows = pd.read_csv(cut)
    rows[: rows.index[rows["seed"] == rows["seed"].max()][1]].to_csv(cut, index=False)
    verdicts.unlink()
    capsys.readouterr()
    assert cli.main(["judge", "--branch", "toy"]) == 1
    said = capsys.readouterr().err
    assert (
        f"results/toy/{table} has " in said and "of the seeds 0, and experiments.toy_two_spiral.seeds are 0, 1" in said
    )
    assert not verdicts.exists()


def test_the_figures_can_be_drawn_from_what_the_judge_writes(folder):
    """Every column that a claim's figure reads is there, under its name and with its words."""
    judge(CLAIMS, RECIPES, SEEDS, folder, folder / "claims.csv")
    for claim, expected in (("follows", "partly"), ("converges", "reproduced"), ("mixes", "not reproduced")):
        read = figures.read_claim(claim, folder / "claims.csv")
        assert (read.tests["verdict"] == expected).all() and len(read.tests) == len(CLAIMS[claim]["tests"])
        assert read.tests["holds"].tolist() == {"follows": [True, False], "converges": [True]}.get(claim, [False] * 2)
    tables, titles = {"spin": folder / "metrics/spin.csv"}, {"spin": "four-spin"}
    pictures = [folder / "claim.png", folder / "claim.pdf"]
    figures.measures("follows", folder / "claims.csv", tables, titles, pictures)
    assert all(picture.stat().st_size > 1000 for picture in pictures)
