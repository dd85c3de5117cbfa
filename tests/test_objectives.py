"""The objectives' gradients against the paper's equations."""

import pytest
import torch

from ddgm.energy import build_energy
from ddgm.objectives import classifier, dual
from ddgm.objectives.penalty import gradient_penalty

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
    assert gradient_penalty(x @ slope, x).tolist() == pytest.approx([9.0, 9.0])
