"""The energy's negative samples, whatever they come from, and what changes along a training."""

import numpy as np
import pytest
import torch

from conftest import WHOLE
from ddgm.errors import UserError
from ddgm.experiment import load, load_snapshots
from ddgm.negative_phase import NEGATIVES, blurred_weights, importance_weights, spread_at
from ddgm.objectives.outliers import EDGE
from ddgm.pair import Pair
from ddgm.row import untitled
from ddgm.training import Run, moments, train

CPU = torch.device("cpu")
KINDS = {
    "generator": {"kind": "generator", "reuse_latent": False, "importance": None},
    "blurred": {"kind": "blurred", "spread": 0.1, "references": 64, "largest": 5.0, "rise": 0.0},
    "langevin": {"kind": "langevin", "steps": 3, "rate": 0.01, "reach": 0.1, "spread": 1.5},
    "persistent": {"kind": "persistent", "steps": 3, "rate": 0.01, "reach": 0.1, "spread": 1.5},
    "quadrature": {"kind": "quadrature", "half_width": 3.6, "nodes": 24},
}


def negatives(pair):
    return NEGATIVES[pair.row["negative"]["kind"]](pair, pair.row["negative"])


def gaussian_energies(mean, sd):
    """E of N(mean, sd² I), and its slope."""
    at = torch.tensor(mean)
    return lambda x: (x - at).square().sum(-1) / (2 * sd**2), lambda x: (x - at) / sd**2


@pytest.fixture(params=KINDS)
def row(request, planar_row):
    planar_row["negative"] = KINDS[request.param]
    return planar_row


@pytest.fixture
def array(planar_data, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    return tmp_path / "train.npy"


def test_negatives_are_a_batch_a_seed_without_a_gradient(row, planar_data):
    pair = Pair(row, planar_data, CPU)
    pair.round()
    x = negatives(pair)
    assert x.shape == (2, 32, 2) and not x.requires_grad
    assert torch.isfinite(x).all() and x.std() > 0.01
    assert not torch.equal(x[0], x[1]), "each seed has its own"


def test_the_seeds_beside_a_seed_do_not_matter_to_its_negatives(row, planar_data):
    together, alone = Pair(row, planar_data, CPU), Pair({**row, "seeds": [1]}, planar_data, CPU)
    for _ in range(2):
        torch.testing.assert_close(negatives(together)[1], negatives(alone)[0], rtol=1e-4, atol=1e-5)


def test_a_reused_latent_is_the_generators_last_and_another_is_drawn_anew(planar_row, planar_data):
    planar_row["negative"] = {**KINDS["generator"], "reuse_latent": True}
    pair = Pair(planar_row, planar_data, CPU)
    latent = pair.draw_latent()
    assert torch.equal(negatives(pair), pair.sampled(latent)) and torch.equal(negatives(pair), pair.sampled(latent))
    pair.row["negative"] = KINDS["generator"]
    assert not torch.equal(negatives(pair), pair.sampled(latent))


SHOWN = {"share": 0.5, "margin": 20.0, "weight": 0.5}
OUTLIERS = [{"kind": "spliced", "offset": 3.0, **SHOWN}, {"kind": "noised", "strength": 0.8, **SHOWN}]
SPLICED, NOISED = (pytest.param(row, id=row["kind"]) for row in OUTLIERS)


@pytest.fixture(params=[SPLICED, NOISED])
def pictures(digit_row, request):
    """A pair on digits with two seeds, that is shown an outlier for every second sample."""
    digit_row["negative"] = request.param
    digit_row["seeds"] = [3, 4]
    data = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    return Pair(digit_row, data, CPU)


def test_outliers_follow_the_generators_samples(pictures):
    x = negatives(pictures)
    assert x.shape == (2, 16 + 8, 1, 28, 28) and not x.requires_grad
    assert torch.equal(x[:, :16], pictures.sampled(pictures.latent))


@pytest.mark.parametrize("pictures", [NOISED], indirect=True)
def test_an_outlier_is_a_sample_with_noise_of_a_strength_of_its_own_and_no_pixel_beyond_its_range(
    pictures, monkeypatch
):
    """Of samples that are grey all over, it is the noise that is seen: its sd is uniform from 0 to the strength."""
    pictures.row["schedule"]["batch"], grey = 512, torch.full((2, 512, 1, 28, 28), 0.5)
    monkeypatch.setattr(pictures, "sampled", lambda latent: grey)
    noisy = torch.cat([negatives(pictures)[:, 512:] for _ in range(4)], 1)
    assert noisy.shape == (2, 1024, 1, 28, 28) and noisy.min() == 0 and noisy.max() == 1
    # A pixel is beyond either end in as many cases as a normal number is beyond 0.5 / sd.
    sd = 0.5 / torch.distributions.Normal(0.0, 1.0).icdf(1 - (noisy == 1).float().mean((2, 3, 4)).clamp(1e-3, 0.499))
    for quantile in (0.5, 0.7, 0.9):
        torch.testing.assert_close(sd.quantile(quantile, dim=1), torch.full((2,), 0.8 * quantile), atol=0.04, rtol=0)
    assert not torch.allclose(noisy[0], noisy[1])


@pytest.mark.parametrize("pictures", [SPLICED], indirect=True)
def test_an_outlier_is_one_sample_on_one_side_of_a_line_and_another_on_the_other(pictures, monkeypatch):
    """Of samples that are 0, 1, 2... all over, a splice tells the mask: its logit is a plane over the pixels."""
    flat = torch.arange(16.0).view(1, 16, 1, 1, 1).expand(2, 16, 1, 28, 28)
    monkeypatch.setattr(pictures, "sampled", lambda latent: flat)
    own = (negatives(pictures)[:, 17:, 0] - flat[:, :7, 0]).double()
    y, x = torch.meshgrid(*[torch.arange(28.0, dtype=torch.double) - 13.5] * 2, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], 2)
    for mask in own.flatten(0, 1):
        near = (mask > 0.01) & (mask < 0.99)
        plane = torch.linalg.lstsq(places[near], mask[near].logit()).solution
        assert torch.allclose(places[near] @ plane, mask[near].logit(), atol=1e-2)
        assert plane[:2].norm() == pytest.approx(1 / EDGE, rel=1e-3)
        assert plane[2].abs() * EDGE < 3 + 1e-3
    assert not torch.allclose(own[0], own[1])


def test_the_seeds_beside_a_seed_do_not_matter_to_its_outliers(pictures, digit_row):
    data = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    alone = Pair({**digit_row, "seeds": [4]}, data, CPU)
    torch.testing.assert_close(negatives(pictures)[1], negatives(alone)[0], rtol=1e-4, atol=1e-5)


def test_quadrature_draws_from_the_energy_itself(planar_row, planar_data):
    """E of a Gaussian off the middle: the mean and the sd of what is drawn, and not always at the same nodes."""
    planar_row["negative"] = {"kind": "quadrature", "half_width": 3.6, "nodes": 48}
    planar_row["schedule"]["batch"] = 4000
    pair = Pair(planar_row, planar_data, CPU)
    pair.energies, _ = gaussian_energies([0.5, -0.8], 0.4)
    x = negatives(pair)
    torch.testing.assert_close(x.mean(1), torch.tensor([[0.5, -0.8]] * 2), atol=0.04, rtol=0)
    torch.testing.assert_close(x.std(1), torch.full((2, 2), 0.4), atol=0.03, rtol=0)
    first, second = set(x[0, :, 0].tolist()), set(negatives(pair)[0, :, 0].tolist())
    assert len(first) <= 48 and not first & second, "the grid is shifted at each update"


def test_persistent_chains_go_on_and_short_ones_start_anew(planar_row, planar_data):
    """Slow chains on a Gaussian's energy: after many updates the persistent ones are there, the short ones at noise."""
    sd = {}
    for kind in ("persistent", "langevin"):
        planar_row["negative"] = {"kind": kind, "steps": 5, "rate": 0.002, "reach": 1.0, "spread": 2.0}
        planar_row["schedule"]["batch"] = 1000
        pair = Pair(planar_row, planar_data, CPU)
        _, pair.slope = gaussian_energies([0.0, 0.0], 0.3)
        for _ in range(40):
            x = negatives(pair)
        sd[kind] = x.std().item()
        assert (pair.chains is None) == (kind == "langevin")
    assert sd["persistent"] == pytest.approx(0.3, rel=0.05)
    # Each step of a short chain takes a share rate/sd² off where it began.
    left = 2.0 * (1 - 0.002 / 0.3**2) ** 5
    assert sd["langevin"] == pytest.approx(left, rel=0.05)


def test_persistent_chains_are_where_the_last_update_left_them(planar_row, planar_data):
    planar_row["negative"] = KINDS["persistent"]
    pair = Pair(planar_row, planar_data, CPU)
    first = negatives(pair)
    assert torch.equal(pair.chains, first)
    saved = pair.state()
    second = negatives(pair)
    pair.restore(saved)
    assert torch.equal(pair.chains, first) and torch.equal(negatives(pair), second)


def test_importance_weights_are_the_same_wherever_the_samples_have_drawn_together():
    torch.manual_seed(0)
    x, energies = torch.randn(1, 64, 2), torch.randn(1, 64)
    row = {"neighbours": 3, "dimensions": 2, "largest": 4.0}
    wide, narrow = (importance_weights(energies, samples, samples[:, :0], row) for samples in (x, 2 + 1e-3 * x))
    torch.testing.assert_close(narrow, wide, rtol=1e-2, atol=1e-6)


def test_importance_weights_reach_the_energys_gradient(planar_row, planar_data):
    """Equal weights are no weights; a weighted negative phase is a sum over samples with those weights."""
    found = {}
    for name, importance in (("none", None), ("some", {"neighbours": 3, "dimensions": 2, "largest": 20.0})):
        planar_row["negative"] = {**KINDS["generator"], "importance": importance}
        pair = Pair(planar_row, planar_data, CPU)
        data, x = pair.examples(), pair.sampled(pair.draw_latent())
        found[name], _, _ = pair.energy_gradient(pair.energy.flat, x, x[:, :0], data, torch.tensor(0.0), WHOLE)
    assert torch.isfinite(found["some"]).all() and not torch.allclose(found["none"], found["some"], atol=1e-4)


def test_blurred_samples_are_of_the_first_batch_of_those_that_tell_their_density(planar_row, planar_data):
    planar_row["negative"] = {**KINDS["blurred"], "spread": 0.05}
    pair, alike = Pair(planar_row, planar_data, CPU), Pair(planar_row, planar_data, CPU)
    x, centres = negatives(pair), alike.telling()
    assert centres.shape == (2, 64, 2) and torch.equal(pair.pool, centres)
    torch.testing.assert_close(x, centres[:, :32] + 0.05 * alike.normal(32))


def test_where_weights_rise_training_begins_as_eq_12_has_it_and_ends_as_eq_7_has_it(planar_row, planar_data):
    """The power grows by the round, the noise with it; at the first round the step is that of equal weights."""
    planar_row["negative"] = {**KINDS["blurred"], "rise": 0.5}
    planar_row["schedule"]["steps"] = 8
    pair = Pair(planar_row, planar_data, CPU)
    powers, spreads = [], []
    for _ in range(8):
        powers.append(float(pair.power()))
        spreads.append(float(spread_at(pair.power(), planar_row["negative"])))
        pair.round()
    assert powers == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert spreads == pytest.approx([0.01, 0.01 * 10**0.25, 0.01 * 10**0.5, 0.01 * 10**0.75, *[0.1] * 4])
    data, x, nothing = pair.examples(), negatives(pair), torch.tensor(0.0)

    def step(power):
        return pair.energy_gradient(pair.energy.flat, x, pair.pool, data, nothing, torch.tensor(power))[0]

    equal = Pair(planar_row | {"negative": KINDS["generator"]}, planar_data, CPU)
    equal.restore(pair.state())
    wanted, _, _ = equal.energy_gradient(equal.energy.flat, x, x[:, :0], data, nothing, WHOLE)
    torch.testing.assert_close(step(0.0), wanted)
    assert (step(1.0) - wanted).norm() > 0.01 * wanted.norm()


def test_while_weights_rise_samples_have_the_noise_that_their_density_is_told_with(planar_row, planar_data):
    """Halfway noise of 0.1 is 0.0316: x- have that, and their weights are as the definition has them with it."""
    planar_row["negative"] = {**KINDS["blurred"], "largest": 1e9, "rise": 1.0}
    planar_row["schedule"]["steps"] = 8
    pair = Pair(planar_row, planar_data, CPU)
    for _ in range(4):
        pair.round()
    alike = Pair(planar_row, planar_data, CPU)
    alike.restore(pair.state())
    x, centres = negatives(pair), alike.telling()
    torch.testing.assert_close(x, centres[:, :32] + 0.1**1.5 * alike.normal(32))
    energies = torch.randn(x.shape[:2])
    away = (x.double().unsqueeze(2) - centres.double().unsqueeze(1)).square().sum(3)
    exact = torch.softmax(0.5 * (-energies - torch.logsumexp(-0.5 * away / 0.1**3, 2)), 1)
    weights = blurred_weights(energies, x, centres, pair.power(), planar_row["negative"])
    torch.testing.assert_close(weights.double(), exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_samples_that_have_run_off_have_weights_all_the_same(power):
    torch.manual_seed(0)
    row = {**KINDS["blurred"], "spread": 0.01}
    centres = 1000 * torch.randn(2, 64, 2)
    x = centres[:, :32] + spread_at(torch.tensor(power), row) * torch.randn(2, 32, 2)
    weights = blurred_weights(torch.zeros(2, 32), x, centres, torch.tensor(power), row)
    assert torch.isfinite(weights).all() and torch.allclose(weights.sum(1), torch.ones(2))


def test_the_samples_that_tell_a_density_are_fresh_ones_a_batch_at_a_time(planar_row, planar_data):
    importance = {"neighbours": [2, 3], "references": 96, "dimensions": 2, "largest": 20.0}
    planar_row["negative"] = {**KINDS["generator"], "importance": importance}
    pair, alike = Pair(planar_row, planar_data, CPU), Pair(planar_row, planar_data, CPU)
    beside = pair.telling()
    assert beside.shape == (2, 96, 2) and not beside.requires_grad
    each = [alike.sampled(alike.prior(32)) for _ in range(3)]
    assert torch.equal(beside, torch.cat(each, 1)) and not torch.equal(each[0], each[1])
    data, x, nothing = pair.examples(), pair.sampled(pair.draw_latent()), torch.tensor(0.0)
    among, alone = (
        pair.energy_gradient(pair.energy.flat, x, y, data, nothing, WHOLE)[0] for y in (beside, beside[:, :0])
    )
    assert (among - alone).norm() > 0.01 * alone.norm()
    # The step is that with the samples, in the order that they are drawn.
    alike.restore(pair.state())
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(
            pair, "energy_gradient", lambda *given: seen.append(given) or (torch.zeros_like(among), nothing, nothing)
        )
        pair.update_energy()
    data, others = alike.examples(), alike.telling()
    torch.testing.assert_close(seen[0][2], others)
    torch.testing.assert_close(seen[0][1], alike.sampled(alike.draw_latent()))
    torch.testing.assert_close(seen[0][3], data)
    planar_row["negative"]["importance"] = {**importance, "references": 0}
    assert Pair(planar_row, planar_data, CPU).telling().shape == (2, 0, 2)


def test_the_penalty_goes_geometrically_from_its_first_value_to_its_last(planar_row, planar_data):
    planar_row["objective"].update(penalty=0.1, penalty_end=0.001)
    planar_row["schedule"]["steps"] = 40
    pair, found = Pair(planar_row, planar_data, CPU), []
    for pair.step in (0, 10, 20, 40):
        found.append(pair.penalty())
    assert found == pytest.approx([0.1, 0.1 * 0.01**0.25, 0.01, 0.001])
    planar_row["objective"].update(penalty=0.0, penalty_end=0.0)
    assert pair.penalty() == 0


def test_rates_fall_with_the_power_of_what_is_left_of_the_training(planar_row, planar_data):
    planar_row["optimiser"].update(energy_rate=0.01, energy_decay=2.0, generator_rate=0.02, generator_decay=0.0)
    planar_row["schedule"]["steps"] = 4
    pair, rates = Pair(planar_row, planar_data, CPU), []
    for _ in range(4):
        pair.round()
        rates.append([pair.optimisers[net].rate for net in ("energy", "generator")])
    expected = [[0.01 * (1 - step / 4) ** 2, 0.02] for step in range(4)]
    np.testing.assert_allclose(rates, expected)


def test_snapshots_are_spread_in_equal_ratios_from_a_500th_to_the_end():
    kept = sorted(moments(8000, 25))
    assert len(kept) == 25 and (kept[0], kept[-1]) == (16, 8000)
    np.testing.assert_allclose(kept, 16 * 500 ** (np.arange(25) / 24), atol=0.5)
    assert moments(100, 0) == set() and moments(1000, 1) == {1000}, "a single one is the end"
    assert max(moments(10, 25)) == 10 and min(moments(10, 25)) == 1, "no step is kept twice"


def test_a_snapshot_with_fixed_statistics_has_those_of_its_own_weights(planar_row, array, tmp_path):
    planar_row["schedule"].update(steps=20, snapshots=2)
    planar_row["generator"]["statistics"] = "fixed"
    planar_row["average"] = {"energy": 0.0, "generator": 0.0}
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    z = torch.rand(7, 4)
    last = {seed: nets for seed, step, *nets in load_snapshots(tmp_path / "model") if step == 20}
    for seed, (_, generator) in last.items():
        torch.testing.assert_close(generator(z), load(tmp_path / "model", seed)[1](z), rtol=0, atol=0)


def test_snapshots_are_the_averaged_weights_after_their_steps(planar_row, planar_data, array, tmp_path):
    planar_row["schedule"].update(steps=20, snapshots=4)
    planar_row["average"] = {"energy": 0.9, "generator": 0.0}
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    pair, x, z = Pair(planar_row, planar_data, CPU), torch.randn(7, 2), torch.rand(7, 4)
    expected = {}
    for step in range(1, 21):
        pair.round()
        averaged = pair.energy(x.expand(2, -1, -1), pair.energy.split(pair.averages["energy"])).detach()
        samples = pair.sampled(z.expand(2, -1, -1))
        expected |= {(seed, step): (averaged[index], samples[index]) for index, seed in enumerate(planar_row["seeds"])}
    with torch.no_grad():
        found = list(load_snapshots(tmp_path / "model"))
        steps = sorted(moments(20, 4))
        assert [(seed, step) for seed, step, *_ in found] == [(seed, step) for seed in (0, 1) for step in steps]
        for seed, step, energy, generator in found:
            torch.testing.assert_close(energy(x), expected[seed, step][0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(generator(z), expected[seed, step][1], rtol=1e-5, atol=1e-5)
        last = {seed: nets for seed, step, *nets in found if step == 20}
        for seed, nets in last.items():
            assert torch.equal(nets[0](x), load(tmp_path / "model", seed)[0](x)), "the last is what is measured"
            assert not torch.equal(nets[0](x), load(tmp_path / "model", seed, averaged=False)[0](x))


def test_a_training_that_kept_no_snapshots_says_what_to_write(planar_row, array, tmp_path):
    planar_row["schedule"].update(steps=2, snapshots=0)
    train("x", planar_row, array, tmp_path / "model", tmp_path / "state" / "x")
    with pytest.raises(UserError, match=r"has no weights along training: write schedule\.snapshots above 0"):
        next(load_snapshots(tmp_path / "model"))


@pytest.mark.parametrize("row", ["persistent", "quadrature"], indirect=True)
def test_a_resumed_training_keeps_the_same_snapshots(row, array, tmp_path):
    """Before and after the stop, and the chains of `persistent` go on where they were."""
    row["schedule"].update(steps=12, snapshots=4)
    train("x", row, array, tmp_path / "whole", tmp_path / "state" / "whole")
    train("x", row, array, tmp_path / "parts", tmp_path / "state" / "parts", until=7)
    assert set(Run("x", untitled(row), array, tmp_path / "state" / "parts", CPU).snapshots) == {1, 2, 5}
    torch.manual_seed(999)
    train("x", row, array, tmp_path / "parts", tmp_path / "state" / "parts")
    for file in ("weights.safetensors", "snapshots.safetensors", "history.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
