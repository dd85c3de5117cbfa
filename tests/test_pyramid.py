"""Sliced Wasserstein distances of Laplacian pyramids, where the answer is known."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddgm.metrics import pyramid

SETTINGS = {"patches": 16, "projections": 64}


def scenes(n, seed, side=64):
    """Smooth coloured scenes with fine grain, uint8 (n, 3, side, side)."""
    stream = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(n, 3, 8, 8, generator=stream), size=side, mode="bicubic")
    grain = 0.1 * torch.randn(n, 3, side, side, generator=stream)
    return (255 * (0.2 + 0.6 * smooth + grain)).clamp(0, 255).to(torch.uint8)


def blur(images):
    return pyramid.blurred(pyramid.blurred(images.float())).round().to(torch.uint8)


def test_the_bands_of_a_pyramid_add_up_to_the_image():
    x = torch.rand(2, 3, 64, 64)
    *bands, smallest = pyramid.bands(x)
    assert [band.shape[-1] for band in bands] + [smallest.shape[-1]] == [64, 32, 16]
    for band in reversed(bands):
        smallest = band + pyramid.larger(smallest)
    torch.testing.assert_close(smallest, x)


@pytest.mark.parametrize(("side", "widths"), [(64, [64, 32, 16]), (50, [50, 25]), (100, [100, 50, 25]), (9, [9])])
def test_halving_ends_at_sixteen_pixels_or_where_a_width_is_odd(side, widths):
    assert [band.shape[-1] for band in pyramid.bands(torch.rand(2, 3, side, side))] == widths


def test_a_flat_image_has_empty_bands_and_keeps_its_colour():
    *bands, smallest = pyramid.bands(torch.full((1, 3, 64, 64), 0.3))
    # Two pixels along the edge see the padding of the larger image's gaps.
    for band in bands:
        torch.testing.assert_close(band[:, :, 2:-2, 2:-2], torch.zeros_like(band[:, :, 2:-2, 2:-2]))
    torch.testing.assert_close(smallest, torch.full((1, 3, 16, 16), 0.3))


def test_patches_are_whole_and_standardised():
    band = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).view(2, 3, 16, 16)
    points = pyramid.patches(band, 50, torch.Generator().manual_seed(0)).view(100, 7, 7, 3)
    torch.testing.assert_close(points.mean((0, 1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(points.square().mean((0, 1, 2)), torch.ones(3), atol=1e-5, rtol=0)
    # Neighbours of a row are one step apart, wherever a patch lies.
    steps = points[:, :, 1:] - points[:, :, :-1]
    torch.testing.assert_close(steps, steps[:1, :1, :1].expand_as(steps), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_the_distance_of_a_shifted_set_is_known(shift):
    """Along a direction u the points move by shift · u_0, whose mean size over the sphere of R^d is known."""
    d = 5
    points = torch.randn(300, d, generator=torch.Generator().manual_seed(0))
    moved = points + shift * torch.eye(d)[0]
    found = pyramid.sliced_wasserstein(points, moved, 20000, torch.Generator().manual_seed(1))
    mean_cosine = np.exp(torch.lgamma(torch.tensor(d / 2)) - torch.lgamma(torch.tensor((d + 1) / 2))) / np.pi**0.5
    assert found == pytest.approx(shift * float(mean_cosine), rel=0.02, abs=1e-6)


BANDS = ("swd_64", "swd_32", "swd_16")


def test_a_set_is_at_no_distance_from_itself():
    a = scenes(50, 0)
    assert pyramid.distances(a, a, SETTINGS, 0) == dict.fromkeys((*BANDS, "swd", "swd_colours"), 0.0)


@pytest.mark.parametrize("dim", [torch.tensor([0.7, 0.7, 0.7]), torch.tensor([1.0, 0.6, 0.6])])
def test_brightness_and_cast_are_seen_by_the_colours_alone(dim):
    a = scenes(50, 0)
    b = (scenes(50, 1) * dim.view(3, 1, 1)).round().to(torch.uint8)
    found, alike = pyramid.distances(a, b, SETTINGS, 0), pyramid.distances(a, scenes(50, 1), SETTINGS, 0)
    assert found["swd"] == pytest.approx(alike["swd"], rel=0.05)
    assert found["swd_colours"] > 5 * alike["swd_colours"]


def test_a_shift_of_all_colours_is_measured_in_thousandths_of_their_range():
    """Every channel moves by 10 of 255; of a direction u the mean of |u_0 + u_1 + u_2| is √3/2."""
    a = torch.randint(0, 200, (50, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = pyramid.distances(a, a + 10, {"patches": 16, "projections": 4000}, 0)["swd_colours"]
    assert found == pytest.approx(1000 * 10 / 127.5 * 3**0.5 / 2, rel=0.02)


def test_the_distance_is_symmetric_and_follows_from_the_seed():
    a, b = scenes(50, 0), scenes(50, 1)
    found = pyramid.distances(a, b, SETTINGS, 0)
    assert pyramid.distances(b, a, SETTINGS, 0) == pytest.approx(found, rel=1e-6)
    assert pyramid.distances(a, b, SETTINGS, 0) == found
    assert pyramid.distances(a, b, SETTINGS, 1) != found
    assert found["swd"] == pytest.approx(sum(found[band] for band in BANDS) / 3)


def test_the_order_of_the_images_hardly_matters():
    a, b = scenes(200, 0), scenes(200, 1)
    found, turned = pyramid.distances(a, b, SETTINGS, 0), pyramid.distances(a, b.flip(0), SETTINGS, 0)
    assert turned["swd"] == pytest.approx(found["swd"], rel=0.3)


def test_two_halves_of_one_set_are_close_and_closer_the_more_images_there_are():
    few = pyramid.distances(scenes(50, 0), scenes(50, 1), SETTINGS, 0)["swd"]
    many = pyramid.distances(scenes(400, 0), scenes(400, 1), SETTINGS, 0)["swd"]
    assert many < few
    other = 255 - scenes(400, 1)
    other[..., ::2] = 0
    assert pyramid.distances(scenes(400, 0), other, SETTINGS, 0)["swd"] > 4 * many


def test_blur_shows_where_the_detail_was():
    a, b = scenes(200, 0), scenes(200, 1)
    plain, blurred = pyramid.distances(a, b, SETTINGS, 0), pyramid.distances(a, blur(b), SETTINGS, 0)
    # 3.5 to 4.4 times, by the seed.
    assert blurred["swd_64"] > 3 * plain["swd_64"]
    assert blurred["swd_16"] < 2 * plain["swd_16"] < blurred["swd_64"]


def test_grain_shows_in_the_finest_band():
    """Of the same images: what remains is the grain's. White noise has most of its power in the finest band."""
    a = blur(scenes(100, 0))
    grain = 20 * torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    found = pyramid.distances(a, (a.float() + grain).clamp(0, 255).to(torch.uint8), SETTINGS, 0)
    assert found["swd_64"] > 1.5 * found["swd_32"] > 1.5 * found["swd_16"] > 0
