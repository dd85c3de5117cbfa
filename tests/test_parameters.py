"""params.yaml and its schema: what is committed is whole, and what is wrong is refused in one sentence."""

import json
import subprocess
import sys

import pytest
import yaml

from conftest import DUMPER, ROOT
from ddgm import parameters
from ddgm.errors import UserError


def described(schema, definitions, missing, path=""):
    """Collect every key of a schema that has neither a description nor a definition with one."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        target = definitions[part["$ref"].split("/")[-1]] if "$ref" in part else part
        if part and not any("description" in s for s in (part, target)) and "properties" not in target:
            missing.append(here)
        described(part, definitions, missing, here)
    for branch in ("then", "else"):
        if branch in schema:
            described(schema[branch], definitions, missing, path)


def test_every_key_of_the_schema_is_described():
    schema = yaml.safe_load(parameters.SCHEMA.read_text())
    missing = []
    for name, definition in {"": schema, **schema["$defs"]}.items():
        described(definition, schema["$defs"], missing, name)
    assert missing == []


def test_the_committed_parameters_pass(parameters_file=ROOT / "params.yaml"):
    loaded = parameters.load(str(parameters_file))
    shown = {name for branch in ("paper", "toy") for name in parameters.experiments(loaded, branch)}
    of_subsets = {n for n, row in loaded["experiments"].items() if loaded["datasets"][row["dataset"]].get("subset")}
    assert shown | of_subsets == set(loaded["experiments"]), "what everybody can train is shown by a branch"
    assert not shown & of_subsets, "and what needs files of our own is not"
    used = {row["dataset"] for row in loaded["experiments"].values()}
    subsets = {name for name, row in loaded["datasets"].items() if row.get("subset")}
    assert used | subsets == set(loaded["datasets"]), "every data set is used, subsets by who cannot reach the whole"


def edit(key, value):
    def change(rows):
        *path, last = key.split(".")
        for part in path:
            rows = rows[int(part) if part.isdigit() else part]
        if value is None:
            del rows[last]
        else:
            rows[last] = value

    return change


def rename(key, name):
    def change(rows):
        *path, last = key.split(".")
        for part in path:
            rows = rows[part]
        rows[name] = rows.pop(last)

    return change


DIGITS = "experiments.toy_digits"
AT_ONCE = {
    "schedule.kind": "simultaneous",
    "schedule.generator_steps": 1,
    "schedule.energy_steps": 1,
    "negative": {"kind": "generator", "reuse_latent": True, "importance": None},
}
GZ = "train-images-idx3-ubyte.gz"
MISTAKES = {
    "a misspelt key": (
        rename("experiments.mnist.optimiser.energy_rate", "energy_rte"),
        "experiments.mnist.optimiser has an unknown key 'energy_rte': did you mean 'energy_rate'?",
    ),
    "a negative rate": (
        edit("experiments.mnist.optimiser.energy_rate", -0.1),
        "experiments.mnist.optimiser.energy_rate is -0.1, and must be above 0 (learning rate of the energy",
    ),
    "a number that YAML reads as text": (
        edit("experiments.mnist.optimiser.energy_rate", "1e-3"),
        'is "1e-3", and must be a number; YAML reads 1e-3 as text, write 1.0e-3',
    ),
    "a wrong type": (
        edit("experiments.mnist.schedule.steps", "many"),
        'experiments.mnist.schedule.steps is "many", and must be a whole number',
    ),
    "a number in a list's place": (
        edit("experiments.mnist.seeds", 0),
        "experiments.mnist.seeds is 0, and must be a list (one energy and generator",
    ),
    "a text in the place of numbers or of null": (
        edit("experiments.mnist.range", "x"),
        'experiments.mnist.range is "x", and must be a list or null (the numbers that',
    ),
    "a seed twice": (
        edit("experiments.mnist.seeds", [3, 0, 3]),
        "experiments.mnist.seeds has 3 twice: write it once (",
    ),
    "a search that draws from a number": (
        edit("branches.paper.searches.planar.over", {"energy.kind": 3}),
        "over.energy.kind is 3, and must be a list or a mapping of keys to values (a list to choose from, or {low:",
    ),
    "a search's range without its end": (
        edit("branches.paper.searches.planar.over", {"optimiser.energy_rate": {"low": 1.0}}),
        "over.optimiser.energy_rate lacks the key 'high': write it",
    ),
    "a search that draws from nothing": (
        edit("branches.paper.searches.planar.over", {"energy.kind": []}),
        "over.energy.kind is [], and must be a list of at least 1",
    ),
    "a search measured by half a setting": (
        edit("branches.paper.searches.digits.evaluation.pairs", None),
        "branches.paper.searches.digits.evaluation lacks the key 'pairs': write it",
    ),
    "a tolerance that ends nothing": (
        edit("branches.paper.evaluation.tolerance", 2.0),
        "branches.paper.evaluation.tolerance is 2.0, and must be below 1 (relative change of Z",
    ),
    "more dimensions than z has": (
        edit("experiments.mnist.entropy.dimensions", 11),
        "mnist.entropy.dimensions is 11, and must be at most 10, which G(z) has: those of z (generator.latent)",
    ),
    "more dimensions than points have": (
        edit("experiments.four_spin_neighbour.negative.importance.dimensions", 3),
        "negative.importance.dimensions is 3, and must be at most 2, which G(z) has: those of the points",
    ),
    "a search's measurement that is a number": (
        edit("branches.paper.searches.planar.evaluation", 3),
        "searches.planar.evaluation is 3, and must be a mapping of keys to values (how a trial is measured",
    ),
    "faces told from themselves": (
        edit("branches.paper.images.others", {"celeba": "celeba"}),
        "branches.paper.images.others names 'celeba' for itself: write another data set",
    ),
    "a misspelt key at the top": (rename("mirror", "mirrors"), "unknown key 'mirrors': did you mean 'mirror'?"),
    "a rate that is no number": (
        edit("experiments.mnist.optimiser.energy_rate", float("nan")),
        "experiments.mnist.optimiser.energy_rate is NaN, and must be a number (",
    ),
    "a count with a point": (
        edit("experiments.mnist.schedule.generator_steps", 2.0),
        "experiments.mnist.schedule.generator_steps is 2.0, and must be a whole number (",
    ),
    "a seed beyond 32 bits": (
        edit("experiments.mnist.seeds", [2**70]),
        "must be at most 4294967295",
    ),
    "pixels' range for points": (
        edit("experiments.four_spin.range", [0.0, 1.0]),
        "experiments.four_spin.range is [0.0, 1.0], and must be null, since its data are points",
    ),
    "points for an experiment on pixels": (
        edit("experiments.mnist.dataset", "four_spin"),
        "experiments.mnist.range is [0.0, 1.0], and must be null, since its data are points",
    ),
    "convolutions of points": (
        edit("experiments.four_spin.generator.kind", "convolutional"),
        "experiments.four_spin.generator is convolutional, which needs colour images, and 'four_spin' has none: write",
    ),
    "more convolutions than the side can be halved": (
        edit("datasets.celeba.side", 40),
        "experiments.celeba.energy is convolutional, which needs a side that is a multiple of 16",
    ),
    "a crop that would be enlarged": (
        edit("datasets.celeba.crop", 32),
        "datasets.celeba.crop is 32, below side, 64: nothing is enlarged, write a crop of at least 64, or null",
    ),
    "more neighbours than a batch has": (
        edit("experiments.mnist.entropy.neighbours", 128),
        "experiments.mnist.entropy.neighbours is 128, and must be below 128, the samples it is looked for among",
    ),
    "points in Figure 3's list": (
        edit("branches.paper.fig3", ["four_spin"]),
        "branches.paper.fig3 names 'four_spin', whose data are not digits",
    ),
    "a folder for what is drawn": (
        edit("datasets.toy_faces.folder", "/data"),
        "datasets.toy_faces has both draw and folder, and what is drawn is not fetched: write null for one",
    ),
    "a subset of what is drawn": (
        edit("datasets.toy_digits.subset", {"says": "subset: few", "checksums": {GZ: "md5:" + 32 * "0"}}),
        "datasets.toy_digits has both draw and subset, and what is drawn is not fetched: write null for one",
    ),
    "a subset's file that the data set does not have": (
        edit("datasets.mnist.subset", {"says": "subset: few", "checksums": {GZ[1:]: "md5:" + 32 * "0"}}),
        f"datasets.mnist.subset.checksums names '{GZ[1:]}', which is none of its files: did you mean '{GZ}'?",
    ),
    "a subset's checksum without its kind": (
        edit("datasets.celeba_15k.subset.checksums", {"img_align_celeba.zip": 32 * "0"}),
        f'datasets.celeba_15k.subset.checksums.img_align_celeba.zip is "{32 * "0"}", and must be spelt as ^(md5:',
    ),
    "a subset that does not say it": (
        edit("datasets.celeba_15k.subset.says", "15,723 faces"),
        'datasets.celeba_15k.subset.says is "15,723 faces", and must be spelt as ^subset: ',
    ),
    "a subset without a checksum": (
        edit("datasets.celeba_15k.subset.checksums", {}),
        "datasets.celeba_15k.subset.checksums",
    ),
    "a missing key": (
        edit("experiments.mnist.schedule.batch", None),
        "experiments.mnist.schedule lacks the key 'batch': write it (examples, and samples, an update",
    ),
    "a data set that does not exist": (
        edit("experiments.mnist.dataset", "minst"),
        "experiments.mnist.dataset is 'minst', which is no data set: did you mean 'mnist'?",
    ),
    "an experiment that does not exist": (
        edit("branches.toy.fig3", ["toy_digit"]),
        "branches.toy.fig3 names 'toy_digit', which is no experiment: did you mean 'toy_digits'?",
    ),
    "an unknown kind": (
        edit("experiments.mnist.energy.kind", "depp"),
        "experiments.mnist.energy.kind is \"depp\": did you mean 'deep'?",
    ),
    "a key of another optimiser": (
        edit("experiments.four_spin.optimiser.beta1", 0.5),
        "experiments.four_spin.optimiser has an unknown key 'beta1'",
    ),
    "a penalty that cannot fall to nothing": (
        edit("experiments.four_spin_neighbour.objective.penalty_end", 0.0),
        "experiments.four_spin_neighbour.objective has a penalty_end of 0, which no ratio leads to: write 0 for both",
    ),
    "more to be transported than is drawn": (
        lambda rows: rows["branches"]["toy"]["evaluation"].update(samples=1000, transport=2000),
        "branches.toy.evaluation.transport is 2000, and only 1000 samples are drawn: write at most 1000, or more",
    ),
    "two sets for transport that would overlap": (
        edit("branches.toy.evaluation.transport", 6000),
        "branches.toy.evaluation.transport is 6000, and two sets of so many are compared: write at most 5000, half of",
    ),
    "fresh points that are the old ones": (
        edit("branches.paper.tracing.seed", 0),
        "branches.paper.tracing.seed is 0, as is that of datasets.four_spin, and would draw for seed 0 the points",
    ),
    "a penalty that cannot rise from nothing": (
        edit("experiments.four_spin.objective.penalty_end", 0.1),
        "experiments.four_spin.objective has a penalty of 0 and a penalty_end of 0.1, which nothing leads to: write 0",
    ),
    "chains for pixels": (
        edit(
            "experiments.mnist.negative", {"kind": "persistent", "steps": 5, "rate": 0.01, "reach": 0.1, "spread": 1.0}
        ),
        "experiments.mnist.negative.kind is 'persistent', which is for points: allowed are generator, spliced, noised",
    ),
    "a key of another negative phase": (
        edit("experiments.four_spin_exact.negative.reuse_latent", False),
        "experiments.four_spin_exact.negative has an unknown key 'reuse_latent'",
    ),
    "a trace of an experiment without snapshots": (
        edit("experiments.four_spin_gan.schedule.snapshots", 0),
        "branches.paper.traced names 'four_spin_gan', whose schedule.snapshots is 0: write how often its weights are",
    ),
    "a name in traced that is none": (
        edit("branches.toy.traced", ["toy_two_spirl"]),
        "branches.toy.traced names 'toy_two_spirl', which is no experiment: did you mean 'toy_two_spiral'?",
    ),
    "a name in compared that is none": (
        edit("branches.toy.compared", ["toy_gan"]),
        "branches.toy.compared names 'toy_gan', which is no experiment",
    ),
    "chains on the energy of pixels": (
        edit("branches.paper.mixed", ["mnist"]),
        "branches.paper.mixed names 'mnist', whose data are not two-dimensional",
    ),
    "too few samples for Inception": (
        edit("branches.paper.images.samples", 2047),
        "branches.paper.images.samples is 2047, and must be at least 2048 (samples for Inception's distances",
    ),
    "a search on colour images": (
        edit("branches.paper.searches.planar.experiments", ["celeba"]),
        "branches.paper.searches.planar names 'celeba', whose data are colour images: a search is over points or digi",
    ),
    "a search on digits that measures points": (
        edit("branches.paper.searches.planar.experiments", ["mnist"]),
        "branches.paper.searches.planar.evaluation does not fit 'mnist': write the keys that the branch's digits has",
    ),
    "a search over data sets": (
        edit("branches.paper.searches.planar.over", {"dataset": ["four_spin", "two_spiral"]}),
        "branches.paper.searches.planar.over draws 'dataset', which a search does not vary: it is the experiment's",
    ),
    "a search over seeds": (
        edit("branches.paper.searches.planar.over", {"seeds": [[1], [2]]}),
        "branches.paper.searches.planar.over draws 'seeds', which a search does not vary: it is the search's own",
    ),
    "a search of an experiment on several devices": (
        edit("experiments.four_spin.devices", 2),
        "branches.paper.searches.planar names 'four_spin', which is trained on several devices: a search is of one",
    ),
    "no pictures along the training of what Figure 4 shows": (
        edit("experiments.celeba.schedule.pictures", 0),
        "branches.paper.fig4 names 'celeba', whose schedule.pictures is 0: write at how many steps its samples are",
    ),
    "as many neighbours as samples": (
        edit("branches.paper.digits.neighbours", 10000),
        "branches.paper.digits.neighbours is 10000, and must be below samples, 10000, among which they are looked for",
    ),
    "fewer samples than features": (
        edit("classifiers.mnist.features", 10000),
        "branches.paper.digits.samples is 10000, and a Fréchet distance between the 10000 features of",
    ),
    "an experiment of the name of the claims' table": (
        lambda rows: rows["experiments"].update(claims=rows["experiments"]["four_spin"]),
        "experiments.claims has the name of the claims' own table: write another",
    ),
    "the last of several neighbours beyond the batch": (
        edit("experiments.mnist.entropy.neighbours", [2, 3, 128]),
        "experiments.mnist.entropy.neighbours is 128, and must be below 128, the samples it is looked for among",
    ),
    "samples beside the batch that are no whole batches": (
        edit("experiments.four_spin_neighbour.negative.importance.references", 100),
        "experiments.four_spin_neighbour.negative.importance.references is 100, and must be a multiple of 256: they",
    ),
    "an entropy of batches that are no whole ones": (
        edit("experiments.four_spin_neighbour.entropy.references", 100),
        "experiments.four_spin_neighbour.entropy.references is 100, and must be a multiple of 256: they",
    ),
    "blurred samples of no whole batches": (
        edit("experiments.four_spin_blurred.negative.references", 100),
        "experiments.four_spin_blurred.negative.references is 100, and must be a multiple of 512: they",
    ),
    "blurred pictures": (
        edit(
            "experiments.mnist.negative",
            {"kind": "blurred", "spread": 0.1, "references": 128, "largest": 5.0, "rise": 0.0},
        ),
        "experiments.mnist.negative.kind is 'blurred', which is for points: allowed are generator, spliced, noised",
    ),
    "weights that rise for longer than the training": (
        edit("experiments.four_spin_outputs_weighted.negative.rise", 1.5),
        "experiments.four_spin_outputs_weighted.negative.rise is 1.5, and must be",
    ),
    "blurred samples of two processes": (
        edit("experiments.four_spin_blurred.devices", 2),
        "experiments.four_spin_blurred.negative is not shared by processes, and is for one, not 2: write devices: 1",
    ),
    "neighbours from 0": (
        edit("experiments.mnist.entropy.neighbours", [0, 1]),
        "experiments.mnist.entropy.neighbours.0 is 0, and must be",
    ),
    "no neighbours": (edit("experiments.mnist.entropy.neighbours", []), "experiments.mnist.entropy.neighbours is []"),
    "a search of no experiment": (
        edit("branches.toy.searches.planar.experiments", ["toy_four_spi"]),
        "branches.toy.searches.planar names 'toy_four_spi', which is no experiment: did you mean 'toy_four_spin'?",
    ),
    "two searches of one experiment": (
        lambda rows: rows["branches"]["toy"]["searches"].update(again=rows["branches"]["toy"]["searches"]["planar"]),
        "branches.toy.searches.again names 'toy_four_spin', which branches.toy.searches.planar varies: write it in one",
    ),
    "digits that nothing judges": (
        edit("classifiers.toy_digits", None),
        "branches.toy.fig3 names 'toy_digits', whose digits nothing judges: write a row classifiers.toy_digits",
    ),
    "a figure of digits in Figure 4's list": (
        edit("branches.paper.fig4", ["mnist"]),
        "branches.paper.fig4 names 'mnist', whose data are not colour images",
    ),
    "a claim against an experiment that is not measured": (
        edit(
            "branches.toy.claims.samples_follow_energy.tests.0.threshold",
            {"experiment": "toy_gan", "metric": "kl", "at": None, "times": 1.0},
        ),
        "branches.toy.claims.samples_follow_energy tests metrics of 'toy_gan', of which none are made",
    ),
    "points in black and white": (
        edit("experiments.four_spin.binarised", True),
        "experiments.four_spin.binarised is true, and its data are points: write false",
    ),
    "mirrored points": (
        edit("experiments.four_spin.flips", True),
        "experiments.four_spin.flips is true, and its data are points: write false",
    ),
    "both nets at once, one of them twice": (
        edit("experiments.four_spin_neighbour.schedule.kind", "simultaneous"),
        "one update of each net from the same samples: write 1 for generator_steps and energy_steps",
    ),
    "both nets at once from other samples": (
        edit("experiments.mnist.schedule.kind", "simultaneous"),
        "write negative: {kind: generator, reuse_latent: true, importance: null}",
    ),
    "both nets at once with more samples for one of them": (
        lambda rows: [
            edit(f"experiments.four_spin_neighbour.{key}", value)(rows)
            for key, value in {**AT_ONCE, "entropy.references": 256}.items()
        ],
        "one update of each net from the same samples: write 0 for entropy.references",
    ),
    "both nets at once by two losses": (
        lambda rows: [edit(f"experiments.toy_two_spiral_gan.{key}", value)(rows) for key, value in AT_ONCE.items()],
        "its two losses have to be one, write objective.kind dual or schedule.kind alternating",
    ),
    "digits as another domain of images": (
        edit("branches.paper.images.others", {"celeba": "mnist"}),
        "branches.paper.images.others names 'mnist', which is no data set of colour images",
    ),
    "another domain of another size": (
        edit("datasets.lsun_bedroom.side", 32),
        "branches.paper.images.others names 'lsun_bedroom' for 'celeba', with a side of 32 and 64 pixels: write one",
    ),
    "a classifier of nothing": (
        lambda rows: rows["classifiers"].update(mnits=rows["classifiers"]["mnist"]),
        "classifiers.mnits judges no data set of digits: did you mean 'mnist'?",
    ),
    "a batch in unequal parts": (
        edit("experiments.celeba.devices", 3),
        "experiments.celeba.schedule.batch is 64, and 3 processes cannot have equal parts of it: write a multiple",
    ),
    "importance weights of a part of the batch": (
        edit("experiments.four_spin_neighbour.devices", 2),
        "experiments.four_spin_neighbour.negative is not shared by processes, and is for one, not 2: write",
    ),
    "noise on several devices": (
        edit(f"{DIGITS}.devices", 2),
        f"{DIGITS}.energy.noise is 0.1, and 2 processes would draw other noise than one does: write 0.0, or",
    ),
    "white below black": (
        edit("experiments.mnist.range", [1.0, 0.0]),
        "experiments.mnist.range is [1.0, 0.0]: write the smaller number, black, first",
    ),
    "arithmetic that no processor has": (
        edit("experiments.mnist.precision", "float33"),
        "experiments.mnist.precision is \"float33\": did you mean 'float32'? allowed are float32, tf32, bfloat16",
    ),
    "a claim on an experiment that is not measured": (
        edit("branches.toy.claims.samples_follow_energy.tests.0.experiment", "four_spin"),
        "branches.toy.claims.samples_follow_energy tests metrics of 'four_spin', of which none are made: did you mean",
    ),
    "quadrature that is to repeat on a GPU": (
        lambda rows: rows["experiments"]["four_spin_exact"].update(deterministic=True, device="auto"),
        "experiments.four_spin_exact.deterministic is true and its negatives are drawn by quadrature, which PyTorch",
    ),
    "a recipe of no experiment": (
        edit("branches.toy.recipes", {"ours": ["toy_digit"]}),
        "branches.toy.recipes 'ours' names 'toy_digit', which is no experiment: did you mean 'toy_digits'?",
    ),
    "an experiment by two recipes": (
        edit("branches.toy.recipes", {"ours": ["toy_digits"], "theirs": ["toy_digits"]}),
        "branches.toy.recipes 'theirs' names 'toy_digits', which is by 'ours': write it in one of them",
    ),
    "a claim on a trace that is not made": (
        edit("branches.toy.traced", ["toy_two_spiral"]),
        "branches.toy.claims.eq_8_becomes_eq_7 tests traces of 'toy_two_spiral_gan', of which none are made: did you",
    ),
    "a claim whose figure is of another kind": (
        edit("branches.toy.claims.samples_follow_energy.figure", "mixing"),
        "branches.toy.claims.samples_follow_energy tests mixing of 'toy_four_spin', of which none are made",
    ),
    "a claim on more seeds than are trained": (
        edit("branches.toy.claims.energy_is_integrable.tests.0.seeds", 3),
        "branches.toy.claims.energy_is_integrable wants 3 seeds of 'toy_four_spin', which has 2: write at most 2",
    ),
    "a claim on a metric that is not measured": (
        edit("branches.toy.claims.samples_follow_energy.tests.0.metric", "kl_generator_modell"),
        "branches.toy.claims.samples_follow_energy tests 'kl_generator_modell', which is not measured of "
        "'toy_four_spin': write one of log_partition, (kl|tv)_",
    ),
    "a claim against a metric of another kind of data": (
        edit(
            "branches.toy.claims.samples_follow_energy.tests.0.threshold",
            {"experiment": "toy_digits", "metric": "kl_generator_model", "at": None, "times": 1.0},
        ),
        "tests 'kl_generator_model', which is not measured of 'toy_digits': write one of (classes_found|",
    ),
    "a search ranked by a metric of other data": (
        edit("branches.toy.searches.planar.ranked_by", ["frechet"]),
        "branches.toy.searches.planar.ranked_by has 'frechet', which is not measured of 'toy_four_spin'",
    ),
    "a search over a key that the row does not have": (
        edit("branches.toy.searches.planar.over", {"optimiser.energy_rat": [1.0e-3]}),
        "branches.toy.searches.planar.over draws 'optimiser.energy_rat', which experiments.toy_four_spin does not have",
    ),
    "a search between two ends that are the wrong way round": (
        edit("branches.toy.searches.planar.over", {"entropy.weight": {"low": 1.0, "high": 0.1}}),
        "branches.toy.searches.planar.over.entropy.weight has low 1 and high 0.1: write the smaller number as low",
    ),
    "a search over a word that is none": (
        edit("branches.toy.searches.planar.over", {"generator.activation": ["relu", "swish"]}),
        'over.generator.activation draws "swish" for toy_four_spin, and generator.activation is "swish": allowed are ',
    ),
    "a search over another kind of optimiser, whose keys the row does not have": (
        edit("branches.toy.searches.planar.over", {"optimiser.kind": ["sgd"]}),
        'branches.toy.searches.planar.over.optimiser.kind draws "sgd" for toy_four_spin, and optimiser',
    ),
    "a search over a count, between two ends": (
        edit("branches.toy.searches.planar.over", {"schedule.batch": {"low": 10, "high": 100}}),
        "over.schedule.batch draws 10.0 for toy_four_spin (whole numbers are drawn from a list), and schedule.batch",
    ),
    "more neighbours for importance weights than a batch has": (
        edit("experiments.four_spin_neighbour.negative.importance.neighbours", 1024),
        "experiments.four_spin_neighbour.negative.importance.neighbours is 1024, and must be below ",
    ),
    "a claim on measures at a step": (
        edit("branches.toy.claims.energy_is_integrable.tests.0.at", "last"),
        'branches.toy.claims.energy_is_integrable has a test at "last", and its figure is measures: write at: null',
    ),
    "a claim on a trace at no step": (
        lambda rows: rows["branches"]["toy"]["claims"]["eq_8_becomes_eq_7"]["tests"][0].update(at=None),
        "claims.eq_8_becomes_eq_7 has a test at null, and its figure is traces: write at: first, or at: last",
    ),
    "a claim on chains at no sampler": (
        lambda rows: rows["branches"]["toy"]["claims"]["mcmc_mixes_badly"]["tests"][0].update(at=None),
        "mcmc_mixes_badly has a test at null, and its figure is mixing: write at: a sampler's name, as generator",
    ),
    "a claim on chains that are not run": (
        edit("branches.toy.mixed", []),
        "branches.toy.claims.mcmc_mixes_badly tests mixing of 'toy_two_spiral', of which none are made: allowed are",
    ),
    "a claim that compares in its own words": (
        edit("branches.toy.claims.mcmc_mixes_badly.tests.0.comparison", "above"),
        'branches.toy.claims.mcmc_mixes_badly.tests.0.comparison is "above": allowed are at most, at least',
    ),
    "a figure of points in Figure 2's list": (
        edit("branches.paper.fig2", ["mnist"]),
        "branches.paper.fig2 names 'mnist', whose data are not two-dimensional",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_that_says_what_to_write(mistake, parameters):
    from ddgm.parameters import check

    change, sentence = MISTAKES[mistake]
    change(parameters)
    with pytest.raises(UserError) as error:
        check(parameters)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "title: 2024-02-30\n",
            r"has a value that cannot be read \(day is out of range for month\): write it in quotes",
        ),
        ("experiments: [1\n", "is not YAML at line 2, column 1"),
        ("", "the file is null, and must be a mapping of keys to values"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(text, sentence, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        parameters.load(str(tmp_path / "params.yaml"))


def test_a_key_that_is_written_twice_is_refused_with_both_its_lines(tmp_path):
    (tmp_path / "params.yaml").write_text("datasets:\n  mnist: {kind: mnist}\n  two: {}\n  mnist: {kind: lsun}\n")
    sentence = "is not YAML at line 4, column 3: the key 'mnist' is at line 2 too, rename or delete one of them"
    with pytest.raises(UserError, match=sentence):
        parameters.load(str(tmp_path / "params.yaml"))


def test_a_key_may_override_one_of_a_part_that_is_put_in(tmp_path):
    (tmp_path / "params.yaml").write_text("c: {a: &a {x: 1}, b: &b {<<: *a, x: 2}}\nd: {<<: *b, x: 3, y: 4}\n")
    assert parameters.read(str(tmp_path / "params.yaml"))["d"] == {"x": 3, "y": 4}
    assert parameters.read(str(tmp_path / "params.yaml"))["c"]["b"] == {"x": 2}


def test_a_missing_file_says_where_to_go(tmp_path):
    with pytest.raises(UserError, match="go to the project's folder, or write --params FILE"):
        parameters.load(str(tmp_path / "nothing.yaml"))


def test_a_jobs_json_is_the_same_rows_as_the_file(parameters):
    from ddgm.parameters import load

    text = json.dumps({"experiments.mnist": parameters["experiments"]["mnist"], "branches.toy.fig2": ["a"]})
    assert load(text)["experiments"]["mnist"] == parameters["experiments"]["mnist"]
    assert load(text)["branches"]["toy"]["fig2"] == ["a"]


def test_the_place_of_original_files_is_read_from_the_parameter_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "params.yaml"
    file.write_text("mirror: /in/the/file\ndatasets: {mnist: {folder: /of/the/user}, celeba: {folder: null}}\n")
    monkeypatch.delenv("DDGM_MIRROR", raising=False)
    assert parameters.place_of_files("mnist", str(file)) == ("/of/the/user", "/in/the/file")
    monkeypatch.setenv("DDGM_MIRROR", "/in/the/environment")
    assert parameters.place_of_files("celeba", str(file)) == (None, "/in/the/environment")
    assert parameters.place_of_files("celeba", str(tmp_path / "none")) == (None, "/in/the/environment")


def test_what_the_snakefile_imports_does_not_load_pytorch():
    code = "import sys, ddgm, ddgm.parameters, ddgm.datasets.registry; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_package_trains_without_snakemake_dvc_and_jsonschema(parameters, tmp_path):
    code = (
        "import sys\n"
        "for name in ('snakemake', 'dvc', 'jsonschema', 'gdown', 'lmdb'): sys.modules[name] = None\n"
        "from ddgm.cli import main\n"
        "assert main(['prepare', 'four_spin', 'train']) == 0\n"
        "assert main(['train', 'toy_four_spin']) == 0\n"
        "assert main(['sample', 'toy_four_spin']) == 0\n"
        "assert main(['draw', 'fig1']) == 0\n"
    )
    parameters["experiments"]["toy_four_spin"]["schedule"]["steps"] = 2
    (tmp_path / "params.yaml").write_text(yaml.dump(parameters, Dumper=DUMPER))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "is not checked" in run.stderr


@pytest.mark.parametrize(
    ("kind", "name", "branch"),
    [
        ("experiment", "toy_digits", "toy"),
        ("experiment", "mnist", "paper"),
        ("dataset", "toy_faces", "toy"),
        ("dataset", "four_spin", "paper"),
        ("dataset", "celeba_15k", "paper"),
        ("claim", "entropy_is_essential", "paper"),
        ("search", "digits", "paper"),
        ("experiment", None, "paper"),
    ],
)
def test_a_command_without_a_branch_is_of_the_one_that_shows_what_it_names(kind, name, branch):
    rows = parameters.load(str(ROOT / "params.yaml"))
    assert parameters.choose_branch(rows, None, kind, name) == branch
    assert parameters.choose_branch(rows, "toy", kind, name) == "toy"


def test_a_jobs_excerpt_without_branches_is_of_the_paper():
    rows = parameters.load('{"datasets.toy_digits.kind": "mnist"}')
    assert parameters.choose_branch(rows, None, "dataset", "toy_digits") == "paper"


def test_of_many_names_the_nearest_are_listed_and_the_others_counted():
    names = [f"row_{number}" for number in range(parameters.LISTED)]
    assert parameters.nearest("x", [*names, "xyz"]) == f": allowed are {', '.join(names)}, xyz"
    said = parameters.nearest("mnits", [*names, "mnist", "other"])
    assert said.startswith(": did you mean 'mnist'? allowed are ") and said.endswith(" and 2 more")
    assert len(said.split(" allowed are ")[1].split(", ")) == parameters.LISTED and "mnist" in said.split("allowed")[1]
