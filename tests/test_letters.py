"""Letters that look like MNIST's digits and are none, the same for the same seed."""

import numpy as np
import pytest
import torch

from ddgm.datasets import letters
from ddgm.datasets.letters import DIGIT_SHAPED, LETTERS, draw_letters
from ddgm.metrics.energies import other_kinds

N = 300


@pytest.fixture(scope="module")
def drawn():
    """N letters of one seed by the side of the frame."""
    return {side: draw_letters(N, side, 0) for side in (8, 28)}


def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    first = draw_letters(10, 28, 3)
    assert first.tobytes() == draw_letters(10, 28, 3).tobytes()
    assert not (first == draw_letters(10, 28, 4)).all((1, 2, 3)).any()


def test_a_letter_does_not_depend_on_how_many_are_drawn():
    assert np.array_equal(draw_letters(3, 28, 0), draw_letters(10, 28, 0)[:3])


@pytest.mark.parametrize("side", [8, 28])
def test_every_picture_has_ink_about_its_centre_of_mass(drawn, side):
    pictures = drawn[side]
    assert pictures.shape == (N, 1, side, side) and pictures.dtype == np.uint8
    assert (pictures.max((1, 2, 3)) > 85).all()
    ink, place = pictures[:, 0].astype(float), np.arange(side) + 0.5
    total = ink.sum((1, 2))
    for axis in (1, 2):
        assert np.abs(ink.sum(axis) @ place / total - side / 2).max() < 1


def test_a_letter_fills_20_of_28_pixels_and_none_is_cut(drawn):
    for picture in drawn[28][:, 0] > 0:
        extent = max(np.ptp(np.flatnonzero(picture.any(axis))) + 1 for axis in (0, 1))
        assert extent in (19, 20, 21)  # both ends may lie between pixels, or be too faint to see


def test_a_smaller_frame_shows_the_same_letters(drawn):
    ink = {side: pictures.mean((1, 2, 3)) for side, pictures in drawn.items()}
    assert np.abs(ink[8] - ink[28]).max() < 2  # of 255: edges are rounded to a quarter of a pixel of MNIST


def test_no_letter_has_the_shape_of_a_digit_and_every_other_one_is_drawn(monkeypatch):
    seen, glyph = set(), letters._glyph
    monkeypatch.setattr(letters, "_glyph", lambda letter, font: seen.add(letter) or glyph(letter, font))
    draw_letters.cache_clear()
    draw_letters(N, 8, 0)
    assert seen == set(LETTERS)
    assert not seen & set(DIGIT_SHAPED) and set("OoIlSsZzbgq") <= set(DIGIT_SHAPED)


@pytest.mark.parametrize("font", letters.FONTS)
def test_every_font_has_every_letter(font):
    glyphs = [letters._glyph(letter, font) for letter in LETTERS]
    assert len({glyph.tobytes() for glyph in glyphs}) == len(LETTERS)


def test_letters_have_the_ink_of_mnist(drawn):
    # MNIST's mean is 0.13 of white, and nine of ten digits lie between 0.066 and 0.21.
    ink = drawn[28].mean((1, 2, 3)) / 255
    assert 0.12 < ink.mean() < 0.15
    assert np.quantile(ink, 0.05) > 0.05 and np.quantile(ink, 0.95) < 0.25


def test_grey_images_are_compared_with_letters_and_colour_images_are_not():
    x = torch.rand(6, 1, 28, 28) * 2 - 1
    found = other_kinds(x, (-1.0, 1.0), torch.Generator().manual_seed(5))["letters"]
    torch.testing.assert_close(found, torch.from_numpy(draw_letters(6, 28, 5)) / 127.5 - 1)
    assert "letters" not in other_kinds(x.expand(-1, 3, -1, -1), (-1.0, 1.0), torch.Generator().manual_seed(5))
