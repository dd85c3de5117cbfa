"""What profiles/slurm asks Slurm for, held against the rules and the docs; tests/test_slurm.py tries it on a Slurm."""

import re

import pytest
import yaml

from conftest import ROOT

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())


def rules():
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    return {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)}


def test_every_rule_that_the_slurm_profile_sets_resources_of_exists():
    """Snakemake itself passes over a name that it does not know."""
    assert set(PROFILE["set-resources"]) <= rules()


@pytest.mark.parametrize("rule", ["fetch", "prepare", "reference", "evaluate_images", "train", "search"])
def test_what_takes_in_all_of_lsun_gets_more_than_the_defaults(rule):
    asked, default = PROFILE["set-resources"][rule], PROFILE["default-resources"]
    assert asked["runtime"] >= 12 * default["runtime"]
    # A download goes to the disk as it comes.
    assert rule == "fetch" or asked["mem_mb"] >= 2 * default["mem_mb"]


def test_the_docs_name_every_rule_that_the_slurm_profile_sets_resources_of():
    table = (ROOT / "docs/clusters.md").read_text().split("## Several GPUs")[0]
    assert [rule for rule in PROFILE["set-resources"] if f"`{rule}`" not in table] == []
