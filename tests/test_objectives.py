"""The objectives' gradients against the paper's equations."""

import pytest
import torch

from conftest import WHOLE
from ddgm.energy import build_energy
from ddgm.negative_phase import blurred_weights, importance_weights, langevin
from ddgm.objectives import classifier, dual, gan
from ddgm.objectives.penalty import slopes_of, squared_norm

ROW = {
    "kind": "deep", "features": "dense", "hidden": [16, 8], "activation": "elu", "bound": "tanh", "noise": 0.0,
    "experts": 4, "quadratic": "learned", "sigma": 1.0, "start": None,
}  # fmt: skip


@pytest.fixture
def energy():
    torch.manual_seed(0)
    return build_energy(ROW, (2,)).double()


@pytest.fixture
def points():
    torch.manual_seed(1)
    return torch.randn(12, 2).double(), torch.randn(12, 2).double() * 2


def gradients(loss, energy):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(energy.parameters()))])


def phase(energy, x, weights=None):
    """E[∂E(x)/∂Θ], one point at a time, each with its weight."""
    weights = torch.ones(len(x)) if weights is None else weights
    return sum(w * gradients(energy(one[None]).sum(), energy) for w, one in zip(weights, x, strict=True)) / len(x)


def test_the_losss_gradient_is_eq_7s_positive_less_its_negative_phase(energy, points):
    data, samples = points
    loss = dual.energy_loss(energy(data)[None], energy(samples)[None]).sum()
    by_hand = phase(energy, data) - phase(energy, samples)
    torch.testing.assert_close(gradients(loss, energy), by_hand, rtol=1e-10, atol=1e-12)


def test_the_classifiers_gradient_is_eq_8(energy, points):
    data, samples = points
    loss = classifier.energy_loss(energy(data)[None], energy(samples)[None]).sum()
    # P(y=1|x) = σ(-E(x)): each phase weighted with the probability of the wrong answer.
    wrong_data, wrong_samples = torch.sigmoid(energy(data)).detach(), torch.sigmoid(-energy(samples)).detach()
    by_hand = 0.5 * (phase(energy, data, wrong_data) - phase(energy, samples, wrong_samples))
    torch.testing.assert_close(gradients(loss, energy), by_hand, rtol=1e-10, atol=1e-12)


def cosine_and_ratio(energy, data, samples):
    exact = gradients(classifier.energy_loss(energy(data)[None], energy(samples)[None]).sum(), energy)
    eq_7 = gradients(dual.energy_loss(energy(data)[None], energy(samples)[None]).sum(), energy)
    return torch.cosine_similarity(exact, eq_7, dim=0).item(), (exact.norm() / eq_7.norm()).item()


class Level(torch.nn.Module):
    """An energy's gradient with one value everywhere, so that P(y=1|x) = σ(-value): ½ where it is 0."""

    def __init__(self, energy, value):
        super().__init__()
        self.inner, self.value = energy, value

    def forward(self, x):
        energies = self.inner(x)
        return energies - energies.detach() + self.value


def test_eq_8s_approximation_holds_where_both_answers_are_as_likely(energy, points):
    cosine, ratio = cosine_and_ratio(Level(energy, 0.0), *points)
    assert cosine == pytest.approx(1, abs=1e-9)
    assert ratio == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("shift", [-3.0, -0.5, 0.5, 3.0])
def test_eq_8s_approximation_fails_away_from_one_half(energy, points, shift):
    data, samples = points
    level = Level(energy, shift)
    exact = gradients(classifier.energy_loss(level(data)[None], level(samples)[None]).sum(), energy)
    quarter = gradients(dual.energy_loss(energy(data)[None], energy(samples)[None]).sum(), energy) / 4
    assert (exact - quarter).norm() / quarter.norm() > 0.1


def test_the_generators_gradient_is_eq_14():
    torch.manual_seed(0)
    energy = build_energy(ROW, (2,)).double()
    weight = torch.randn(3, 2).double().requires_grad_()
    z = torch.rand(10, 3).double() * 2 - 1
    (gradient,) = torch.autograd.grad(dual.generator_loss(energy(z @ weight)[None]).sum(), weight)
    one_by_one = [torch.autograd.grad(energy((one @ weight)[None]).sum(), weight)[0] for one in z]
    torch.testing.assert_close(gradient, sum(one_by_one) / len(z), rtol=1e-10, atol=1e-12)


def test_the_penalty_is_the_mean_squared_norm_of_the_energys_gradient():
    x = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True)
    slope = torch.tensor([1.0, 2.0, -2.0], dtype=torch.double)
    assert squared_norm(slopes_of(x @ slope, x)).tolist() == pytest.approx([9.0, 9.0])


def test_a_gans_generator_does_not_saturate():
    """-log D(x) with D = σ(-E): where the discriminator is sure of a fake, the slope is 1 and not 0."""
    energies = torch.tensor([[-30.0, 0.0, 30.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(gan.generator_loss(energies).sum(), energies)
    torch.testing.assert_close(3 * slope, torch.tensor([[0.0, 0.5, 1.0]]))
    by_hand = -torch.log(torch.sigmoid(-energies.double())).mean(1)
    torch.testing.assert_close(gan.generator_loss(energies).double(), by_hand, rtol=1e-5, atol=1e-5)


def test_a_gans_discriminator_is_the_classifier():
    assert gan.energy_loss is classifier.energy_loss


def test_importance_weights_make_the_models_expectation_of_the_generators_samples():
    """Samples of N(0, 1) weighted for N(1, 0.7²): their weighted mean and variance are the model's."""
    torch.manual_seed(0)
    samples = torch.randn(2, 3000, 2)
    energies = (samples - torch.tensor([1.0, 0.0])).square().sum(2) / (2 * 0.7**2)
    weights = importance_weights(energies, samples, samples[:, :0], {"neighbours": 3, "dimensions": 2, "largest": 50.0})
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    mean = (weights.unsqueeze(2) * samples).sum(1)
    torch.testing.assert_close(mean, torch.tensor([[1.0, 0.0]] * 2), atol=0.1, rtol=0)
    variance = (weights.unsqueeze(2) * (samples - mean.unsqueeze(1)).square()).sum(1)
    torch.testing.assert_close(variance, torch.full((2, 2), 0.49), atol=0.08, rtol=0)
    largest = importance_weights(energies, samples, samples[:, :0], {"neighbours": 3, "dimensions": 2, "largest": 1.5})
    assert largest.max() < 3 * largest.mean()


def test_more_samples_beside_the_batch_smooth_the_density_less():
    """Of an energy that is the samples' own, weights should be equal. On a thin ridge a few samples take each other's
    neighbours from its middle, and weigh its sides too little."""
    torch.manual_seed(0)
    sd = torch.tensor([1.0, 0.03])
    samples, others = torch.randn(8, 256, 2) * sd, torch.randn(8, 8192, 2) * sd
    energies = (samples / sd).square().sum(2) / 2
    row = {"neighbours": [2, 3, 4], "references": 0, "dimensions": 2, "largest": 50.0}

    def weighted_variance(beside):
        weights = importance_weights(energies, samples, beside, row)
        return float((weights * (samples[:, :, 1] / sd[1]).square()).sum(1).mean())

    alone, among = weighted_variance(others[:, :0]), weighted_variance(others)
    assert alone < 0.75 and 0.85 < among < 1.05


BLURRED = {"spread": 0.03, "references": 2048, "largest": 50.0}


@pytest.fixture
def ridge():
    """Samples of a thin ridge, blurred as widely as it is thin, and the energy of the ridge itself."""
    torch.manual_seed(0)
    sd = torch.tensor([1.0, 0.03])
    centres = torch.randn(8, 2048, 2) * sd
    samples = centres[:, :256] + BLURRED["spread"] * torch.randn(8, 256, 2)
    return centres, samples, (samples / sd).square().sum(2) / 2


def test_weights_of_blurred_samples_take_the_noise_away_again(ridge):
    """Blurred samples have twice the ridge's variance across; weighted they have the model's."""
    centres, samples, energies = ridge
    weights = blurred_weights(energies, samples, centres, WHOLE, BLURRED)
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    across = (samples[:, :, 1] / 0.03).square()
    assert across.mean() == pytest.approx(2.0, abs=0.15)
    assert (weights * across).sum(1).mean() == pytest.approx(1.0, abs=0.07)


def test_kernels_tell_a_density_with_less_noise_than_neighbours(ridge):
    """Without an energy a weight is one over the density that was told; the true one is known."""
    centres, blurred, _ = ridge
    samples, flat = centres[:, :256], torch.zeros(8, 256)
    row = {"neighbours": [2, 3, 4, 5, 6], "dimensions": 2, "largest": 1e9}

    def noise(weights, at, variances):
        return float((weights.log() - (at.square() / torch.tensor(variances)).sum(2) / 2).std(1).mean())

    by_neighbours = noise(importance_weights(flat, samples, centres[:, 256:], row), samples, [1.0, 0.03**2])
    by_kernels = noise(
        blurred_weights(flat, blurred, centres, WHOLE, BLURRED | row), blurred, [1 + 0.03**2, 2 * 0.03**2]
    )
    assert by_kernels < 0.6 * by_neighbours


@pytest.mark.parametrize("loss", [dual.energy_loss, classifier.energy_loss])
def test_equal_weights_are_no_weights(loss):
    data, samples = torch.randn(2, 6), torch.randn(2, 5)
    torch.testing.assert_close(loss(data, samples), loss(data, samples, torch.full((2, 5), 1 / 5)))


def test_langevin_dynamics_draws_from_the_energy():
    """E = x²/(2 sd²), from far away: after many small steps the chains' spread is sd."""
    torch.manual_seed(0)
    sd = 0.5
    x = langevin(lambda x: x / sd**2, torch.full((2, 4000, 2), 2.0), 400, 0.01, 1.0, lambda n: torch.randn(2, n, 2))
    torch.testing.assert_close(x.mean(1), torch.zeros(2, 2), atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(1), torch.full((2, 2), sd), atol=0.03, rtol=0)


@pytest.mark.parametrize("shape", [(2,), (1, 3, 3)])
def test_a_langevin_step_goes_no_further_down_than_its_reach(shape):
    """An energy so steep that a whole step would overshoot and diverge."""
    torch.manual_seed(0)
    steep, start = lambda x: 1e4 * x, torch.full((2, 100, *shape), 3.0)
    still = langevin(steep, start, 1, 1e-3, 0.5, lambda n: torch.zeros(2, n, *shape))
    torch.testing.assert_close((still - start).flatten(2).norm(dim=2), torch.full((2, 100), 0.5))
    x = langevin(steep, start, 200, 1e-3, 0.5, lambda n: torch.randn(2, n, *shape))
    assert x.abs().max() < 2
