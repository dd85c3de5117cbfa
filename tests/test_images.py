"""One photograph becomes a square: cropped as the lab cropped, whatever its size, mode and format."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from ddgm.datasets import drawn
from ddgm.datasets.images import UnusableError, develop, reduction, square, whole


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour=(200, 30, 90), size=(178, 218), mode="RGB"):
    return Image.new(mode, size, colour)


def torchvision_s(crop, side):
    """The same preparation by torchvision."""
    resize = v2.Resize(side, v2.InterpolationMode.LANCZOS)
    return v2.Compose([resize, v2.CenterCrop(side)] if crop is None else [v2.CenterCrop(crop), resize])


@pytest.mark.parametrize("crop", [108, 140, 148, 178])
@pytest.mark.parametrize("side", [32, 64])
def test_a_crop_is_torchvision_s_center_crop_and_resize_to_the_bit(crop, side):
    for picture in (drawn.face(0, 1), drawn.room(0, 2)):
        theirs = np.asarray(torchvision_s(crop, side)(picture)).transpose(2, 0, 1)
        if all((length - crop) % 2 == 0 for length in picture.size):
            assert np.array_equal(square(picture, side, crop), theirs)
        else:
            # torchvision rounds an odd margin to the even number, the lab down: one pixel of the original apart.
            assert np.abs(square(picture, side, crop).astype(int) - theirs).mean() < 8


@pytest.mark.parametrize("side", [32, 64])
def test_the_whole_picture_is_the_lab_s_resize_and_crop_to_the_bit(side):
    for picture in (drawn.face(0, 1), drawn.room(0, 2), drawn.room(0, 3)):
        shorter = min(picture.size)
        width, height = (length * side // shorter for length in picture.size)
        resized = picture.resize((width, height), Image.Resampling.LANCZOS)
        left, top = (width - side) // 2, (height - side) // 2
        lab = np.asarray(resized.crop((left, top, left + side, top + side))).transpose(2, 0, 1)
        assert np.array_equal(square(picture, side, None), lab)


@pytest.mark.parametrize("crop", [None, 108, 140, 148, 178])
def test_decoding_at_reduced_size_shows_the_same_part_of_the_picture(crop):
    for i in range(3):
        data = encoded(drawn.face(0, i), "JPEG", quality=95)
        full, _ = develop(data, 64, crop, draft=False)
        reduced, _ = develop(data, 64, crop, draft=True)
        differences = {
            shift: np.abs(np.roll(reduced, shift, axis=(1, 2))[:, 2:-2, 2:-2].astype(int) - full[:, 2:-2, 2:-2]).mean()
            for shift in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        }
        assert min(differences, key=differences.get) == (0, 0)
        assert differences[0, 0] < 1.5


@pytest.mark.parametrize("size", [(1000, 1300), (356, 436), (357, 437)])
def test_decoding_at_reduced_size_never_falls_below_the_size_that_is_needed(size):
    small = drawn.face(0, 1).resize((size[0] // 8, size[1] // 8))
    data = encoded(small.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=95)
    full, _ = develop(data, 64, None, draft=False)
    reduced, _ = develop(data, 64, None, draft=True)
    assert np.abs(full.astype(int) - reduced).mean() < 1.5
    assert reduced.std() == pytest.approx(full.std(), rel=0.03)  # as sharp


def test_reduced_decoding_changes_nothing_where_the_format_has_none():
    data = encoded(drawn.room(0, 1), "WEBP")
    assert np.array_equal(develop(data, 64, None, draft=True)[0], develop(data, 64, None, draft=False)[0])


def test_the_crop_keeps_the_middle_and_cuts_a_tall_picture_at_both_ends():
    # Three horizontal bands: red 77 pixels, green 64, blue 77 of 218; the lab keeps rows 7 to 71 of 78.
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[:77, :, 0], pixels[77:141, :, 1], pixels[141:, :, 2] = 255, 255, 255
    band = square(Image.fromarray(pixels), 64, None).argmax(axis=0)
    assert (band == band[:, :1]).all()
    assert [int((band[:, 0] == channel).sum()) for channel in range(3)] == [21, 22, 21]
    assert set(np.unique(square(Image.fromarray(pixels), 64, 64).argmax(axis=0))) == {1}


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 64), (64, 65), (256, 341), (341, 256), (1000, 64), (129, 257)])
def test_every_size_gives_a_full_square(size, kind, draft):
    picture, colour = develop(encoded(plain(size=size), kind), 64, None, draft)
    assert picture.shape == (3, 64, 64) and picture.dtype == np.uint8 and colour == ""
    assert np.abs(picture.astype(int) - np.array([200, 30, 90])[:, None, None]).max() <= 2


def test_resizing_is_antialiased():
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = square(Image.fromarray(stripes), 64, None)
    assert result.std() < 8 and abs(result.mean() - 127.5) < 2


@pytest.mark.parametrize(
    ("mode", "colour", "expected", "noted"),
    [
        ("L", 77, (77, 77, 77), "grey"),
        ("LA", (77, 0), (77, 77, 77), "grey"),
        ("1", 1, (255, 255, 255), "grey"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "cmyk"),
        ("RGBA", (200, 30, 90, 10), (200, 30, 90), "rgba"),
        ("RGB", (200, 30, 90), (200, 30, 90), ""),
    ],
)
def test_other_colour_modes_become_rgb_and_are_named(mode, colour, expected, noted):
    picture, name = develop(encoded(plain(colour, mode=mode), "TIFF"), 64, None, draft=True)
    assert (picture == np.array(expected)[:, None, None]).all()
    assert name == noted


def test_more_than_eight_bits_a_channel_are_not_cut_off_in_silence():
    deep = Image.fromarray(np.full((218, 178), 40000, np.uint16))
    with pytest.raises(UnusableError, match="more than 8 bits a channel") as raised:
        develop(encoded(deep, "PNG"), 64, None, draft=True)
    assert raised.value.fault == "undecodable"


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize(("mode", "noted"), [("L", "grey"), ("CMYK", "cmyk")])
def test_jpegs_in_grey_and_cmyk_are_converted_and_named(mode, noted, draft):
    picture, name = develop(encoded(drawn.face(0, 0).convert(mode), "JPEG"), 64, None, draft)
    assert picture.shape == (3, 64, 64) and name == noted
    assert np.abs(picture.astype(int) - square(drawn.face(0, 0).convert(mode).convert("RGB"), 64, None)).mean() < 4


def test_a_palette_becomes_rgb():
    picture, name = develop(encoded(plain().quantize(4)), 64, None, draft=True)
    assert picture[:, 0, 0].tolist() == [200, 30, 90] and name == "p"


@pytest.mark.parametrize("kept", [0, 10, 1000], ids=["empty", "header only", "cut"])
def test_bytes_that_are_no_whole_picture_are_undecodable(kept):
    with pytest.raises(UnusableError) as caught:
        develop(encoded(drawn.face(0, 0), "JPEG")[:kept], 64, None, draft=True)
    assert caught.value.fault == "undecodable" and f"{kept} bytes" in caught.value.detail
    assert "0x" not in caught.value.detail, "the same words every time"


@pytest.mark.parametrize(("size", "crop"), [((63, 200), None), ((100, 100), 108)])
def test_what_would_have_to_be_enlarged_is_tiny(size, crop):
    with pytest.raises(UnusableError, match=f"tiny: {size[0]}x{size[1]} pixels"):
        develop(encoded(plain(size=size)), 64, crop, draft=True)


@pytest.mark.parametrize("size", [(4097, 4097), (20_000, 10_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_huge_and_is_not_decoded(size, monkeypatch, recwarn):
    data = encoded(Image.new("1", size))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UnusableError, match="huge"):
        develop(data, 64, None, draft=True)
    assert not recwarn.list


@pytest.mark.parametrize("draft", [True, False])
def test_jpegs_are_decoded_as_pillow_decodes_them(draft):
    for i in range(4):
        data = encoded(drawn.face(0, i), "JPEG", quality=80 + 5 * i, subsampling=i % 3)
        picture = Image.open(io.BytesIO(data))
        extent = picture.draft(None, (64, 78))[1][2:] if draft else picture.size
        expected = square(picture.convert("RGB"), 64, None, (178, 218), extent)
        assert np.array_equal(develop(data, 64, None, draft)[0], expected)


def test_a_jpeg_with_a_tail_of_foreign_bytes_is_a_picture():
    data = encoded(drawn.face(0, 0), "JPEG")
    assert np.array_equal(develop(data + b"tail", 64, None, True)[0], develop(data, 64, None, True)[0])


@pytest.mark.parametrize(("size", "scale"), [((178, 218), 2), ((127, 200), 1), ((256, 256), 4), ((5000, 512), 8)])
def test_the_reduction_is_the_largest_that_leaves_enough(size, scale):
    assert reduction(size, whole(size, 64, None)) == scale
