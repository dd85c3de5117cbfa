"""Letters in MNIST's own manner: inputs of the digits' look, ink and place that are no digits.

MNIST fits a glyph's bounding box into 20 of 28 pixels, antialiased, and puts its centre of mass in the middle of the
frame (LeCun et al. 1998, section III-A). The fonts are those that matplotlib carries, so every machine has them.
Letter i has a random stream of its own from (seed, i): the same seed gives the same bytes (with the same versions of
Pillow and SciPy), and the first letters are the same however many are drawn.
"""

from functools import cache
from pathlib import Path
from string import ascii_letters

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, map_coordinates

Ink = NDArray[np.float32]

# In some hand or font also a shape of 0, 1, 2, 5, 6, 8, 9 or 4, in this order; those of 1, so drawn, are nearer to
# training digits than half the test digits are.
DIGIT_SHAPED = "OoQDaIiljJftZzSsbGBgqYy"
LETTERS = "".join(letter for letter in ascii_letters if letter not in DIGIT_SHAPED)
# Upright and slanted, with serifs and without. No bold face: the weight is drawn.
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic")
FONTS += ("cmr10", "cmss10", "cmti10", "cmtt10")

FRAME, BOX = 28, 20  # pixels of MNIST, as are all widths below
SCALE = 4  # letters are drawn this much larger, for smooth edges
STROKE, STROKE_SD = 1.8, 0.28  # a letter's stroke width: its median, and the sd of its logarithm
THINNING = 0.3  # what an edge of a stroke may lose: the hairlines of fonts with serifs break beyond
ROTATION, SLANT = 5.0, 10.0  # degrees to either side, at most
STRETCH = (0.65, 1.0)  # width over the font's: digits are narrow
BEND, WAVE = 0.7, 24.0  # no hand draws a straight line: how far it strays at most, and the length of the wave


@cache
def draw_letters(n: int, side: int, seed: int) -> NDArray[np.uint8]:
    """n random letters, (n, 1, side, side), white on black. Kept, since every seed of an experiment wants the same."""
    return np.stack([_letter(side, np.random.default_rng((seed, i)))[None] for i in range(n)])


def _letter(side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    glyph = _glyph(str(random.choice(list(LETTERS))), str(random.choice(FONTS)))
    width = STROKE * np.exp(STROKE_SD * random.standard_normal())
    return _framed(_weighted(_by_hand(glyph, random), width), side)


@cache
def _glyph(letter: str, font: str) -> Ink:
    """A letter as its font has it, 0 to 1: its larger extent is BOX * SCALE pixels, in the middle of twice as many."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    large = BOX * SCALE
    left, top, right, bottom = ImageFont.truetype(file, large).getbbox(letter)
    face = ImageFont.truetype(file, large * large / max(right - left, bottom - top))
    picture = Image.new("L", (2 * large, 2 * large))
    left, top, right, bottom = face.getbbox(letter)
    corner = (large - (left + right) / 2, large - (top + bottom) / 2)
    ImageDraw.Draw(picture).text(corner, letter, fill=255, font=face)
    return np.asarray(picture, np.float32) / 255


def _by_hand(glyph: Ink, random: np.random.Generator) -> Ink:
    """Rotated, slanted and stretched about the middle, its lines bent."""
    turn, slant = np.deg2rad(random.uniform(-1, 1, 2) * (ROTATION, SLANT))
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    forth = rotate @ [[1, 0], [np.tan(slant), random.uniform(*STRETCH)]]  # of (y, x)
    middle = np.array(glyph.shape)[:, None, None] / 2
    source = np.tensordot(np.linalg.inv(forth), np.indices(glyph.shape) - middle, 1)
    bend, phase = random.uniform(0, [[BEND], [2 * np.pi]], (2, 2))[..., None, None]
    source += bend * SCALE * np.sin(source[::-1] * (2 * np.pi / (WAVE * SCALE)) + phase)
    return map_coordinates(glyph, source + middle, order=1)


def _weighted(glyph: Ink, width: float) -> Ink:
    """Ink from 0 to 1, its strokes thickened or thinned at both edges to a mean `width` in pixels of MNIST."""
    ink = glyph > 0.5
    depth = distance_transform_edt(ink) - distance_transform_edt(~ink)
    depth -= np.sign(depth) / 2  # to the edge instead of the nearest pixel beyond it; above 0 inside
    # A long stroke has about its length times its width as area, and its length twice as edge.
    edge = (np.abs(depth) < 1).sum() / 2
    grown = max(width * SCALE / 2 - ink.sum() / edge, -THINNING * SCALE)
    return np.clip(depth + grown + 0.5, 0, 1).astype(np.float32)


def _framed(ink: Ink, side: int) -> NDArray[np.uint8]:
    """The middle of a frame of side² pixels is the ink's centre of mass, or as near as the ink stays in the frame."""
    ink = np.pad(ink, BOX * SCALE // 2)  # a frame may reach beyond the drawing
    spans, centre = [], []
    for axis in (0, 1):
        profile = ink.sum(axis)  # along x, then along y
        filled = np.flatnonzero(profile)
        spans.append((filled[0], filled[-1] + 1))
        centre.append((profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum())
    low, high = np.array(spans).T
    half = (high - low).max() * FRAME / BOX / 2
    x, y = np.clip(centre, high - half, low + half)
    frame = (x - half, y - half, x + half, y + half)
    picture = Image.fromarray(ink).resize((side, side), Image.Resampling.BOX, frame)
    return np.rint(np.asarray(picture) * 255).astype(np.uint8)
