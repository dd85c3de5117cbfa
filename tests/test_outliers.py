"""Outliers: the half planes they are spliced by, and what of them the energy's loss counts."""

import numpy as np
import pytest
import torch

from conftest import WHOLE
from ddgm.objectives.outliers import half_planes, noised, outlier_loss, outliers, spliced, turned
from ddgm.pair import Pair, gradient

CPU = torch.device("cpu")


@pytest.mark.parametrize(("direction", "inside"), [(0.0, (slice(None), slice(14, None))), (np.pi / 2, slice(14, None))])
def test_a_half_plane_is_one_side_of_the_picture(direction, inside):
    mask = half_planes(torch.tensor([[direction]]), torch.zeros(1, 1), (28, 28))[0, 0]
    side = torch.zeros(28, 28)
    side[inside] = 1
    assert torch.equal(mask.round(), side)
    assert mask.sum() == pytest.approx(28 * 14, abs=1e-3)


def test_a_line_further_off_leaves_less_on_its_far_side():
    left = half_planes(torch.zeros(1, 3), torch.tensor([[-5.0, 0.0, 5.0]]), (28, 28)).sum((2, 3))[0]
    assert left.tolist() == pytest.approx([28 * 19, 28 * 14, 28 * 9], abs=0.1)


def test_the_symmetries_of_the_square_are_eight_and_the_first_leaves_a_picture_as_it_is():
    x = torch.rand(1, 1, 2, 5, 5).expand(1, 8, 2, 5, 5)
    turned_x = turned(x, torch.arange(8).unsqueeze(0))[0]
    assert torch.equal(turned_x[0], x[0, 0])
    quarters = [torch.rot90(y, k, (-2, -1)) for y in (x[0, 0], x[0, 0].flip(-1)) for k in range(4)]
    assert all(any(torch.equal(y, other) for other in turned_x) for y in quarters)


def test_a_splice_is_one_picture_beyond_the_line_and_the_other_turned_before_it():
    x, others = torch.rand(2, 3, 1, 1, 28, 28)
    # To the right of the middle x, to its left the other upside down.
    chance = torch.tensor([0.0, 0.5, 4.5 / 8]).expand(3, 1, 3)
    result = spliced(x, others, chance, 3.0)
    torch.testing.assert_close(result[..., 24:], x[..., 24:], rtol=0, atol=1e-6)
    torch.testing.assert_close(result[..., :4], others.flip(-2)[..., :4], rtol=0, atol=1e-6)


def test_noise_is_added_by_its_strength_and_cut_off_at_the_ends():
    x, noise = torch.zeros(1, 2, 1, 1, 2), torch.tensor([0.5, -3.0]).view(1, 1, 1, 1, 2).expand(1, 2, 1, 1, 2)
    result = noised(x, noise, torch.tensor([[0.0, 0.6]]), (-1.0, 1.0))
    assert result.flatten().tolist() == pytest.approx([0.0, 0.0, 0.3, -1.0])


def test_outliers_far_above_the_data_cost_nothing_and_those_below_by_how_much_they_fall_short():
    data = torch.tensor([[1.0, 3.0]])
    loss = outlier_loss(torch.tensor([[102.0, 2.0 + 7.0 - 50.0]]), data, 7.0)
    assert loss.tolist() == pytest.approx([25.0])


def test_a_negative_phase_without_outliers_has_none():
    assert outliers({"kind": "generator"}, 128) == 0
    assert outliers({"kind": "spliced", "share": 0.25}, 128) == 32


@pytest.fixture
def pair(digit_row):
    """A pair whose energy has no noise and no penalty: the same inputs give the same gradient."""
    digit_row["negative"] = {"kind": "spliced", "share": 0.5, "offset": 3.0, "margin": 20.0, "weight": 0.5}
    digit_row["energy"]["noise"] = 0.0
    digit_row["objective"].update(penalty=0.0, penalty_end=0.0)
    data = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    return Pair(digit_row, data, CPU)


def test_outliers_pull_at_the_energy_and_are_not_in_its_mean_over_samples(pair):
    samples, others, data, no_penalty = pair.normal(16), pair.normal(8), pair.examples(), torch.tensor(0.0)

    def gradient_with(negatives):
        step, *means = pair.energy_gradient(pair.energy.flat, negatives, negatives[:, :0], data, no_penalty, WHOLE)
        return step, torch.stack(means)

    both = torch.cat([samples, others], 1)
    pair.row["negative"]["margin"] = 1e4
    unmet, means = gradient_with(both)
    pair.row["negative"]["margin"] = -1e4
    met, means_met = gradient_with(both)
    weight = pair.row["negative"]["weight"]
    pair.row["negative"] = {"kind": "generator", "reuse_latent": False, "importance": None}
    without, means_without = gradient_with(samples)
    # Far below its margin an outlier is pushed up, and the data down, with the weight.
    pull = gradient(pair.energy(data).mean(1) - pair.energy(others).mean(1), pair.energy.parameters)
    torch.testing.assert_close(unmet - met, weight * pull, rtol=1e-3, atol=1e-5)
    # A margin that all outliers keep leaves Eq. 12, as a pair without outliers has it.
    torch.testing.assert_close(met, without, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(means, means_met, rtol=0, atol=0)
    torch.testing.assert_close(means, means_without)
