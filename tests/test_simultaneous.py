"""One pass of the energy over the samples in place of two: the schedule `simultaneous`."""

import copy

import pytest
import torch

from conftest import WHOLE
from ddgm.objectives.penalty import slopes_of, squared_norm
from ddgm.pair import Pair

CPU = torch.device("cpu")


def simultaneous(row):
    row = copy.deepcopy(row)
    row["schedule"].update(kind="simultaneous", generator_steps=1, energy_steps=1)
    row["negative"] = {"kind": "generator", "reuse_latent": True, "importance": None}
    return row


@pytest.fixture(params=["planar", "image"])
def pair(request):
    row = simultaneous(request.getfixturevalue(f"{request.param}_row"))
    row["entropy"] = {"kind": "batch_norm_mean", "weight": 0.3}
    return Pair(row, request.getfixturevalue(f"{request.param}_data"), CPU)


def gradients(pair, penalty):
    """Both nets' gradients by `both_gradients`, and what it was given."""
    pair.row["objective"].update(penalty=penalty, penalty_end=penalty)
    latent, data = pair.draw_latent(), pair.examples()
    weight = torch.tensor(penalty)
    found = pair.both_gradients(pair.generator.flat, pair.energy.flat, latent, data, weight)
    return found, latent, data, weight


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_one_pass_gives_the_gradients_of_two(penalty, pair):
    """Those of the alternating schedule, at the same weights, data and z."""
    (of_generator, of_energy, *measured), latent, data, weight = gradients(pair, penalty)
    expected, *_, entropy = pair.generator_gradient(pair.generator.flat, pair.energy.flat, latent, latent[:, :0])
    torch.testing.assert_close(of_generator, expected, rtol=1e-4, atol=1e-6)
    samples = pair.sampled(latent)
    expected, of_data, of_samples = pair.energy_gradient(pair.energy.flat, samples, samples[:, :0], data, weight, WHOLE)
    torch.testing.assert_close(of_energy, expected, rtol=1e-4, atol=1e-6)
    for found, wanted in zip(measured, (of_data, of_samples, entropy), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_a_round_runs_the_energy_once(penalty, image_row, image_data):
    """Over data and samples together; alternating runs it over the samples twice."""
    image_row["objective"].update(penalty=penalty, penalty_end=penalty)
    seen = {}
    for kind, row in (("simultaneous", simultaneous(image_row)), ("alternating", image_row)):
        pair, rows = Pair(row, image_data, CPU), []
        forward = pair.energy.net.forward
        pair.energy.net.forward = lambda x, forward=forward, rows=rows: rows.append(len(x)) or forward(x)
        pair.round()
        seen[kind] = rows
    n = image_row["schedule"]["batch"]
    assert seen == {"simultaneous": [2 * n], "alternating": [n, 2 * n]}


def test_both_nets_move_from_where_both_are(image_row, image_data):
    """The energy meets the samples of the generator before its update, and the generator the energy before its own."""
    pair = Pair(simultaneous(image_row), image_data, CPU)
    before = {net: ensemble.flat.clone() for net, ensemble in pair.nets()}
    pair.round()
    again = Pair(simultaneous(image_row), image_data, CPU)
    latent = again.draw_latent()
    weight = torch.tensor(again.penalty())
    of_generator, of_energy, *_ = again.both_gradients(
        before["generator"], before["energy"], latent, again.examples(), weight
    )
    again.descend("energy", of_energy)
    again.descend("generator", of_generator)
    for net, ensemble in again.nets():
        torch.testing.assert_close(ensemble.flat, dict(pair.nets())[net].flat, rtol=0, atol=0)


def test_the_penalty_on_the_slope_is_that_of_its_definition():
    x = torch.randn(1, 4, 3, requires_grad=True)
    slopes = slopes_of((x**2).sum(2) / 2, x)
    torch.testing.assert_close(squared_norm(slopes), x.square().sum(2).mean(1))
