"""The energy functions against the paper's formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddgm.energy import DeepEnergy, Logistic, RestrictedBoltzmann, StudentT, build_energy
from ddgm.metrics.density import log_masses, log_parts, model_on

DEEP = {
    "kind": "deep", "features": "dense", "hidden": [16, 8], "activation": "relu", "bound": "tanh", "noise": 0.0,
    "experts": 4, "quadratic": "learned", "sigma": 1.5, "start": None,
}  # fmt: skip
CONVOLUTIONAL = {**DEEP, "features": "convolutional", "hidden": [4, 8]}


ROWS_OF_ALL_KINDS = [
    (DEEP, (2,)),
    ({**DEEP, "quadratic": "none"}, (1, 8, 8)),
    (CONVOLUTIONAL, (3, 16, 16)),
    ({"kind": "student_t", "experts": 5, "start": 0.5}, (2,)),
    ({"kind": "logistic", "experts": 5, "start": 0.5}, (2,)),
    ({"kind": "rbm", "experts": 5, "start": 0.5, "quadratic": "fixed", "sigma": 1.0}, (2,)),
]


@pytest.mark.parametrize(("row", "shape"), ROWS_OF_ALL_KINDS)
def test_a_batchs_energies_equal_its_singles_energies(row, shape):
    torch.manual_seed(0)
    energy, x = build_energy(row, shape).double(), torch.randn(7, *shape).double()
    singles = torch.cat([energy(one[None]) for one in x])
    assert energy(x).shape == (7,)
    torch.testing.assert_close(energy(x), singles, rtol=1e-12, atol=1e-12)


def test_eq_11_by_hand():
    torch.manual_seed(0)
    energy, x = build_energy(DEEP, (2,)).double(), torch.randn(5, 2).double()
    with torch.no_grad():
        energy.b.copy_(torch.tensor([0.3, -0.7], dtype=torch.double))
        energy.log_variance.fill_(2 * math.log(1.5))
    W, b = energy.experts.weight.detach().numpy(), energy.experts.bias.detach().numpy()
    for point in x:
        f = energy.features(point[None])[0].detach().numpy()
        v = point.numpy()
        by_hand = v @ v / 1.5**2 - np.array([0.3, -0.7]) @ v - np.log(1 + np.exp(W @ f + b)).sum()
        assert energy(point[None]).item() == pytest.approx(by_hand, rel=1e-12)


def test_eqs_3_4_5_by_hand():
    torch.manual_seed(0)
    x = torch.randn(1, 3).double()
    v = x[0].numpy()
    student, logistic = StudentT(3, 4).double(), Logistic(3, 4).double()
    rbm = RestrictedBoltzmann(3, 4, "fixed", 2.0).double()
    with torch.no_grad():
        student.log_alpha.copy_(torch.tensor([0.0, 0.5, -1.0, 0.2]))
    W = student.experts.weight.detach().numpy()
    alpha = np.exp([0.0, 0.5, -1.0, 0.2])
    assert student(x).item() == pytest.approx((alpha * np.log(1 + (W @ v) ** 2 / 2)).sum(), rel=1e-6)
    W, b = logistic.experts.weight.detach().numpy(), logistic.experts.bias.detach().numpy()
    assert logistic(x).item() == pytest.approx(np.log(1 + np.exp(-(W @ v + b))).sum(), rel=1e-12)
    W, b = rbm.experts.weight.detach().numpy(), rbm.experts.bias.detach().numpy()
    assert rbm(x).item() == pytest.approx(v @ v / 4 - np.log(1 + np.exp(W @ v + b)).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("quadratic", "trained", "value"),
    [("none", set(), 0.0), ("fixed", set(), 4.0), ("learned", {"log_variance", "b"}, 4.0)],
)
def test_the_quadratic_term_switches(quadratic, trained, value):
    energy = build_energy({**DEEP, "quadratic": quadratic, "sigma": 0.5}, (2,))
    names = {name for name, _ in energy.named_parameters()}
    assert names & {"log_variance", "b"} == trained
    x = torch.tensor([[1.0, 0.0]])
    difference = (energy(x) - energy.expert_term(x)).item()
    assert difference == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("kind", ["student_t", "logistic"])
def test_a_sum_over_experts_is_float32_whatever_the_experts_are_computed_in(kind):
    torch.manual_seed(0)
    energy, x = build_energy({"kind": kind, "experts": 400, "start": 0.5}, (2,)), torch.randn(64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found, experts = energy(x), energy.experts(x)
    assert experts.dtype == torch.bfloat16 and found.dtype == torch.float32
    a = experts.double()
    exact = {"student_t": torch.log1p(a.square() / 2), "logistic": torch.nn.functional.softplus(-a)}[kind].sum(1)
    # A sum in bfloat16 would end at the nearest whole number.
    assert (found - exact).abs().max() < 1e-3


def test_experts_stay_finite_at_large_activations():
    energy = DeepEnergy(nn.Identity(), 1, 1, 1, "none", 1.0)
    with torch.no_grad():
        energy.experts.weight.fill_(1.0)
        energy.experts.bias.zero_()
    x = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    values = energy(x)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert values.tolist() == [-1e4, 0.0]
    assert gradient.flatten().tolist() == [-1.0, 0.0]
    assert torch.isfinite(Logistic(1, 3)(x)).all()


class Square(nn.Module):
    """Features that grow faster than the quadratic term can hold."""

    def forward(self, x):
        return x.square() * 10


def test_z_is_finite_for_bounded_features_with_the_quadratic_term():
    torch.manual_seed(0)
    energy = build_energy({**DEEP, "quadratic": "fixed", "sigma": 1.0}, (2,))
    wide, wider = (model_on(energy, half_width, 1e-3).log_z for half_width in (3.0, 12.0))
    assert wide == pytest.approx(wider, abs=2e-3)


def test_z_of_a_gaussian_is_known():
    energy = DeepEnergy(nn.Flatten(), 2, 1, 2, "fixed", 1.0)
    nn.init.zeros_(energy.experts.weight)
    nn.init.constant_(energy.experts.bias, -50.0)
    assert model_on(energy, 3.0, 1e-4).log_z == pytest.approx(math.log(math.pi), abs=1e-4)


@pytest.mark.parametrize("case", ["no quadratic term", "features that outgrow it"])
def test_z_grows_with_the_box_where_eq_11s_condition_fails(case):
    if case == "no quadratic term":
        energy = build_energy({**DEEP, "quadratic": "none"}, (2,))
    else:
        energy = DeepEnergy(Square(), 2, 1, 2, "fixed", 1.0)
        nn.init.ones_(energy.experts.weight)
    assert model_on(energy, 3.0, 1e-3).log_z == math.inf
    parts, _ = log_parts(energy, log_masses(energy, 3.0, 1), 3.0, 1e-3)
    within = np.logaddexp.accumulate(list(parts.values()))
    assert len(within) > 10 and (np.diff(within) > 0.1).all(), "each square holds more than the one before"
