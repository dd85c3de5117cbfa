"""Annealed importance sampling beside quadrature in the plane, and beside closed forms in 784 dimensions."""

import math

import pytest
import torch
from scipy.special import logsumexp
from torch import nn

from ddgm.energy import DeepEnergy, dense_features
from ddgm.metrics import density
from ddgm.metrics.likelihood import (
    annealed_log_partition,
    hamiltonian_move,
    log_likelihood,
    log_mean_exp,
    look,
    reflect,
    schedule,
)

SQUARE, PIXELS = (-3.0, 3.0), (0.0, 1.0)
IMAGE = (1, 28, 28)


class Mixture(nn.Module):
    """-log of three Gaussians' densities in the plane, in shares 0.2, 0.3, 0.5 and 1.5 apart or more, sd 0.2."""

    centres, shares, sd = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [1.0, -1.0]]), torch.tensor([0.2, 0.3, 0.5]), 0.2

    def forward(self, x):
        from_each = -(x[:, None] - self.centres).square().sum(2) / (2 * self.sd**2)
        return -torch.logsumexp(from_each + self.shares.log(), 1) + math.log(2 * math.pi * self.sd**2)


class Factors(nn.Module):
    """Independent pixels with known log Z on [0, 1]: exp(-rate x) for the first, N(mean, sd²) for the others."""

    def __init__(self, falling=500, bells=284):
        super().__init__()
        stream = torch.Generator().manual_seed(0)
        self.rate = 1.5 + torch.randn(falling, generator=stream)
        self.mean = 1.4 * torch.rand(bells, generator=stream) - 0.2
        self.sd = 0.2 + 0.3 * torch.rand(bells, generator=stream)

    def forward(self, x):
        falling, bell = x.flatten(1).split([len(self.rate), len(self.mean)], 1)
        return falling @ self.rate + ((bell - self.mean).square() / (2 * self.sd**2)).sum(1)

    def below(self, x):
        """The Gaussians' mass below x, (bells,), in double precision."""
        return torch.special.ndtr((x - self.mean.double()) / self.sd.double())

    def log_partition(self):
        rate, sd = self.rate.double(), self.sd.double()
        gaussian = sd.log() + 0.5 * math.log(2 * math.pi) + (self.below(1) - self.below(0)).log()
        return float((-torch.expm1(-rate) / rate).log().sum() + gaussian.sum())

    def sample(self, shape, stream):
        """Exact samples, by the inverse of each pixel's distribution."""
        uniform = torch.rand(shape, generator=stream, dtype=torch.float64).flatten(1)
        falling, bell = uniform.split([len(self.rate), len(self.mean)], 1)
        falling = -torch.log1p(falling * torch.expm1(-self.rate.double())) / self.rate.double()
        bell = self.mean + self.sd * torch.special.ndtri(self.below(0) + bell * (self.below(1) - self.below(0)))
        return torch.cat([falling, bell], 1).clamp(*PIXELS).float().view(shape)


def eq_11(seed):
    """Eq. 11 with tanh features and random weights, several nats deep."""
    torch.manual_seed(seed)
    energy = DeepEnergy(dense_features(2, [32, 16], "tanh", "tanh", 0.0), 16, 8, 2, "fixed", 2.0)
    with torch.no_grad():
        for weights in energy.parameters():
            weights.mul_(4)
        energy.features[1].bias.uniform_(-3, 3)
    return energy.eval()


def settings(chains, temperatures, leapfrog):
    return {"chains": chains, "temperatures": temperatures, "leapfrog": leapfrog}


def anneal(energy, shape, limits, chosen, seed=0, start=None):
    return annealed_log_partition(energy, shape, limits, chosen, torch.Generator().manual_seed(seed), start)


PLANAR = [pytest.param(Mixture(), id="mixture"), *(pytest.param(eq_11(seed), id=f"Eq. 11, {seed}") for seed in (1, 3))]


@pytest.mark.parametrize("energy", PLANAR)
def test_log_z_in_the_plane_is_that_of_quadrature(energy):
    log_masses = density.log_masses(energy, 3.0, 2)
    assert log_masses.max() - log_masses.min() > 7, "the energy is several nats deep"
    exact = float(logsumexp(log_masses))
    there = anneal(energy, (2,), SQUARE, settings(2000, 100, 3))
    assert there.error < 0.05
    assert there.log_partition == pytest.approx(exact, abs=3.5 * there.error)
    assert there.log_partition == pytest.approx(exact, abs=0.1)
    assert 0.3 < there.acceptance < 0.95 and 0.1 < there.effective_sample_size <= 1


@pytest.mark.parametrize("energy", PLANAR)
def test_log_z_from_the_ends_of_chains_is_that_of_quadrature(energy):
    exact = float(logsumexp(density.log_masses(energy, 3.0, 2)))
    ends = anneal(energy, (2,), SQUARE, settings(2000, 100, 3)).samples
    back = anneal(energy, (2,), SQUARE, settings(2000, 100, 3), 1, ends)
    # The ends, drawn with replacement, depend on each other: the error says too little.
    assert back.log_partition == pytest.approx(exact, abs=0.2)


def test_the_ends_of_chains_are_shared_among_modes_as_the_density_is():
    ends = anneal(Mixture(), (2,), SQUARE, settings(4000, 100, 3)).samples
    nearest = (ends[:, None] - Mixture.centres).square().sum(2).argmin(1)
    torch.testing.assert_close(torch.bincount(nearest) / len(ends), Mixture.shares, atol=0.06, rtol=0)


def test_in_784_dimensions_the_two_ends_enclose_log_z():
    """The truth is hundreds of nats from the uniform density's log Z, which is 0."""
    energy = Factors()
    exact = energy.log_partition()
    assert exact < -500
    chosen = settings(60, 200, 10)
    there = anneal(energy, IMAGE, PIXELS, chosen)
    start = energy.sample((60, *IMAGE), torch.Generator().manual_seed(1))
    back = anneal(energy, IMAGE, PIXELS, chosen, 2, start)
    assert there.samples.shape == (60, *IMAGE) and there.samples.min() >= 0 and there.samples.max() <= 1
    assert there.log_partition < exact + 3 * there.error and back.log_partition > exact - 3 * back.error
    assert there.log_partition == pytest.approx(exact, abs=1.5) and back.log_partition == pytest.approx(exact, abs=1.5)


def test_hasty_annealing_errs_down_from_the_uniform_and_up_from_samples():
    energy = Factors()
    exact, hasty = energy.log_partition(), settings(40, 40, 2)
    start = energy.sample((40, *IMAGE), torch.Generator().manual_seed(1))
    assert anneal(energy, IMAGE, PIXELS, hasty).log_partition < exact - 10
    assert anneal(energy, IMAGE, PIXELS, hasty, 0, start).log_partition > exact + 10


def test_one_box_scaled_is_another_box():
    """x twice as long: log Z grows by d log 2, and every random number is used alike."""

    class Halved(Mixture):
        def forward(self, x):
            return super().forward(x / 2)

    small = anneal(Mixture(), (2,), SQUARE, settings(200, 30, 2))
    large = anneal(Halved(), (2,), (-6.0, 6.0), settings(200, 30, 2))
    assert large.log_partition == pytest.approx(small.log_partition + 2 * math.log(2), abs=0.05)


def test_a_flat_energy_has_the_boxs_volume_exactly():
    """And what is added to E is taken from log Z."""
    for shape in ((2,), (3, 4, 4)):
        there = anneal(lambda x: 0 * x.flatten(1).sum(1) + 500, shape, SQUARE, settings(16, 5, 2))
        assert there.log_partition == pytest.approx(math.prod(shape) * math.log(6) - 500)
        assert there.error == pytest.approx(0, abs=1e-6) and there.effective_sample_size == pytest.approx(1)


@pytest.mark.parametrize(("width", "least"), [(0.1, 0.95), (0.8, 0.5), (2.0, 0.01)])
def test_moves_leave_a_truncated_density_as_it_is(width, least):
    """From exact samples, whatever the step in sd: at 2.0 a flight meets several walls and few moves are accepted."""
    energy, stream = Factors(2, 2), torch.Generator().manual_seed(0)
    before = energy.sample((20_000, 4), stream)
    place, accepted = look(energy, before), []
    for _ in range(20):
        place, take = hamiltonian_move(energy, place, 1.0, width * before.std(0), 3, PIXELS, stream)
        accepted.append(float(take.float().mean()))
    assert min(accepted) > least
    for power in (1, 2):
        drift = place.x.pow(power).mean(0) - before.pow(power).mean(0)
        # The difference of two sample means; they are correlated where few moves are accepted, which makes it smaller.
        error = before.pow(power).std(0) * math.sqrt(2 / len(before))
        assert (drift.abs() < 3.5 * error).all()


def test_moves_leave_the_uniform_density_as_it_is_and_reject_nothing():
    stream = torch.Generator().manual_seed(0)
    place = look(Mixture(), 6 * torch.rand(5000, 2, generator=stream) - 3)
    for _ in range(10):
        place, take = hamiltonian_move(Mixture(), place, 0.0, torch.full((2,), 4.0), 2, SQUARE, stream)
        assert take.all()
    counts = torch.histc(place.x[:, 0], 10, *SQUARE)
    assert ((counts - 500).square() / 500).sum() < 28, "χ² of 9 degrees of freedom, 1 in 1000"


def test_what_a_move_rejects_keeps_its_place_its_energy_and_its_slope():
    stream = torch.Generator().manual_seed(0)
    before = look(Mixture(), 6 * torch.rand(500, 2, generator=stream) - 3)
    after, take = hamiltonian_move(Mixture(), before, 1.0, torch.full((2,), 0.3), 3, SQUARE, stream)
    assert 0.05 < take.float().mean() < 0.95
    assert torch.equal(after.x[~take], before.x[~take]) and (after.x[take] != before.x[take]).any(1).all()
    again = look(Mixture(), after.x)
    torch.testing.assert_close(after.value, again.value)
    torch.testing.assert_close(after.slope, again.slope)


def test_walls_mirror_places_and_turn_momenta():
    x = torch.tensor([0.5, 1.2, -0.3, 2.1, -1.4])
    inside, momentum = reflect(x, torch.ones(5), PIXELS)
    torch.testing.assert_close(inside, torch.tensor([0.5, 0.8, 0.3, 0.1, 0.6]))
    assert momentum.tolist() == [1, -1, -1, 1, 1]


def test_a_flight_between_walls_goes_back_the_way_it_came():
    stream = torch.Generator().manual_seed(0)
    start = 6 * torch.rand(100, 2, generator=stream) - 3
    momentum = 10 * torch.randn(100, 2, generator=stream)
    there, arriving = reflect(start + momentum, momentum, SQUARE)
    back, leaving = reflect(there - arriving, -arriving, SQUARE)
    torch.testing.assert_close(back, start, atol=1e-4, rtol=0)
    assert torch.equal(leaving, -momentum)


def test_the_schedule_goes_from_0_to_1_and_is_finest_near_0():
    betas = torch.tensor(schedule(50))
    steps = betas.diff()
    assert len(betas) == 50 and betas[0] == 0 and betas[-1] == 1 and (steps.diff() > 0).all()


def test_the_jackknife_is_the_delta_method_for_weights_alike_and_alarmed_by_one_heavy_chain():
    log_weights = 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = log_weights.exp()
    value, error = log_mean_exp(log_weights + 700)
    assert value == pytest.approx(700 + float(weights.mean().log()))
    assert error == pytest.approx(float(weights.std() / weights.mean() / 20), rel=0.01)
    log_weights[0] += 20
    assert log_mean_exp(log_weights)[1] > 10


def test_a_likelihood_is_the_mean_of_minus_energy_less_log_z():
    assert log_likelihood(torch.tensor([1.0, 3.0]), 5.0) == -7.0


def test_annealing_is_the_same_again_from_the_same_seed():
    first, again = (anneal(Mixture(), (2,), SQUARE, settings(50, 20, 2), 3) for _ in range(2))
    assert first[:4] == again[:4] and torch.equal(first.samples, again.samples)


def test_a_step_costs_one_pass_of_all_chains():
    calls = []

    def counted(x):
        calls.append(len(x))
        return x.square().sum(1)

    anneal(counted, (2,), SQUARE, settings(40, 11, 3))
    assert calls == [40] * (1 + 10 * 3)
