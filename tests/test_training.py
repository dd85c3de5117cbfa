"""Updates, seeds, resuming and stopping."""

import copy
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import MethodType
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ddgm
from conftest import WHOLE, wait_for
from ddgm import checkpoint, provenance
from ddgm.compiled import compiled
from ddgm.entropy import Draw, gaussian_entropy, nearest_neighbour
from ddgm.errors import UserError
from ddgm.experiment import build, build_ensembles, load_snapshots
from ddgm.generator import prior
from ddgm.negative_phase import from_blurred_generator
from ddgm.pair import Pair, clip_scale
from ddgm.pair import gradient as gradient_of
from ddgm.replayed import replayed
from ddgm.training import Run, choose_arithmetic, train

CPU = torch.device("cpu")


def weights(ensemble):
    return {name: value.detach().clone() for name, value in ensemble.parameters.items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def saved_array(folder, data):
    path = folder / "train.npy"
    np.save(path, data.numpy())
    return path


@pytest.fixture(params=["planar", "digit", "image"])
def pair(request):
    return Pair(request.getfixturevalue(f"{request.param}_row"), request.getfixturevalue(f"{request.param}_data"), CPU)


def test_an_energy_step_leaves_the_generator_untouched_and_the_reverse(pair):
    pair.draw_latent()
    energy, generator = weights(pair.energy), weights(pair.generator)
    pair.update_energy()
    assert same(generator, weights(pair.generator)) and not same(energy, weights(pair.energy))
    energy = weights(pair.energy)
    pair.update_generator()
    assert same(energy, weights(pair.energy)) and not same(generator, weights(pair.generator))


def test_seeds_trained_together_are_the_seeds_trained_alone(planar_row, planar_data):
    together = Pair(planar_row, planar_data, CPU)
    alone = Pair({**planar_row, "seeds": [1]}, planar_data, CPU)
    for _ in range(3):
        both, one = together.round(), alone.round()
    torch.testing.assert_close(both[1], one[0], rtol=1e-3, atol=1e-4)
    for name, value in together.energy.weights(1).items():
        torch.testing.assert_close(value, alone.energy.weights(0)[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", ["planar", "digit", "image"])
def test_a_step_is_adams_on_each_weights_own_gradient(kind, request):
    """The first step by hand: rate · g / (|g| + eps), whatever strides the gradients come with."""
    row, data = request.getfixturevalue(f"{kind}_row"), request.getfixturevalue(f"{kind}_data")
    row["seeds"], row["optimiser"]["clip"] = [0, 1], None
    pair = Pair(row, data, CPU)
    rate, eps = row["optimiser"]["generator_rate"], row["optimiser"]["eps"]
    before = weights(pair.generator)
    x = torch.randn(2, *pair.energy(pair.generator(pair.draw_latent())).shape[1:])
    loss = (pair.generator(pair.latent).flatten(2).sum(2) * x).mean(1)
    gradients = torch.autograd.grad(loss.sum(), list(pair.generator.parameters.values()), retain_graph=True)
    pair.descend("generator", gradient_of(loss, pair.generator.parameters))
    for (name, value), gradient in zip(pair.generator.parameters.items(), gradients, strict=True):
        by_hand = before[name] - rate * gradient / (gradient.abs() + eps)
        torch.testing.assert_close(value.detach(), by_hand, rtol=1e-4, atol=1e-6)


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_steps_clip_and_decay_as_torchs_own_optimiser_and_the_energys_weights_alone_decay(
    kind, device, planar_row, planar_data
):
    planar_row["negative"]["importance"] = None
    planar_row["optimiser"].update(kind=kind, beta1=0.5, beta2=0.9, eps=1e-8, clip=0.5, weight_decay=0.1)
    pair = Pair(planar_row, planar_data, torch.device(device))
    made = {
        "adam": lambda w, rate, decay: torch.optim.Adam([w], rate, (0.5, 0.9), 1e-8, decay),
        "adagrad": lambda w, rate, decay: torch.optim.Adagrad(
            [w], rate, weight_decay=decay, initial_accumulator_value=1e-8, eps=0
        ),
    }[kind]
    for net, ensemble in pair.nets():
        own = [weights.clone().requires_grad_() for weights in ensemble.flat]
        plain = [made(w, planar_row["optimiser"][f"{net}_rate"], 0.1 if net == "energy" else 0.0) for w in own]
        for _ in range(3):
            step = torch.randn(ensemble.flat.shape, device=device)
            pair.descend(net, step.clone())
            for w, gradient, optimiser in zip(own, step, plain, strict=True):
                w.grad = gradient.clone()
                torch.nn.utils.clip_grad_norm_([w], 0.5)
                optimiser.step()
        torch.testing.assert_close(ensemble.flat, torch.stack(own).detach(), rtol=1e-4, atol=1e-6)


def test_the_columns_of_a_round_are_the_energies_of_data_and_of_samples(planar_row):
    planar_row["optimiser"].update(energy_rate=1e-12, generator_rate=1e-12)
    data, samples, _ = Pair(planar_row, torch.full((200, 2), 30.0), CPU).round().T
    assert (data > 1000).all() and (samples.abs() < 100).all()


def test_a_row_of_history_is_the_mean_over_the_steps_since_the_last(planar_row, planar_data, tmp_path):
    planar_row["seeds"], planar_row["schedule"]["steps"] = [3], 100
    run, seen = Run("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "state" / "x", CPU), []
    step = run.pair.round
    run.pair.round = lambda: (seen.append(step()), seen[-1])[1]
    run.go(100, 5.0, lambda: 0)
    expected = [torch.stack(seen[at : at + 50]).mean((0, 1)).tolist() for at in (0, 50)]
    np.testing.assert_allclose([row[2:5] for row in run.history], expected, rtol=1e-5)


class PlainLoop:
    """One model as a PyTorch user would train it with Eq. 15, Adagrad and no penalty, with the draws of `seed`."""

    def __init__(self, row, data, seed):
        self.row, self.data, self.stream = row, data, torch.Generator().manual_seed(seed)
        self.energy, self.generator = build(row, (2,), seed)
        self.optimisers = {
            net: torch.optim.Adagrad(
                getattr(self, net).parameters(), row["optimiser"][f"{net}_rate"], initial_accumulator_value=1e-6, eps=0
            )
            for net in ("energy", "generator")
        }

    def descend(self, net, loss):
        self.optimisers[net].zero_grad()
        loss.backward()
        self.optimisers[net].step()

    def round(self):
        n = self.row["schedule"]["batch"]
        samples = self.generator(prior(n, 4, self.stream))
        scales = [value for name, value in self.generator.named_parameters() if name.endswith("scale")]
        entropy = gaussian_entropy(torch.cat(scales)).sum()
        self.descend("generator", self.energy(samples).mean() - self.row["entropy"]["weight"] * entropy)
        data = self.data[torch.randint(len(self.data), (n,), generator=self.stream)]
        samples = self.generator(prior(n, 4, self.stream)).detach()
        self.descend("energy", self.energy(data).mean() - self.energy(samples).mean())


COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.parametrize("fault", ["no compiler", "a compiler that fails"])
def test_what_cannot_be_compiled_is_computed_as_it_is_and_said(fault, monkeypatch, caplog):
    def fail(*_):
        torch.rand(3)
        raise RuntimeError("no such instruction\nand more")

    def plus_one(x):
        return x + 1

    monkeypatch.setattr("shutil.which", lambda name: None if fault == "no compiler" else "/bin/g++")
    monkeypatch.setattr("torch._inductor.compile", fail)
    before = torch.get_rng_state()
    assert compiled(plus_one, torch.zeros(3)) is plus_one
    assert torch.equal(torch.get_rng_state(), before)
    said = [record.getMessage() for record in caplog.records if record.name == "ddgm"]
    reason = "training is not compiled, and slower: RuntimeError: no such instruction"
    assert said == ([] if fault == "no compiler" else [reason])


@pytest.mark.parametrize("worth", [math.inf, pytest.param(0, id="compiled")])
def test_twenty_steps_are_those_of_a_plain_loop(worth, parameters, planar_data, monkeypatch):
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", worth)
    row = parameters["experiments"]["four_spin"]
    row["seeds"], row["schedule"]["steps"] = [0, 1], 20
    row["entropy"] = {"kind": "batch_norm_sum", "weight": 0.025}
    row["energy"]["quadratic"] = "learned"
    row["optimiser"].update(energy_decay=0.0, generator_decay=0.0, weight_decay=0.0)
    row["schedule"]["generator_steps"] = 1
    pair, loops = Pair(row, planar_data, CPU), [PlainLoop(row, planar_data, seed) for seed in row["seeds"]]
    if worth == 0:
        if not COMPILER:
            pytest.skip("no C++ compiler here")
        assert not isinstance(pair.energy_gradient, MethodType), "a program, and not the method itself"
    for _ in range(20):
        pair.round()
        for loop in loops:
            loop.round()
    for index, loop in enumerate(loops):
        for net in ("energy", "generator"):
            for name, value in getattr(loop, net).state_dict().items():
                ours = dict(pair.nets())[net].weights(index)[name]
                torch.testing.assert_close(ours, value, rtol=0, atol=1e-5)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here")
def test_compiled_steps_with_several_neighbours_and_more_samples_are_those_that_are_not(
    planar_row, planar_data, monkeypatch
):
    importance = {"neighbours": [2, 3, 4], "references": 64, "dimensions": 2, "largest": 5.0}
    planar_row["negative"] = {"kind": "generator", "reuse_latent": False, "importance": importance}
    planar_row["entropy"] = {
        "kind": "nearest_neighbour", "weight": 1.0, "neighbours": [2, 3], "references": 0, "dimensions": 2,
    }  # fmt: skip
    pairs = []
    for worth in (math.inf, 0):
        monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", worth)
        pairs.append(Pair(planar_row, planar_data, CPU))
        for _ in range(5):
            pairs[-1].round()
    assert not isinstance(pairs[1].energy_gradient, MethodType)
    for plain, quick in zip(*(dict(pair.nets()).values() for pair in pairs), strict=True):
        torch.testing.assert_close(quick.flat, plain.flat, rtol=0, atol=1e-5)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here")
def test_compiled_gradients_of_several_batches_and_of_blurred_samples_are_those_that_are_not(
    planar_row, planar_data, monkeypatch
):
    """At the same weights: two samples that lie close push each other far, and a round would make more of rounding."""
    planar_row["negative"] = {"kind": "blurred", "spread": 0.1, "references": 64, "largest": 5.0, "rise": 1.0}
    planar_row["schedule"]["steps"] = 2
    planar_row["entropy"].update(neighbours=[2, 3], references=64)
    plain = Pair(planar_row, planar_data, CPU)
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", 0)
    quick = Pair(planar_row, planar_data, CPU)
    assert not isinstance(quick.generator_gradient, MethodType)
    for power in (0.0, 0.5, 1.0):
        nets = plain.generator.flat, plain.energy.flat
        latent, more = plain.draw_latent(), plain.more_latent()
        found, wanted = (pair.generator_gradient(*nets, latent, more)[0] for pair in (quick, plain))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        x, data, penalty = from_blurred_generator(plain, planar_row["negative"]), plain.examples(), torch.tensor(1e-3)
        assert plain.power() == power
        given = plain.energy.flat, x, plain.pool, data, penalty, plain.power()
        found, wanted = (pair.energy_gradient(*given)[0] for pair in (quick, plain))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        plain.round()


@pytest.mark.parametrize(
    ("kind", "sees"), [("dual", (False, False)), ("gan", (True, True)), ("classifier", (True, False))]
)
def test_a_constant_in_the_energy_is_seen_by_losses_that_classify_and_not_by_eqs_12_and_14(
    kind, sees, planar_row, planar_data
):
    gradients = []
    for offset in (0.0, 5.0):
        planar_row["negative"]["importance"] = None
        planar_row["objective"].update(kind=kind, offset=offset)
        pair = Pair(planar_row, planar_data, CPU)
        latent, none = pair.draw_latent(), pair.prior(0)
        data, samples = pair.examples(), pair.sampled(latent)
        energy, _, _ = pair.energy_gradient(pair.energy.flat, samples, samples[:, :0], data, torch.tensor(0.1), WHOLE)
        generator, _, _ = pair.generator_gradient(pair.generator.flat, pair.energy.flat, latent, none)
        gradients.append((energy, generator))
    same = [torch.allclose(*pairs, rtol=1e-4, atol=1e-5) for pairs in zip(*gradients, strict=True)]
    assert same == [not energy_or_generator for energy_or_generator in sees]


def test_an_ensemble_computes_each_net_on_its_own_batch(planar_row):
    pairs = [build(planar_row, (2,), seed) for seed in (0, 1)]
    ensemble = ddgm.ensemble.Ensemble([energy for energy, _ in pairs])
    x = torch.randn(2, 5, 2)
    torch.testing.assert_close(ensemble(x), torch.stack([pairs[0][0](x[0]), pairs[1][0](x[1])]))


def test_binarised_examples_are_black_or_white_and_on_average_the_pictures(digit_row, digit_data):
    digit_row["binarised"], digit_row["range"] = True, [-1.0, 1.0]
    pair = Pair(digit_row, digit_data[:1], CPU)
    drawn = torch.stack([pair.examples() for _ in range(200)])
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(drawn.mean((0, 1, 2)), digit_data[0] / 127.5 - 1, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["planar", "digit", "image"])
def test_weight_norm_starts_as_the_same_energy_and_trains_lengths_and_directions(kind, request, tmp_path):
    row, data = request.getfixturevalue(f"{kind}_row"), request.getfixturevalue(f"{kind}_data")
    row["energy"]["noise"] = 0.0
    plain = Pair(row, data, CPU)
    row["energy"]["weight_norm"] = True
    normed = Pair(row, data, CPU)
    x = plain.examples()
    with torch.no_grad():
        torch.testing.assert_close(normed.energy(x), plain.energy(x), rtol=1e-4, atol=1e-4)
    lengths = [name for name in normed.energy.parameters if name.endswith("weight.original0")]
    assert len(lengths) == len(row["energy"]["hidden"]) + 1, "a layer's and the experts'"
    before = normed.energy.parameters[lengths[0]].detach().clone()
    normed.round()
    assert not torch.equal(normed.energy.parameters[lengths[0]], before)
    train("x", row, saved_array(tmp_path, data), tmp_path / "model", tmp_path / "state" / "x")
    energy, _ = ddgm.load(tmp_path / "model")
    assert torch.isfinite(energy(x[0])).all(), "a saved model with weight norm comes back"


@pytest.mark.parametrize("kind", ["planar", "digit", "image"])
def test_bfloat16_gives_about_the_same_steps_and_keeps_weights_and_energies_in_float32(kind, request):
    row, data = request.getfixturevalue(f"{kind}_row"), request.getfixturevalue(f"{kind}_data")
    pairs = {}
    for precision in ("float32", "bfloat16"):
        pairs[precision] = Pair(row | {"precision": precision}, data, CPU)
    x = pairs["float32"].examples()
    with torch.no_grad():
        energies = {precision: pair.energy(x) for precision, pair in pairs.items()}
    assert energies["bfloat16"].dtype == torch.float32
    error = (energies["bfloat16"] - energies["float32"]).abs().max().item()
    assert 0 < error < 0.05 * max(1, energies["float32"].abs().max().item()), "rounded, and not far off"
    losses = pairs["bfloat16"].round()
    assert torch.isfinite(losses).all() and losses.dtype == torch.float32
    assert all(ensemble.flat.dtype == torch.float32 for _, ensemble in pairs["bfloat16"].nets())


@pytest.mark.parametrize("kind", ["planar", "digit", "image", "bfloat16"])
@pytest.mark.parametrize("k", [7, 10])
def test_k_steps_then_resumed_are_to_the_bit_the_steps_in_one_go(kind, k, tmp_path, request):
    fixture = "digit" if kind == "bfloat16" else kind
    row, data = request.getfixturevalue(f"{fixture}_row"), request.getfixturevalue(f"{fixture}_data")
    row["precision"] = "bfloat16" if kind == "bfloat16" else "float32"
    row["average"] = {"energy": 0.9, "generator": 0.8}
    row["schedule"]["steps"] = 16
    array = saved_array(tmp_path, data)
    train("x", row, array, tmp_path / "whole", tmp_path / "state" / "whole")
    train("x", row, array, tmp_path / "parts", tmp_path / "state" / "parts", until=k)
    assert (tmp_path / "state" / "parts").exists() and not (tmp_path / "parts").exists()
    torch.manual_seed(999)
    train("x", row, array, tmp_path / "parts", tmp_path / "state" / "parts")
    for file in ("weights.safetensors", "history.csv", "experiment.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    assert not (tmp_path / "state" / "parts").exists()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(digit_row, digit_data, tmp_path):
    array = saved_array(tmp_path, digit_data)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train("x", {**digit_row, "seeds": [seed]}, array, tmp_path / name, tmp_path / f"{name}.pt")
    history = {name: (tmp_path / name / "history.csv").read_bytes() for name in "abc"}
    assert history["a"] == history["b"] != history["c"]
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()


def test_a_saved_model_is_loaded_as_it_was_trained(planar_row, planar_data, tmp_path):
    train("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "model", tmp_path / "state" / "x")
    averaged, _ = ddgm.load(tmp_path / "model", seed=1)
    raw, generator = ddgm.load(tmp_path / "model", seed=1, averaged=False)
    x = torch.randn(4, 2)
    assert not torch.allclose(averaged(x), raw(x), atol=1e-6), "averaged weights lag behind"
    assert generator(torch.rand(4, 4)).shape == (4, 2)
    history = pd.read_csv(tmp_path / "model/history.csv")
    assert list(history.columns) == ["seed", "step", "energy_data", "energy_samples", "entropy", "spread", "slope"]
    assert history["seed"].tolist() == [0, 1] and history["step"].tolist() == [30, 30]
    about = json.loads((tmp_path / "model/provenance.json").read_text())
    assert set(about) == {
        "versions", "earlier_code", "device", "processes", "threads", "deterministic", "data_source", "data_sha256",
        "data_held", "seconds",
    }  # fmt: skip
    assert about["earlier_code"] == []
    with pytest.raises(UserError, match=r"has no seed 7: allowed are 0, 1"):
        ddgm.load(tmp_path / "model", seed=7)


def test_the_data_are_hashed_once_at_a_start_and_the_log_and_the_model_name_that_checksum(
    planar_row, planar_data, tmp_path, monkeypatch, caplog
):
    array, hashed = saved_array(tmp_path, planar_data), []
    right = hashlib.sha256(array.read_bytes()).hexdigest()
    checksum = provenance.checksum
    monkeypatch.setattr(provenance, "checksum", lambda file: (hashed.append(file), checksum(file))[1])
    caplog.set_level("INFO", "ddgm")
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x", until=5)
    assert hashed == [array] and f"sha256 {right[:16]}" in caplog.text
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    assert hashed == [array, array], "again in another process"
    assert json.loads((tmp_path / "model/provenance.json").read_text())["data_sha256"] == right


def test_a_model_names_the_code_that_its_training_started_with_whatever_is_committed_meanwhile(
    planar_row, planar_data, tmp_path, new_process, monkeypatch
):
    new_process("one")
    run = Run("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "state" / "x", CPU)
    monkeypatch.setattr(provenance, "version_in_tree", lambda: "two")
    run.go(30, 5.0, lambda: 0)
    run.finish(tmp_path / "model")
    about = json.loads((tmp_path / "model/provenance.json").read_text())
    assert about["versions"]["ddgm"] == "one" and about["earlier_code"] == []


def test_a_model_names_every_code_that_it_was_trained_by_in_order(
    planar_row, planar_data, tmp_path, new_process, caplog
):
    array, states = saved_array(tmp_path, planar_data), tmp_path / "state" / "x"
    for code, until in (("one", 5), ("one", 8), ("two", 10), ("one", 15), ("three", 30)):
        new_process(code)
        train("x", planar_row, array, tmp_path / "model", states, until=until)
    about = json.loads((tmp_path / "model/provenance.json").read_text())
    assert about["versions"]["ddgm"] == "three" and about["earlier_code"] == ["one", "two", "one"]
    assert caplog.text.count(f"{states} was saved by code version one, and goes on with") == 2


def test_the_averaged_weights_are_the_exponential_average(planar_row, planar_data):
    planar_row["average"] = {"energy": 0.5, "generator": 0.0}
    pair = Pair(planar_row, planar_data, CPU)
    by_hand = weights(pair.energy)
    for _ in range(3):
        pair.round()
        by_hand = {name: 0.5 * value + 0.5 * pair.energy.parameters[name].detach() for name, value in by_hand.items()}
    for name, value in pair.energy.split(pair.averages["energy"]).items():
        torch.testing.assert_close(value, by_hand[name])


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_seed_named(planar_row, planar_data, tmp_path):
    planar_row["optimiser"].update(energy_rate=1e30, generator_rate=1e30)
    array = saved_array(tmp_path, planar_data)
    with pytest.raises(UserError, match=r"x, seed 0: \w+ is -?(nan|inf) at step \d+ .*lower the rates"):
        train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    assert not (tmp_path / "model").exists()


def test_a_finished_model_is_trained_anew_by_the_same_command_which_says_so(planar_row, planar_data, tmp_path, caplog):
    array, said = saved_array(tmp_path, planar_data), "is a finished model, and is trained anew"
    for again in (False, True):
        caplog.clear()
        with caplog.at_level("INFO"):
            train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
        assert (said in caplog.text) == again and "30 steps in" in caplog.text


def test_a_state_of_other_parameters_is_refused_by_name(planar_row, planar_data, tmp_path):
    array = saved_array(tmp_path, planar_data)
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x", until=5)
    other = copy.deepcopy(planar_row)
    other["optimiser"]["energy_rate"] = 0.5
    before = planar_row["optimiser"]["energy_rate"]
    with pytest.raises(UserError, match=rf"row\.optimiser\.energy_rate = {before}, and now it is 0\.5"):
        train("x", other, array, tmp_path / "model", tmp_path / "state" / "x")
    train("x", other, array, tmp_path / "model", tmp_path / "state" / "x", restart=True)
    with pytest.raises(UserError, match=r"model of x made with optimiser\.energy_rate = 0\.5"):
        train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")


def test_an_update_of_the_generator_is_of_the_batch_and_of_the_entropys_references(planar_row, planar_data):
    """Each batch has its own statistics of batch norm, and the gradient is that of all of them together."""
    planar_row["entropy"] = {
        "kind": "nearest_neighbour", "weight": 1.0, "neighbours": [2, 3], "references": 64, "dimensions": 2,
    }  # fmt: skip
    pair = Pair(planar_row, planar_data, CPU)
    latent, others = pair.prior(32), pair.prior(64)
    generator, energy = (ensemble.flat for ensemble in (pair.generator, pair.energy))
    found, energies, _ = pair.generator_gradient(generator, energy, latent, others)
    parameters = pair.generator.split(generator)
    samples = torch.cat([pair.generator(z, parameters) for z in (latent, others[:, :32], others[:, 32:])], 1)
    draw = Draw(torch.zeros(2, 0), samples, latent, lambda z: z)
    at_samples = pair.energy(samples)
    torch.testing.assert_close(energies, at_samples.mean(1))
    loss = (at_samples.mean(1) - nearest_neighbour(draw, planar_row["entropy"])).sum()
    by_hand = torch.cat([g.flatten(1) for g in torch.autograd.grad(loss, list(parameters.values()))], 1)
    torch.testing.assert_close(found, by_hand)


def test_a_round_is_as_many_updates_of_each_net_as_the_schedule_has(planar_row, planar_data, monkeypatch):
    planar_row["schedule"].update(generator_steps=3, energy_steps=2)
    pair, updates = Pair(planar_row, planar_data, CPU), []
    for net in ("generator", "energy"):
        update = getattr(pair, f"update_{net}")
        monkeypatch.setattr(pair, f"update_{net}", lambda net=net, update=update: (updates.append(net), update())[1])
    pair.round()
    assert updates == ["generator"] * 3 + ["energy"] * 2 and pair.step == 1


def test_a_state_that_has_diverged_is_not_saved(planar_row, planar_data, tmp_path):
    array = saved_array(tmp_path, planar_data)
    run = Run("x", planar_row, array, tmp_path / "state" / "x", CPU)
    run.go(5, 5.0, lambda: False)
    run.pending[-1][1, 2] = float("nan")
    with pytest.raises(UserError, match="x, seed 1: entropy is nan at step 5"):
        run.save()
    assert not any((tmp_path / "state" / "x").glob("*.pt"))


def test_a_model_with_a_weight_that_is_no_number_is_not_written(planar_row, planar_data, tmp_path):
    run = Run("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "state" / "x", CPU)
    run.go(planar_row["schedule"]["steps"], 5.0, lambda: False)
    run.pair.energy.flat[1, 0] = float("nan")
    with pytest.raises(UserError, match="x, seed 1: a weight is no finite number after the last step: lower"):
        run.finish(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("file", "sentence"),
    [("experiment.json", "is damaged: delete"), ("weights.safetensors", "is missing or damaged: delete")],
)
def test_a_damaged_model_is_refused_in_one_sentence(file, sentence, planar_row, planar_data, tmp_path):
    train("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "model", tmp_path / "state" / "x")
    path = tmp_path / "model" / file
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=sentence):
        ddgm.load(tmp_path / "model")


def test_a_model_of_another_make_is_refused_in_one_sentence(planar_row, planar_data, tmp_path):
    planar_row["schedule"]["snapshots"] = 2
    train("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "model", tmp_path / "state" / "x")
    about = tmp_path / "model" / "experiment.json"
    row = json.loads(about.read_text())
    row["row"]["energy"]["hidden"] = [8, 8]
    about.write_text(json.dumps(row))
    for read in (ddgm.load, lambda directory: next(load_snapshots(directory))):
        with pytest.raises(UserError, match=r"are not those of the row beside them: delete .*model and train again"):
            read(tmp_path / "model")
    about.write_text("{}")
    with pytest.raises(UserError, match=r"experiment\.json is damaged: delete"):
        ddgm.load(tmp_path / "model")


def test_the_newest_states_are_kept_and_a_damaged_one_is_passed_over(planar_row, planar_data, tmp_path):
    """Killed while the disk loses what it has not written, a training goes on from the state before."""
    planar_row["schedule"]["steps"] = 60
    array, states = saved_array(tmp_path, planar_data), tmp_path / "state" / "x"
    train("x", planar_row, array, tmp_path / "whole", tmp_path / "state" / "whole")
    train("x", planar_row, array, tmp_path / "model", states, checkpoint_minutes=0.0, checkpoints=3, until=55)
    assert sorted(path.stem for path in states.iterdir()) == ["000000053", "000000054", "000000055"]
    newest = states / "000000055.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train("x", planar_row, array, tmp_path / "model", states)
    for file in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "model" / file).read_bytes(), file
    assert not states.exists(), "nothing to go on from is left"


@pytest.mark.parametrize("kind", ["planar", "digit"])
def test_a_state_is_saved_as_soon_as_the_minutes_are_over(kind, request, tmp_path, monkeypatch):
    """Killed outright, a training loses those minutes and no more: a round takes a second of the clock here."""
    row, data = request.getfixturevalue(f"{kind}_row"), request.getfixturevalue(f"{kind}_data")
    row["average"], row["schedule"]["steps"] = {"energy": 0.9, "generator": 0.8}, 100
    row["schedule"].update(snapshots=4, pictures=4)
    array, states = saved_array(tmp_path, data), tmp_path / "state" / "x"
    train("x", row, array, tmp_path / "whole", tmp_path / "state" / "whole")
    step, read, clock, looked_at = Pair.round, Run.refuse_divergence, [0.0], []

    def round_of_a_second(pair):
        if pair.step == 90:
            raise InterruptedError("kill -9")
        clock[0] += 1
        return step(pair)

    def noted(run, values):
        looked_at.append((run.pair.step, len(values)))
        return read(run, values)

    with monkeypatch.context() as killed, pytest.raises(InterruptedError):
        killed.setattr(Pair, "round", round_of_a_second)
        killed.setattr(Run, "refuse_divergence", noted)
        killed.setattr(time, "monotonic", lambda: clock[0])
        train("x", row, array, tmp_path / "model", states, checkpoint_minutes=1.0)
    assert [path.name for path in states.iterdir()] == ["000000061.pt"], "at the first step after a minute"
    assert looked_at == [(50, 50), (61, 11)], "losses are read for a report or a state, and never for the clock"
    train("x", row, array, tmp_path / "model", states)
    for file in ("weights.safetensors", "snapshots.safetensors", "history.csv", "progress.npz"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "model" / file).read_bytes(), file


def test_an_energy_beyond_the_bound_stops_a_training_and_is_named(planar_row, planar_data, tmp_path):
    planar_row["watch"]["energy"] = 1e-3
    with pytest.raises(UserError, match=r"x, seed 0: an energy of .* is beyond watch.energy \(0.001\) at step 30"):
        train("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "model", tmp_path / "state" / "x")
    assert not (tmp_path / "model").exists()


def test_samples_that_are_all_alike_stop_a_training(image_row, image_data, tmp_path):
    """A generator whose first layer is 0 makes of every z one picture: the collapse on the mean image."""
    array = saved_array(tmp_path, image_data)
    image_row["optimiser"]["generator_rate"] = 1e-12
    run = Run("x", image_row, array, tmp_path / "state" / "x", CPU)
    run.go(10, 5.0, lambda: 0)
    assert run.history[-1][-2] > 1e-3, "the spread is the history's last column but one"
    run = Run("x", image_row, array, tmp_path / "state" / "x", CPU)
    run.pair.generator.flat.zero_()
    with pytest.raises(UserError, match=r"x, seed 0: all samples are alike at step 10, their variance is 0 times"):
        run.go(10, 5.0, lambda: 0)
    image_row["watch"]["spread"] = None
    run = Run("x", image_row, array, tmp_path / "state" / "x", CPU)
    run.pair.generator.flat.zero_()
    run.go(10, 5.0, lambda: 0)


def test_a_flat_energy_stops_a_training(image_row, image_data, tmp_path):
    """With experts that weigh no feature every image has one energy, and the generator nothing to follow."""
    array = saved_array(tmp_path, image_data)
    image_row["watch"]["spread"] = None
    image_row["optimiser"]["energy_rate"] = 1e-12

    def flat_run():
        run = Run("x", image_row, array, tmp_path / "state" / "x", CPU)
        run.pair.energy.parameters["experts.weight"].data.zero_()
        return run

    with pytest.raises(
        UserError, match=r"x, seed 0: the energy is flat at step 10, its slope at samples is .* watch.slope 0.001"
    ):
        flat_run().go(10, 5.0, lambda: 0)
    image_row["watch"]["slope"] = None
    run = flat_run()
    run.go(10, 5.0, lambda: 0)
    assert 0 <= run.history[-1][-1] < 1e-3, "the slope is the history's last column"


def test_the_slope_of_the_history_is_that_of_the_energy_at_the_samples(planar_row, planar_data):
    """By differences along x, and nothing is taken from the training's random streams."""
    planar_row["energy"]["noise"] = 0.0
    pair = Pair(planar_row, planar_data, CPU)
    pair.round()
    samples, slope = pair.sampled(pair.latent), pair.health()[:, 1]
    step = 1e-3 * torch.eye(2).view(2, 1, 1, 2)
    by_differences = torch.stack([(pair.energies(samples + d) - pair.energies(samples - d)) / 2e-3 for d in step])
    assert torch.allclose(slope, by_differences.norm(dim=0).mean(1), rtol=2e-2)
    planar_row["energy"]["noise"] = 0.5
    pair = Pair(planar_row, planar_data, CPU)
    state = torch.get_rng_state()
    assert not torch.equal(pair.health()[:, 1], pair.health()[:, 1])
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_z_are_shown_along_training(image_row, image_data, tmp_path):
    image_row["schedule"].update(steps=40, pictures=3)
    image_row["generator"]["noise"] = 0.1
    array = saved_array(tmp_path, image_data)
    train("x", image_row, array, tmp_path / "model", tmp_path / "state" / "x")
    with np.load(tmp_path / "model" / "progress.npz") as progress:
        steps, samples = progress["steps"].tolist(), progress["samples"]
    assert steps == [1, 6, 40] and samples.shape == (3, 1, 16, 3, 16, 16) and samples.dtype == np.uint8
    assert np.ptp(samples.astype(int), axis=0).max() > 20, "what the same z give changes"
    # Looking takes nothing from the streams of the training.
    image_row["schedule"]["pictures"] = 0
    train("x", image_row, array, tmp_path / "unseen", tmp_path / "state" / "x")
    weights = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("model", "unseen")]
    assert weights[0] == weights[1]


def test_deterministic_operations_and_tf32_are_what_a_row_asks_for(planar_row):
    try:
        choose_arithmetic({**planar_row, "deterministic": True, "precision": "tf32"})
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    finally:
        choose_arithmetic(planar_row)
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_convolutional_net_is_run_seed_by_seed_whatever_the_other_is(image_row):
    image_row["generator"] = {**image_row["generator"], "kind": "dense", "hidden": [16]}
    energy, generator = build_ensembles(image_row, (3, 16, 16), [0, 1])
    assert energy.apart and not generator.apart


def test_a_state_that_memory_is_too_small_for_is_not_called_broken(planar_row, planar_data, tmp_path, monkeypatch):
    array, folder = saved_array(tmp_path, planar_data), tmp_path / "state" / "x"
    train("x", planar_row, array, tmp_path / "model", folder, until=3)

    def load(path, **_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train("x", planar_row, array, tmp_path / "model", folder)
    monkeypatch.setattr(torch, "load", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(PermissionError):
        train("x", planar_row, array, tmp_path / "model", folder)
    assert len(list(folder.glob("*.pt"))) == 1


def test_a_broken_state_of_a_later_step_is_not_one_of_those_kept(tmp_path):
    for step in (300, 600):
        checkpoint.save(tmp_path, step, {}, {"step": step}, 2)
    (tmp_path / "000000900.pt").write_bytes(b"cut off")
    assert checkpoint.load(tmp_path, {}) == {"step": 600}
    checkpoint.save(tmp_path, 650, {}, {"step": 650}, 2)
    assert sorted(int(path.stem) for path in tmp_path.glob("*.pt")) == [600, 650]


@pytest.mark.parametrize(
    ("key", "advice"),
    [("data", "bring the same data back"), ("device", "write device: cuda"), ("row.clip", "write the old value back")],
)
def test_a_state_of_another_making_says_what_goes_on_with_it(key, advice, tmp_path):
    def about(value):
        return {"row": {"clip": value}} if key == "row.clip" else {key: value}

    checkpoint.save(tmp_path, 1, about("cuda"), {}, 2)
    with pytest.raises(UserError, match=f"was made with {key} = cuda, and now it is cpu: {advice} to go on with it"):
        checkpoint.load(tmp_path, about("cpu"))


@pytest.mark.parametrize(("state", "by"), [({}, "an older version"), ({"code": "0.1.0+abc"}, "0.1.0+abc")])
def test_a_state_of_another_format_is_refused_first_and_what_to_do_is_said(state, by, tmp_path):
    torch.save({"parameters": {"device": "cuda"}, "state": state}, tmp_path / "000000001.pt")
    with pytest.raises(UserError, match=rf"000000001\.pt was saved by ddgm {re.escape(by)}, whose .* --restart"):
        checkpoint.load(tmp_path, {"device": "cpu"})


def test_a_damaged_state_is_refused_in_one_sentence(planar_row, planar_data, tmp_path):
    (tmp_path / "state" / "x").mkdir(parents=True)
    (tmp_path / "state" / "x" / "000000007.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"x/000000007\.pt cannot be read as a checkpoint, nor any other: delete"):
        train("x", planar_row, saved_array(tmp_path, planar_data), tmp_path / "model", tmp_path / "state" / "x")


def test_cuda_asked_for_where_there_is_none_is_refused(planar_row, planar_data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(UserError, match="write 'auto' or 'cpu'"):
        train(
            "x",
            {**planar_row, "device": "cuda"},
            saved_array(tmp_path, planar_data),
            tmp_path / "m",
            tmp_path / "state" / "x",
        )


class RepeatedCall:
    """What a CUDA graph is to its caller: the same tensors in, the same tensors out, computed anew at each replay."""

    def __init__(self, function, tensors):
        self.function, self.tensors = function, tensors
        self.result = function(*tensors)

    def replay(self):
        new = self.function(*self.tensors)
        if isinstance(new, torch.Tensor):
            self.result.copy_(new)
        else:
            for held, value in zip(self.result, new, strict=True):
                held.copy_(value)


@pytest.mark.parametrize(
    ("experiment", "schedule"),
    [
        ("four_spin_neighbour", "alternating"),
        ("two_spiral_persistent", "alternating"),
        ("mnist_spliced", "alternating"),
        ("toy_faces", "alternating"),
        ("toy_faces", "simultaneous"),
    ],
)
def test_replayed_functions_read_the_weights_where_they_lie_and_take_in_the_rest(
    experiment, schedule, request, parameters, monkeypatch
):
    """The bookkeeping of graphs, with a stand-in for them where there is no GPU."""
    row = parameters["experiments"][experiment]
    kind = "planar" if row["range"] is None else "digit" if experiment.startswith("mnist") else "image"
    data = request.getfixturevalue(f"{kind}_data")
    row["schedule"].update(kind=schedule, batch=16)
    row["energy"]["noise"], row["generator"]["noise"], row["precision"] = 0.0, 0.0, "float32"
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", math.inf)
    captured = Mock(side_effect=lambda function, *tensors: (g := RepeatedCall(function, tensors), g.result))
    monkeypatch.setattr("ddgm.replayed.captured", captured)
    replaying, plain = Pair(row, data, CPU), Pair(row, data, CPU)
    replaying.hasten(programs=False, graphs=True)
    found = [torch.stack([pair.round() for _ in range(4)]) for pair in (replaying, plain)]
    assert captured.call_count == (1 if schedule == "simultaneous" else 3)
    assert torch.equal(*found) and not torch.equal(found[0][0], found[0][1])
    for (_, ours), (_, theirs) in zip(replaying.nets(), plain.nets(), strict=True):
        assert torch.equal(ours.flat, theirs.flat)
    assert torch.equal(replaying.shown(), plain.shown()), "by other weights, where they are averaged"
    assert torch.equal(replaying.health(), plain.health())


def test_what_cannot_be_captured_is_computed_without_and_said(monkeypatch, caplog):
    monkeypatch.setattr("ddgm.replayed.captured", Mock(side_effect=RuntimeError("not permitted\nat all")))
    double = replayed(torch.mul, torch.mul, [torch.ones(2)], torch.zeros(2))
    assert torch.equal(double(torch.ones(2), torch.ones(2)), torch.ones(2))
    assert "training is not replayed, and slower: not permitted" in caplog.text
    monkeypatch.setattr("ddgm.replayed.captured", Mock(side_effect=torch.OutOfMemoryError("20.00 GiB")))
    with pytest.raises(torch.OutOfMemoryError):
        replayed(torch.mul, torch.mul, [torch.ones(2)], torch.zeros(2))


def test_a_program_is_not_asked_for_shapes_that_it_was_not_made_for(monkeypatch):
    """A compiled program knows its example's shapes alone; what has others is computed by operations."""
    monkeypatch.setattr("ddgm.replayed.captured", lambda function, *held: (Mock(), function(*held)))
    weights, program = torch.full((2,), 3.0), Mock(side_effect=torch.mul)
    double = replayed(program, torch.mul, [weights], torch.zeros(4, 2))
    program.reset_mock()
    assert torch.equal(double(weights, torch.ones(1, 2)), torch.full((1, 2), 3.0)) and not program.called
    assert torch.equal(double(torch.ones(2), torch.ones(4, 2)), torch.ones(4, 2)) and program.called


class NothingRead(TorchDispatchMode):
    """Refuses what would make a CPU wait for a GPU: a value read, a shape that hangs on values, a number copied."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aten, tags = torch.ops.aten, {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        if function in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            # Of row numbers the shape is known before, of a mask it is not.
            waits = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        else:
            waits = function is aten.lift_fresh.default or not tags.isdisjoint(function.tags)
        if waits:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: 1 if x.sum() > 3 else 0,
        lambda x: x[x > 1],
        lambda x: x.clone().__setitem__(x > 1, x[:2]),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x * torch.tensor(3.0),
    ],
)
def test_what_waits_for_a_device_is_seen(act):
    act(x := torch.arange(4.0))
    with NothingRead(), pytest.raises(AssertionError, match="waits for the device"):
        act(x)


@pytest.mark.parametrize("kind", ["alternating", "simultaneous"])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    "entropy",
    [
        {"kind": "nearest_neighbour", "neighbours": 3, "references": 0, "dimensions": 5},
        {"kind": "variational", "sd": 0.1, "width": 0.1, "proposals": 3},
        {"kind": "batch_norm_sum"},
    ],
    ids=lambda row: row["kind"],
)
def test_a_round_reads_nothing(kind, everything, entropy, image_row, image_data, monkeypatch):
    """What waits on a GPU is seen on a CPU too: there is no such call in the inner loop."""
    image_row["schedule"]["kind"], image_row["entropy"] = kind, {"weight": 0.1, **entropy}
    if kind == "alternating" and "references" in entropy:
        image_row["entropy"]["references"] = 2 * image_row["schedule"]["batch"]
    image_row["negative"]["reuse_latent"] = True
    image_row["precision"] = "bfloat16" if everything else "float32"
    image_row["flips"], image_row["optimiser"]["clip"] = everything, 1.0 if everything else None
    image_row["objective"].update(penalty=0.1 * everything, penalty_end=0.01 * everything)
    pair = Pair(image_row, image_data, CPU)
    # What is made once is made with the first.
    pair.round()
    for name in ("cpu", "tolist", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, Mock(side_effect=AssertionError(f"{name} waits for the device")))
    with NothingRead():
        pair.round()


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("kind", ["alternating", "simultaneous"])
def test_a_round_on_a_gpu_waits_for_nothing(kind, image_row, image_data):
    """A call that makes the CPU wait for the GPU in the inner loop raises."""
    image_row["schedule"]["kind"] = kind
    image_row["negative"]["reuse_latent"] = True
    pair = Pair(image_row, image_data, torch.device("cuda"))
    pair.round()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pair.round()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("worth", [math.inf, pytest.param(0, id="compiled")])
@pytest.mark.parametrize(
    "experiment",
    [
        "planar", "four_spin_langevin", "four_spin_blurred", "four_spin_outputs_weighted", "digit", "mnist_spliced",
        "image", "image_simultaneous", "image_bfloat16",
    ],
)  # fmt: skip
def test_graphs_on_a_gpu_compute_what_the_operations_one_by_one_do(
    experiment, worth, request, parameters, monkeypatch, caplog
):
    name = experiment.split("_")[0]
    row = parameters["experiments"].get(experiment) or request.getfixturevalue(f"{name}_row")
    kind = {"four": "planar", "mnist": "digit"}.get(name, name)
    data = request.getfixturevalue(f"{kind}_data")
    row["energy"]["noise"] = row["generator"]["noise"] = 0.0
    row["precision"] = "bfloat16" if experiment.endswith("bfloat16") else "float32"
    if experiment == "image_simultaneous":
        row["schedule"]["kind"] = "simultaneous"
    # Few steps, so that what changes along a training (penalty, power of weights, rates) changes here.
    row["schedule"].update(batch=16, steps=8)
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", worth)
    choose_arithmetic({**row, "deterministic": True})
    try:
        graphs = Pair(row, data, torch.device("cuda"))
        monkeypatch.setattr(Pair, "hasten", lambda pair, programs, graphs: None)
        plain = Pair(row, data, torch.device("cuda"))
        found = [torch.stack([pair.round() for _ in range(4)]) for pair in (graphs, plain)]
        assert torch.equal(graphs.shown(), graphs.shown())
    finally:
        choose_arithmetic({"precision": "float32", "deterministic": False})
    assert "and slower" not in caplog.text, "what cannot be captured or compiled is computed without"
    if worth:
        assert torch.equal(*found) and torch.equal(graphs.energy.flat, plain.energy.flat)
    else:
        rough = 2e-2 if row["precision"] == "bfloat16" else 1e-4
        torch.testing.assert_close(*found, rtol=rough, atol=rough)
    assert not torch.equal(found[0][0], found[0][1])


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("worth", [math.inf, pytest.param(0, id="compiled")])
@pytest.mark.parametrize("kind", ["planar", "digit", "image"])
def test_a_deterministic_training_repeats_to_the_bit_on_a_gpu(kind, worth, request, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ddgm.pair.WORTH_COMPILING", worth)
    row = {**request.getfixturevalue(f"{kind}_row"), "device": "cuda", "deterministic": True}
    array = saved_array(tmp_path, request.getfixturevalue(f"{kind}_data"))
    try:
        for name in ("one", "two"):
            train("x", row, array, tmp_path / name, tmp_path / "state" / name)
    finally:
        choose_arithmetic({"precision": "float32", "deterministic": False})
    assert "and slower" not in caplog.text, "it is the graphs that are to repeat"
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("optimiser", ["adam", "adagrad"])
@pytest.mark.parametrize("kind", ["planar", "image"])
def test_a_training_on_a_gpu_that_was_stopped_goes_on_as_if_it_had_not_been(kind, optimiser, request, tmp_path):
    row = {**request.getfixturevalue(f"{kind}_row"), "device": "cuda", "deterministic": True}
    row["optimiser"]["kind"] = optimiser
    array = saved_array(tmp_path, request.getfixturevalue(f"{kind}_data"))
    try:
        for name, until in (("whole", None), ("halves", 4), ("halves", None)):
            train("x", row, array, tmp_path / name, tmp_path / "state" / name, until=until)
    finally:
        choose_arithmetic({"precision": "float32", "deterministic": False})
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "halves")]
    assert weights[0] == weights[1]


@pytest.mark.gpu
@NO_GPU
def test_an_energy_on_cuda_starts_as_the_cpus_and_is_trained(planar_row, planar_data):
    pairs = [Pair(planar_row, planar_data, torch.device(name)) for name in ("cpu", "cuda")]
    start = [pair.energy(planar_data[None].expand(2, -1, -1).to(pair.device)).cpu() for pair in pairs]
    torch.testing.assert_close(*start, rtol=1e-4, atol=1e-4)
    for pair in pairs:
        assert torch.isfinite(pair.round()).all()


TRAIN = """
import json, sys, time
from pathlib import Path
from ddgm.entropy import gaussian_entropy
from ddgm.errors import UserError
from ddgm.pair import Pair
from ddgm.training import Run, train
from ddgm.progress import start_log
row, array, folder, minutes = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
start_log(folder / "log")
step = Pair.round
def slowly(pair):
    if pair.step == 20:
        (folder / "at work").touch()
    while pair.step == 60 and not (folder / "asked").exists():
        time.sleep(0.01)
    return step(pair)
Pair.round = slowly
try:
    train("x", row, array, folder / "model", folder / "state" / "x", checkpoint_minutes=minutes)
except KeyboardInterrupt:
    sys.exit(130)
except UserError as error:
    sys.exit(str(error))
"""


def start_trainer(row, array, folder, minutes):
    command = [sys.executable, "-c", TRAIN, json.dumps(row), str(array), str(folder), str(minutes)]
    # Within a job of Slurm a second trainer would be told of that.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_training_goes_on_to_the_bit(number, planar_row, planar_data, tmp_path):
    planar_row["schedule"]["steps"] = 100
    array = saved_array(tmp_path, planar_data)
    train("x", planar_row, array, tmp_path / "whole", tmp_path / "state" / "whole")
    # Killed outright, only what was saved on the way is left; asked to stop, it saves what it has.
    running = start_trainer(planar_row, array, tmp_path, 0.0 if number == signal.SIGKILL else 5.0)
    states = tmp_path / "state" / "x"
    try:
        wait_for((tmp_path / "at work").exists, running)
        if number == signal.SIGKILL:
            wait_for(lambda: any(states.glob("[0-9]*.pt")), running)
        running.send_signal(number)
        (tmp_path / "asked").touch()
        _, said = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -9}[number], said
    assert not (tmp_path / "model").exists()
    assert 20 <= max(int(state.stem) for state in states.glob("[0-9]*.pt")) < 100, "on the way"
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    for file in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "model" / file).read_bytes(), file


def test_a_second_trainer_of_one_run_is_refused_with_what_to_type(planar_row, planar_data, tmp_path):
    planar_row["schedule"]["steps"] = 100000
    array = saved_array(tmp_path, planar_data)
    running, lock = start_trainer(planar_row, array, tmp_path, 5.0), tmp_path / "state" / "x.lock"
    try:
        wait_for(lambda: lock.exists() and lock.read_text().strip(), running)
        with pytest.raises(UserError, match=rf"process {running.pid} is training x already: .*'kill {running.pid}'"):
            train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    finally:
        running.kill()
        running.communicate()


def test_clipping_bounds_each_seeds_gradient_on_its_own():
    step = torch.tensor([[3.0, 0.0, 4.0], [0.3, 0.0, 0.4]])
    assert clip_scale(step, 1.0).tolist() == pytest.approx([0.2, 1.0])
