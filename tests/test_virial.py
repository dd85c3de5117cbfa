"""Whether a generator is at rest on its energy."""

import numpy as np
import pytest

from ddgm.metrics.virial import quadratic_share, virial


def samples_of_quartic(n: int) -> np.ndarray:
    """n points of exp(-Σ x⁴): x⁴ has a Gamma(1/4) distribution."""
    stream = np.random.default_rng(0)
    return stream.gamma(0.25, size=(n, 2)) ** 0.25 * stream.choice([-1, 1], (n, 2))


def test_the_virial_of_an_energys_own_samples_is_1_and_grows_with_the_energy():
    x = samples_of_quartic(100_000)
    slopes = 4 * x**3  # of E(x) = Σ x⁴
    assert virial(slopes, x) == pytest.approx(1, abs=0.02)
    assert virial(3 * slopes, x) == pytest.approx(3, abs=0.06)


def test_the_virial_does_not_depend_on_where_samples_lie():
    x = np.random.default_rng(0).standard_normal((100_000, 2)) + 5
    assert virial(x - 5, x) == pytest.approx(1, abs=0.02)


def test_a_square_is_all_quadratic_and_a_wave_hardly():
    x = np.random.default_rng(0).standard_normal((10_000, 2))
    square = 3 + x[:, 0] - 2 * x[:, 0] * x[:, 1] + x[:, 1] ** 2
    assert quadratic_share(square, x) == pytest.approx(1)
    assert quadratic_share(np.sin(9 * x[:, 0]), x) < 0.01
    assert 0.5 < quadratic_share(square + 2 * np.sin(9 * x[:, 0]), x) < 0.95
