"""What a claim or a search may ask for, before anything is measured, is what is measured in the end."""

import pandas as pd
import pytest

from conftest import ROOT
from ddgm import parameters
from ddgm.metrics.names import NAMES, in_words, is_in

PARAMETERS = parameters.load(str(ROOT / "params.yaml"))
PUBLISHED = ROOT / "docs" / "results"


def kind_of(experiment):
    return parameters.evidence(PARAMETERS["datasets"][PARAMETERS["experiments"][experiment]["dataset"]])


@pytest.mark.parametrize("branch", ["paper", "toy"])
def test_every_metric_of_a_published_table_has_a_name_that_may_be_asked_for(branch):
    folder = PUBLISHED / branch
    tables = [(file, kind_of(file.stem)) for file in folder.glob("*.csv") if file.stem in PARAMETERS["experiments"]]
    tables += [(file, kind) for kind in ("traces", "mixing") for file in (folder / kind).glob("*.csv")]
    assert {kind for _, kind in tables} == set(NAMES)
    for file, kind in tables:
        strange = [name for name in pd.read_csv(file)["metric"].unique() if not is_in(name, kind)]
        assert not strange, f"{file.name} has {strange}, and metrics/names.py does not: write them there"


def test_a_name_is_met_as_a_whole():
    assert is_in("wasserstein2_floor", "density") and not is_in("wasserstein2_floors", "density")
    assert is_in("crossed_8_2_by_3_pixels", "digits") and not is_in("crossed_8_2_by_3", "density")


def test_the_names_can_be_read_in_a_sentence():
    assert "crossed_*_*_by_*[_pixels]" in in_words("digits") and "\\" not in "".join(map(in_words, NAMES))
