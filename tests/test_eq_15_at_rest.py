"""How close to the data an energy can be whose generator is at rest by Eq. 15: the numbers that docs/method.md names.

With Eq. 15 summed over the outputs too, and Eq. 13's weight of 1, the generator can gain nothing more where E is
quadratic on its samples, x'x / (2 var) up to a constant, and nowhere below that. What E does elsewhere is free.
"""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr

from conftest import PARAMETERS
from ddgm.datasets import two_d


def least_kl(dataset: dict, share: float, widest: float = 1.0, cells: int = 300) -> float:
    """The least KL(D‖T), by all energies with samples on the smallest region that holds this share of the data.

    The samples' variance there is the data's, or up to `widest` times it.
    """
    side = 8 / cells
    axis = (np.arange(cells) + 0.5) * side - 4
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    data = two_d.density(dataset, x)
    data /= data.sum()
    order = np.argsort(-data)
    covered = np.zeros(len(x), bool)
    covered[order[: np.searchsorted(np.cumsum(data[order]), share) + 1]] = True
    within = np.where(covered, data, 0) / data[covered].sum()
    variance = within @ (x - within @ x) ** 2

    def least(times: float) -> float:
        quadratic = np.exp(-((x - within @ x) ** 2 / (times * variance)).sum(1) / 2)

        def kl(log_height: float) -> float:
            """Off the samples the data's density, at this height, where exp(-E) may be as high."""
            model = np.where(covered, quadratic, np.minimum(quadratic, np.exp(log_height) * data))
            return float(rel_entr(data, model / model.sum()).sum())

        return float(minimize_scalar(kl, bounds=(-10, 20), method="bounded", options={"xatol": 1e-2}).fun)

    if widest == 1:
        return least(1.0)
    return float(minimize_scalar(least, bounds=(1, widest), method="bounded", options={"xatol": 5e-2}).fun)


@pytest.mark.parametrize(
    ("dataset", "share", "least"),
    [("four_spin", 0.95, 0.37), ("four_spin", 0.99, 0.69), ("two_spiral", 0.95, 0.19), ("two_spiral", 0.99, 0.34)],
)
def test_the_more_of_the_data_the_samples_cover_the_farther_is_an_energy_that_they_rest_on(dataset, share, least):
    assert least_kl(PARAMETERS["datasets"][dataset], share) == pytest.approx(least, abs=0.01)


@pytest.mark.parametrize(
    ("dataset", "share", "least"),
    [("four_spin", 0.95, 0.29), ("four_spin", 0.99, 0.57), ("two_spiral", 0.95, 0.13), ("two_spiral", 0.99, 0.29)],
)
def test_samples_that_are_spread_wider_than_the_data_would_let_it_come_a_little_closer(dataset, share, least):
    assert least_kl(PARAMETERS["datasets"][dataset], share, widest=10) == pytest.approx(least, abs=0.01)
