"""The random search: drawn within its ranges, each trial on its own, and everything that was tried in the table."""

import copy
import math
import os
import signal

import numpy as np
import pandas as pd
import pytest

from conftest import PARAMETERS
from ddgm import training
from ddgm.errors import TRY_AGAIN, UserError
from ddgm.search import draw, rank, search
from ddgm.variant import changed

POINTS = PARAMETERS["datasets"]["four_spin"]
SPACE = {
    "optimiser.energy_rate": {"low": 1.0e-4, "high": 1.0e-2},
    "schedule.generator_steps": [1, 2],
    "entropy.kind": ["batch_norm_sum", "batch_norm_mean"],
}


def drawn(count):
    return [draw(SPACE, np.random.default_rng([0, trial])) for trial in range(count)]


def test_what_is_drawn_stays_in_its_range_and_is_spread_over_it():
    trials = drawn(300)
    rates = np.log10([trial["optimiser.energy_rate"] for trial in trials])
    assert rates.min() >= -4 and rates.max() <= -2
    assert np.mean(rates < -3) == pytest.approx(0.5, abs=0.1), "as many below the geometric middle as above"
    for key in ("schedule.generator_steps", "entropy.kind"):
        assert {trial[key] for trial in trials} == set(SPACE[key])
    assert all(float(f"{trial['optimiser.energy_rate']:.2e}") == trial["optimiser.energy_rate"] for trial in trials)


def test_other_keys_are_changed_and_the_row_itself_is_left_alone(planar_row):
    before = copy.deepcopy(planar_row)
    other = changed(planar_row, {"optimiser.energy_rate": 0.5, "seeds": [7], "entropy.kind": "none"})
    assert (other["optimiser"]["energy_rate"], other["seeds"], other["entropy"]["kind"]) == (0.5, [7], "none")
    assert planar_row == before
    other["energy"]["hidden"].append(3)
    assert planar_row == before, "nothing is shared"


@pytest.mark.parametrize("key", ["optimiser.energy_rte", "optimizer.energy_rate", "seeds.first", "title.of.it"])
def test_a_key_that_the_row_does_not_have_is_one_sentence(key, planar_row):
    before = copy.deepcopy(planar_row)
    with pytest.raises(UserError, match=rf"^the search draws '{key}', which the experiment's row does not have$"):
        changed(planar_row, {"schedule.batch": 5, key: 1})
    assert planar_row == before


@pytest.fixture
def array(planar_data, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    return tmp_path / "train.npy"


RANKED, SHOWN = ["kl_data_model", "kl_data_generator"], ["modes_covered"]


def plan(trials, over, together=True, experiments=()):
    return {
        "seed": 0, "trials": trials, "steps": 2, "seeds": [0], "over": over, "ranked_by": RANKED, "shown": SHOWN,
        "together": together, "experiments": list(experiments), "evaluation": {"samples": 10},
    }  # fmt: skip


def measured(name, model, table):
    """In the place of density.evaluate: the size of the batch and of the history, and whether the model is there."""
    from ddgm.experiment import describe

    row = describe(model)["row"]
    assert pd.read_csv(model / "history.csv")["step"].max() == 2, "as many steps as the plan has"
    found = dict.fromkeys(RANKED, float(row["schedule"]["batch"])) | {"modes_covered": float(len(row["seeds"]))}
    rows = [(name, seed, metric, value + seed) for metric, value in found.items() for seed in row["seeds"]]
    pd.DataFrame(rows, columns=["experiment", "seed", "metric", "value"]).to_csv(table, index=False)


BATCHES = {"schedule.batch": [8, 16, 24, 32], "optimiser.energy_rate": {"low": 1.0e-4, "high": 1.0e-3}}


def test_a_trial_is_the_same_whatever_trials_there_are_beside_it(planar_row, array, tmp_path):
    for trials in (1, 3):
        search(
            "points",
            planar_row,
            POINTS,
            plan(trials, BATCHES),
            array,
            measured,
            tmp_path / f"{trials}.csv",
            tmp_path / "state",
        )
    one, three = pd.read_csv(tmp_path / "1.csv"), pd.read_csv(tmp_path / "3.csv")
    assert len(one) == 1 and three["trial"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(one, three[:1])
    assert (three["kl_data_model"] == three["schedule.batch"]).all(), "measured is what was drawn"
    assert (three["modes_covered"] == 1).all() and (three["experiment"] == "points").all()
    assert three["optimiser.energy_rate"].nunique() == 3


def test_a_trial_that_diverges_is_a_row_too(planar_row, array, tmp_path, caplog):
    over = {"optimiser.energy_rate": [1.0e30]}
    settings = plan(1, over) | {"steps": 30}
    planar_row["optimiser"]["generator_rate"] = 1.0e30
    search("points", planar_row, POINTS, settings, array, measured, tmp_path / "s.csv", tmp_path / "state")
    (row,) = pd.read_csv(tmp_path / "s.csv").to_dict("records")
    assert row["optimiser.energy_rate"] == 1.0e30
    assert {row[metric] for metric in RANKED} == {math.inf} and math.isnan(row["modes_covered"])
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("points, seed 0: energy_") and "at step" in said, "why"
    assert "no state had been saved" in said, "none that would be gone with the trial"


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_search_that_is_asked_to_end_goes_on_from_there(number, ending, planar_row, array, tmp_path, caplog):
    caplog.set_level("INFO", "ddgm")
    settings, state = plan(3, BATCHES), tmp_path / "state"
    search("points", planar_row, POINTS, settings, array, measured, tmp_path / "whole.csv", state)
    assert not state.exists(), "nothing is left of what the table has"
    rounds, original = [], training.Pair.round

    def asked(pair):
        # Two rounds a trial: the first trial is whole, the second is asked to end in its first.
        rounds.append(pair.step)
        if len(rounds) == 3:
            os.kill(os.getpid(), number)
        return original(pair)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Pair, "round", asked)
        with pytest.raises(ending) as raised:
            search("points", planar_row, POINTS, settings, array, measured, tmp_path / "s.csv", state)
        assert ending is KeyboardInterrupt or raised.value.code == TRY_AGAIN
        said = caplog.records[-1].getMessage()
        assert said == "points: stopped in trial 2 of 3; the same command goes on from there"
        assert not (tmp_path / "s.csv").exists() and len(list(state.glob("*/state/*.pt"))) == 1
        search("points", planar_row, POINTS, settings, array, measured, tmp_path / "s.csv", state)
    assert rounds == [0, 1, 0, 1, 0, 1], "of the second trial the second round, and then the third trial"
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes() and not state.exists()


CHANGED = [
    {},
    {"plan": {"steps": 3}},
    {"plan": {"evaluation": {"samples": 11}}},
    {"plan": {"shown": []}},
    {"dataset": POINTS | {"turns": 7}},
    {"judge": "another"},
]


def test_a_trial_of_an_earlier_search_is_taken_only_where_all_is_as_it_was(planar_row, array, tmp_path):
    def once(name, model, table):
        if measurements:
            raise UserError("the second trial cannot be measured")
        measurements.append(model)
        rows = [(name, 0, metric, 1.0) for metric in RANKED + SHOWN]
        pd.DataFrame(rows, columns=["experiment", "seed", "metric", "value"]).to_csv(table, index=False)

    kept, judge, state = [], tmp_path / "judge", tmp_path / "state"
    for other in CHANGED:
        measurements = []
        judge.write_text(other.get("judge", "one"))
        settings, dataset = plan(2, BATCHES) | other.get("plan", {}), other.get("dataset", POINTS)
        with pytest.raises(UserError, match="the second trial cannot be measured"):
            search("points", planar_row, dataset, settings, array, once, tmp_path / "s.csv", state, 1, [judge])
        kept.append(len(list(state.glob("*/found.json"))))
    assert kept == [1, 2, 3, 4, 5, 6]


def test_a_mistake_is_no_trial_that_diverged(planar_row, array, tmp_path):
    array.write_bytes(array.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train\.npy is damaged"):
        search("points", planar_row, POINTS, plan(2, BATCHES), array, measured, tmp_path / "s.csv", tmp_path / "state")
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("key", ["ranked_by", "shown"])
def test_a_metric_that_is_not_measured_is_one_sentence(key, planar_row, array, tmp_path):
    settings = plan(1, BATCHES) | {key: ["frechet"]}
    sentence = "a search of points asks for 'frechet', which is not measured: allowed are kl_"
    with pytest.raises(UserError, match=sentence):
        search("points", planar_row, POINTS, settings, array, measured, tmp_path / "s.csv", tmp_path / "state")
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        ("schedule.batch", [3, 8], r"\.entropy\.neighbours is 3, and must be below 3.*batch': 3\}"),
        ("schedule.kind", ["simultaneous", "alternating"], r"\.schedule is simultaneous, .*write 1 for "),
        ("objective.penalty_end", [0.0, 0.1], r"\.objective has a penalty_end of 0"),
    ],
)
def test_keys_that_cannot_be_together_are_refused_before_anything_is_trained(
    key, values, sentence, planar_row, array, tmp_path, monkeypatch
):
    chosen = {**plan(9, {key: values}), "seed": 2}
    drawn = [draw(chosen["over"], np.random.default_rng([2, trial]))[key] for trial in range(9)]
    first = drawn.index(values[0])
    assert first > 0, "trials before it could be trained"
    monkeypatch.setattr("ddgm.search.try_once", lambda *_: pytest.fail("a trial was trained"))
    with pytest.raises(UserError, match=rf"^trial {first + 1} of points{sentence}"):
        search("points", planar_row, POINTS, chosen, array, measured, tmp_path / "s.csv", tmp_path / "state")
    assert not (tmp_path / "s.csv").exists()


def test_what_one_seed_could_not_be_measured_of_ranks_last(planar_row, array, tmp_path):
    def found(name, model, table):
        rows = [(name, seed, metric, (0.1, math.nan)[seed]) for seed in (0, 1) for metric in RANKED + SHOWN]
        pd.DataFrame(rows, columns=["experiment", "seed", "metric", "value"]).to_csv(table, index=False)

    two = plan(1, BATCHES) | {"seeds": [0, 1]}
    search("points", planar_row, POINTS, two, array, found, tmp_path / "s.csv", tmp_path / "state")
    assert (tmp_path / "s.csv").read_text().splitlines()[1].endswith(",inf,inf,")


@pytest.mark.parametrize(("value", "ranked", "shown"), [(math.nan, "inf", ""), (math.inf, "inf", "inf")])
def test_what_cannot_be_measured_of_a_trial_or_is_infinite_ranks_last(
    value, ranked, shown, planar_row, array, tmp_path
):
    def found(name, model, table):
        rows = [(name, 0, metric, value) for metric in RANKED + SHOWN]
        pd.DataFrame(rows, columns=["experiment", "seed", "metric", "value"]).to_csv(table, index=False)

    search("points", planar_row, POINTS, plan(1, BATCHES), array, found, tmp_path / "s.csv", tmp_path / "state")
    assert (tmp_path / "s.csv").read_text().splitlines()[1].endswith(f",{ranked},{ranked},{shown}")


@pytest.fixture
def searched(tmp_path):
    """Trial 1 is best on `a` alone, trial 3 on `b`, trial 0 on both together."""
    scores = {"a": [0.3, 0.1, 0.2, math.inf], "b": [0.3, 0.9, 0.6, 0.1]}
    for name, values in scores.items():
        rows = [(name, trial, value, value / 2) for trial, value in enumerate(values)]
        pd.DataFrame(rows, columns=["experiment", "trial", *RANKED]).to_csv(tmp_path / f"{name}.csv", index=False)
    return [tmp_path / "a.csv", tmp_path / "b.csv"]


def test_trials_of_one_setting_for_all_are_ranked_by_the_sum_and_what_diverged_anywhere_is_last(searched, tmp_path):
    rank(searched, plan(4, {}, experiments="ab"), tmp_path / "all.csv")
    ranked = pd.read_csv(tmp_path / "all.csv")
    assert ranked["trial"].tolist() == [0, 0, 2, 2, 1, 1, 3, 3]
    assert ranked["experiment"].tolist() == ["a", "b"] * 4
    assert ranked["score"].tolist() == pytest.approx([0.9, 0.9, 1.2, 1.2, 1.5, 1.5, math.inf, math.inf])


def test_rivals_are_ranked_each_on_its_own(searched, tmp_path):
    rank(searched, plan(4, {}, together=False, experiments="ba"), tmp_path / "all.csv")
    ranked = pd.read_csv(tmp_path / "all.csv")
    assert ranked["experiment"].tolist() == ["b"] * 4 + ["a"] * 4, "in the order that the search names them"
    assert ranked["trial"].tolist() == [3, 0, 2, 1, 1, 2, 0, 3]
    assert list(ranked.columns) == ["experiment", "trial", *RANKED, "score"]


def test_a_table_without_what_the_search_is_ranked_by_now_is_one_sentence(searched, tmp_path):
    sentence = "a.csv has no column 'frechet'.*delete it, and make it again with 'snakemake "
    with pytest.raises(UserError, match=sentence):
        rank(searched, plan(4, {}, experiments="ab") | {"ranked_by": ["frechet"]}, tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()
