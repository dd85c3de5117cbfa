"""Lines between digits: what they cross is counted, and the ends of the baseline are the lines' own."""

import numpy as np
import pytest
import torch
from torch import nn

from ddgm.metrics import interpolation
from ddgm.metrics.interpolation import PIXELS, Z


class Brightness(nn.Module):
    """A classifier whose digit is the first pixel's value: 0 to 9, with a confidence of 0.9."""

    def judge(self, pixels):
        digit = pixels.flatten(1)[:, 0].long().clamp(0, 9)
        probabilities = torch.full((len(pixels), 10), 0.1 / 9)
        probabilities[torch.arange(len(pixels)), digit] = 0.9
        return pixels.flatten(1).float(), probabilities


class Ink(nn.Module):
    def forward(self, x):
        return x.flatten(1).sum(1)


def line(*values):
    """A path of 2x2 images whose pixels all have these values, (1, steps, 1, 2, 2)."""
    return torch.tensor(values, dtype=torch.uint8).view(1, -1, 1, 1, 1).expand(1, -1, 1, 2, 2).contiguous()


def test_what_is_seen_along_a_line_is_of_each_of_its_images():
    path = interpolation.look(line(8, 3, 2), Ink(), Brightness(), (0.0, 1.0))
    assert path.digit.tolist() == [[8, 3, 2]]
    assert path.confidence.tolist() == [pytest.approx([0.9] * 3)]
    torch.testing.assert_close(path.energy[0] * 255, torch.tensor([32.0, 12.0, 8.0]))
    torch.testing.assert_close(path.pixel_step[0] * 255, torch.tensor([0.0, 10.0, 2.0]))
    torch.testing.assert_close(path.feature_step[0], torch.tensor([0.0, 10.0, 2.0]))


def test_crossings_count_each_path_once_each_way_and_never_its_ends():
    paths = np.array([[8, 3, 3, 2], [8, 3, 5, 2], [2, 2, 8, 8], [7, 9, 7, 4]])
    joined, passed = interpolation.crossings(paths, np.ones(paths.shape, bool))
    assert joined[8, 2] == joined[2, 8] == 3 and joined[7, 4] == 1 and joined.sum() == 8
    assert passed[8, 2, 3] == passed[2, 8, 3] == 2, "twice 3 on one path is once"
    assert passed[8, 2, 5] == 1 and passed[7, 4, 9] == 1 and passed[7, 4, 7] == 0
    rows = list(interpolation.crossing_rows(joined, passed))
    assert (8, 2, 3, pytest.approx(2 / 3), 3) in rows and (8, 2, 9, 0.0, 3) in rows
    assert len(rows) == 4 * 8, "two pairs of ends, both ways, with every other digit"


def test_a_digit_that_the_classifier_is_not_sure_of_is_not_passed():
    paths = np.array([[8, 3, 2], [8, 3, 2]])
    _, passed = interpolation.crossings(paths, np.array([[True, True, True], [True, False, True]]))
    assert passed[8, 2, 3] == 1


def test_only_lines_between_different_classes_are_taken():
    lines = (
        torch.cat([line(a, 5, b) for a, b in pairs]) for pairs in ([(1, 1), (1, 2)], [(3, 3), (4, 4)], [(6, 7)] * 9)
    )
    kept = interpolation.between_classes(lines, Brightness(), 3)
    assert kept[:, :, 0, 0, 0].tolist() == [[1, 5, 2], [6, 5, 7], [6, 5, 7]]


def test_a_generator_of_one_class_ends_the_search_for_pairs():
    def same():
        while True:
            yield line(4, 4, 4)

    assert len(interpolation.between_classes(same(), Brightness(), 2)) == 0


def test_blending_has_the_same_ends_and_equal_steps():
    images = torch.cat([line(0, 200, 100), line(50, 0, 51)])
    blended = interpolation.blend(images)
    assert blended.dtype == torch.uint8
    assert torch.equal(blended[:, [0, -1]], images[:, [0, -1]])
    assert blended[:, 1, 0, 0, 0].tolist() == [50, 50], "the middle, halves to even"


def test_the_summary_is_of_the_worst_step_and_of_the_papers_three_pairs():
    images = torch.cat([line(8, 3, 2), line(8, 3, 2), line(8, 9, 2), line(4, 9, 7)])
    paths = {
        name: interpolation.look(x, Ink(), Brightness(), (0.0, 1.0)) for name, x in ((Z, images), (PIXELS, images))
    }
    found = interpolation.summary(paths, 0.0)
    assert found["crossed_8_2_by_3"] == pytest.approx(2 / 3) and found["between_8_2"] == 3
    assert found["crossed_7_4_by_9"] == 1 and found["between_7_4"] == 9
    assert np.isnan(found["crossed_5_2_by_3"]) and found["lines_5_2"] == 0, "no path joins 5 and 2"
    assert found["lines_8_2"] == 3 and found["crossed_8_2_by_3_pixels"] == pytest.approx(2 / 3)
    assert found["path_confidence_z"] == pytest.approx(0.9)
    assert found["path_energy_z"] == pytest.approx(4 / 255 * (8 + 8 + 8 + 4) / 4)
    rows = list(interpolation.along(paths, 1.0))
    assert ("z", 0, "energy", pytest.approx(found["path_energy_z"] - 1)) in rows
    assert not any(step == 0 and metric == "pixel_step" for _, step, metric, _ in rows)


def test_the_lines_that_the_paper_names_are_the_first_ones_from_its_first_digit_to_its_second():
    images = torch.cat([line(4, 9, 7), line(8, 3, 2), line(2, 6, 8), line(1, 1, 0), line(8, 9, 2), line(8, 1, 2)])
    path = interpolation.look(images, Ink(), Brightness(), (0.0, 1.0))
    found = interpolation.named_lines(path, 1.0, (3, 1, 2, 2))
    assert found["named"].tolist() == [[8, 2, 3], [5, 2, 3], [7, 4, 9]] and found["named_counts"].tolist() == [3, 0, 1]
    assert found["named_class"][0].tolist() == [[8, 3, 2], [8, 6, 2], [8, 9, 2]]
    assert found["named_class"][2].tolist() == [[7, 9, 4], [0, 0, 0], [0, 0, 0]]
    assert (found["named_lines"][..., 0, 0, 0] == found["named_class"]).all()
    np.testing.assert_allclose(found["named_energy"][0, 1], np.array([32, 24, 8]) / 255 - 1, rtol=1e-5)
    assert found["named_confidence"][0] == pytest.approx(0.9) and (found["named_confidence"][1] == 0).all()


def test_what_no_path_joins_has_no_summary():
    empty = torch.empty(0, 3, 1, 2, 2, dtype=torch.uint8)
    assert interpolation.seen_along(empty, Ink(), Brightness(), (0.0, 1.0)) == {}
    found = interpolation.summary({}, 0.0)
    assert all(np.isnan(value) for name, value in found.items() if not name.startswith("lines_"))
    assert {"path_confidence_z", "crossed_8_2_by_3_pixels", "between_7_4"} < set(found)
    assert list(interpolation.along({}, 0.0)) == []
    named = interpolation.named_lines(None, 0.0, (3, 1, 2, 2))
    assert not named["named_counts"].any() and named["named_lines"].shape == (3, interpolation.SHOWN, 3, 1, 2, 2)
