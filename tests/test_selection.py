"""What the Snakefile asks of workflow/selection.py for its jobs, where dvc.yaml does not show it: cores and GPUs."""

import pytest

from conftest import imported
from ddgm.variant import changed


@pytest.fixture
def select(parameters):
    """The selection of params.yaml with other values at dotted keys."""
    return lambda **values: imported("workflow/selection.py").Selection(changed(parameters, values))


def test_another_address_in_the_registry_makes_nothing_due_but_preparing():
    """Nor does code about digits what is measured of colour images."""
    modules = imported("workflow/selection.py").modules
    of = {name: {path.rpartition("ddgm/")[2] for path in modules(f"ddgm.{name}")} for name in (
        "training", "search", "classifier", "sampling", "metrics.density", "metrics.digits", "metrics.images",
        "metrics.trace", "metrics.mixing", "datasets.mnist", "figures.fig2", "figures.sheet",
    )}  # fmt: skip
    holders = {name for name, files in of.items() if {"datasets/registry.py", "datasets/registry.csv"} & files}
    assert holders == {"datasets.mnist"}
    assert not {"classifier.py", "metrics/digits.py", "metrics/interpolation.py"} & of["metrics.images"]
    assert "metrics/features.py" in of["metrics.images"]


def test_the_searches_of_one_kind_of_evidence_are_those_of_its_experiments(select):
    found = {kind: select().searches("paper", kind) for kind in ("density", "digits", "images")}
    assert found["images"] == [] and not set(found["density"]) & set(found["digits"])
    assert sorted(found["density"] + found["digits"]) == sorted(select().searches("paper"))
    assert "results/paper/searches/planar.csv" in found["density"]


class Wildcards(dict):
    """Snakemake's, as far as they are asked here."""

    __getattr__ = dict.__getitem__


def of(**wildcards):
    return Wildcards(branch="paper", **wildcards)


@pytest.mark.parametrize(
    ("device", "devices", "threads", "gpus"), [("cpu", 1, 3, 0), ("cpu", 2, 6, 0), ("auto", 1, 3, 1), ("cuda", 2, 6, 2)]
)
def test_a_training_asks_for_the_cores_of_all_its_processes_and_a_gpu_for_each(device, devices, threads, gpus, select):
    row = {
        f"experiments.celeba.{key}": value for key, value in (("device", device), ("devices", devices), ("threads", 3))
    }
    selection = select(**row)
    assert selection.threads(of(experiment="celeba")) == threads
    assert selection.gpus(of(experiment="celeba")) == gpus


@pytest.mark.parametrize(("inception", "device", "gpus"), [(True, "auto", 1), (True, "cpu", 0), (False, "auto", 0)])
def test_inceptions_features_have_a_gpu_where_a_training_on_their_data_has(inception, device, gpus, select, parameters):
    rows = [name for name, row in parameters["experiments"].items() if row["dataset"] == "celeba"]
    values = {f"experiments.{name}.device": device for name in rows}
    selection = select(**values, **{"branches.paper.images.inception": inception})
    assert selection.inception_gpus(of(dataset="celeba")) == gpus


def test_a_figure_is_for_known_experiments_of_its_kind_and_leaves_the_names_of_longer_figures_to_them(select):
    fit = select().fit("fig3", "fig3")
    assert fit(of(experiment="mnist")) == fit(of(experiment="steps_mnist")) == fit(of(experiment="steps_none")) == []
    with pytest.raises(
        SystemExit, match="fig3 is for data that are digits, and those of four_spin are two-dimensional"
    ):
        fit(of(experiment="four_spin"))
    with pytest.raises(SystemExit, match=r"no entry 'mnits': did you mean 'mnist'\?"):
        select().fit("fig3_steps", "fig3")(of(experiment="mnits"))


SUBSET = {"says": "subset: a few", "checksums": {"bedroom_val_lmdb.zip": f"sha256:{64 * '0'}"}}


@pytest.mark.parametrize(("file", "again"), [("bedroom_val_lmdb.zip", True), ("bedroom_train_lmdb.zip", False)])
def test_a_file_that_is_declared_a_subset_is_fetched_again_and_no_other_of_its_set(file, again, select):
    which = of(dataset="lsun_bedroom", file=file)
    before, after = select().pick_source(which), select(**{"datasets.lsun_bedroom.subset": SUBSET}).pick_source(which)
    assert (before != after) == again


@pytest.mark.parametrize(("key", "value", "again"), [("title", "By another name", False), ("threads", 2, True)])
@pytest.mark.parametrize("job", ["pick_training", "pick_search"])
def test_another_title_trains_nothing_again(job, key, value, again, select):
    picked = [
        getattr(select(**row), job)(of(experiment="four_spin")) for row in ({}, {f"experiments.four_spin.{key}": value})
    ]
    assert (picked[0] != picked[1]) == again


@pytest.mark.parametrize(("dataset", "again"), [("celeba", True), ("lsun_bedroom", False)])
def test_another_domain_for_one_data_set_measures_no_other_again(dataset, again, select):
    picked = [
        select(**{"branches.paper.images.others": others}).pick_images(of(experiment=dataset))
        for others in ({}, {"celeba": "lsun_stand_in"})
    ]
    assert (picked[0] != picked[1]) == again


@pytest.mark.parametrize(
    ("dataset", "cores", "workers"),
    [("celeba", 16, 16), ("celeba", None, 8), ("mnist", 16, 1), ("four_spin", 16, 1), ("toy_faces", 16, 1)],
)
def test_photographs_are_prepared_on_all_cores_or_on_eight_of_a_cluster(dataset, cores, workers, select, monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert select().workers(cores)(of(dataset=dataset)) == workers


def test_in_a_job_of_slurm_photographs_are_prepared_on_the_cores_that_it_has(select, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert select().workers(64)(of(dataset="celeba")) == 8
    assert select().workers(64)(of(dataset="mnist")) == 1
