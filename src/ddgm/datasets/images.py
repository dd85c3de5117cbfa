"""One encoded photograph becomes a square array: decoded, cropped and resized as the lab did, or by a centre crop.

The lab (the paper's first author's repository; docs/method.md) decodes the whole picture, resizes the shorter side
to 64 with Pillow's `thumbnail(..., ANTIALIAS)` and takes the middle 64x64. ANTIALIAS is today's LANCZOS; `thumbnail`
now defaults to BICUBIC with a reducing gap of 2, so it is not called here: `resize` with LANCZOS is the lab's filter.
"""

import io
import math
import struct
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

LARGEST_PIXELS = 2**24  # what no picture of these data sets comes near: a decompression bomb
COLOURS = {"RGB": "", "L": "grey", "LA": "grey", "1": "grey", "CMYK": "cmyk"}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

Size = tuple[int, int]


class UnusableError(Exception):
    """Why an entry cannot become a picture. `fault` is a word for the table: undecodable, tiny or huge."""

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault, self.detail = fault, detail


def develop(data: bytes, side: int, crop: int | None, draft: bool) -> tuple[np.ndarray, str]:
    """An encoded picture as a uint8 array (3, side, side), and its colour mode where that is not RGB, else "".

    Grey, CMYK and palettes are converted, alpha is dropped. With `draft`, a JPEG is decoded at a half, a quarter or an
    eighth of its size where that is still large enough for the resize (Pillow calls it so): the decoder then averages
    pixels that would be averaged anyway, with a mean difference of 0.7/255. Raises UnusableError if the bytes are no
    whole picture, if the picture is larger than LARGEST_PIXELS, or if its shorter side is below the crop, or below
    `side`: nothing is enlarged.
    """
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return develop_with_pillow(data, side, crop)
    if colour not in ("YCbCr", "RGB"):
        return develop_with_pillow(data, side, crop)
    size = (width, height)
    require_size(size, side, crop)
    scale = reduction(size, whole(size, side, crop)) if draft else 1
    try:
        # The same pixels as Pillow's, from the same library, in two thirds of the time.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, min_height=-(-height // scale), min_width=-(-width // scale)
        )
    except ValueError:
        # It refuses what can be mended, such as foreign bytes before a marker: Pillow is to judge.
        return develop_with_pillow(data, side, crop)
    return square(Image.fromarray(pixels), side, crop, size, (width / scale, height / scale)), ""


def develop_with_pillow(data: bytes, side: int, crop: int | None) -> tuple[np.ndarray, str]:
    """As `develop`, for other formats than JPEG, and for JPEGs in other colours."""
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.mode.startswith(("I", "F")):
            raise UnusableError("undecodable", f"mode {picture.mode}, more than 8 bits a channel")
        require_size(picture.size, side, crop)
        return square(picture.convert("RGB"), side, crop), COLOURS.get(picture.mode, picture.mode.lower())
    except UnidentifiedImageError as error:
        # Its own words name a place in memory, and two preparations would differ.
        raise UnusableError("undecodable", f"{len(data)} bytes, of no format that is read here") from error
    except Image.DecompressionBombError as error:
        raise UnusableError("huge", str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableError("undecodable", f"{len(data)} bytes, {error}") from error


def require_size(size: Size, side: int, crop: int | None) -> None:
    """Raise UnusableError if a picture of this width and height is tiny or huge."""
    if math.prod(size) > LARGEST_PIXELS:
        raise UnusableError("huge", f"{size[0]}x{size[1]} pixels")
    if min(size) < (crop or side):
        raise UnusableError("tiny", f"{size[0]}x{size[1]} pixels")


def reduction(size: Size, needed: Size) -> int:
    """The largest of 8, 4, 2 and 1 by which a JPEG can be reduced and still have the size that is needed."""
    return max(scale for scale in (8, 4, 2, 1) if scale <= max(1, min(size[0] // needed[0], size[1] // needed[1])))


def whole(size: Size, side: int, crop: int | None) -> Size:
    """The size of a picture that is resized whole, so that its shorter side, or a crop of it, has `side` pixels."""
    shorter = crop or min(size)
    return size[0] * side // shorter, size[1] * side // shorter


def square(
    picture: Image.Image,
    side: int,
    crop: int | None,
    original: Size | None = None,
    extent: tuple[float, float] | None = None,
) -> np.ndarray:
    """The middle of an RGB picture as a uint8 array (3, side, side), values 0 to 255.

    crop None: the shorter side is resized to `side` pixels, then the middle side x side is taken. crop a number: the
    middle crop x crop pixels are taken, then resized to side x side. Odd margins lose the smaller half on the left
    and at the top. A picture decoded at reduced size comes with its `original` size in pixels, in which crop and
    margins are counted, and with the `extent`, in its own pixels, which that size has become.
    """
    original = original or picture.size
    extent = extent or original
    if crop is None and extent == original:
        # The lab's two steps, to the bit.
        size = whole(original, side, None)
        if size != original:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        left, top = ((length - side) // 2 for length in size)
        return pixels(picture.crop((left, top, left + side, top + side)))
    box = [edge * e / o for edge, e, o in zip(frame(original, side, crop), extent * 2, original * 2, strict=True)]
    # Cut first, so that a crop's pixels depend on nothing outside it (but for half a pixel where it was reduced).
    outer = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    inner = [edge - corner for edge, corner in zip(box, outer[:2] * 2, strict=True)]
    return pixels(picture.crop(outer).resize((side, side), Image.Resampling.LANCZOS, box=tuple(inner)))


def frame(size: Size, side: int, crop: int | None) -> tuple[float, float, float, float]:
    """The part of a picture that is kept, left, top, right and bottom in its pixels."""
    if crop is not None:
        left, top = ((length - crop) // 2 for length in size)
        return left, top, left + crop, top + crop
    resized = whole(size, side, None)
    start = [(length - side) // 2 for length in resized]
    scales = [length / new for length, new in zip(size, resized, strict=True)]
    left, top = (s * scale for s, scale in zip(start, scales, strict=True))
    return left, top, left + side * scales[0], top + side * scales[1]


def pixels(picture: Image.Image) -> np.ndarray:
    """An RGB picture as (3, H, W)."""
    return np.asarray(picture).transpose(2, 0, 1)
