"""Raw files for the toy branch, drawn by code into the very containers of the originals.

Digits are scikit-learn's handwritten ones; faces and rooms are cartoons. Picture i has a random stream of
its own from (seed, i), so that it is the same however many are drawn, and the same seed gives the same
bytes (with the same versions of Pillow, LMDB and zlib).
"""

import colorsys
import errno
import gzip
import hashlib
import io
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ddgm.errors import UserError
from ddgm.whole_file import whole_file

Colour = tuple[int, int, int]

TRAIN_FRACTION = 0.8
FACE_WIDTH, FACE_HEIGHT = 178, 218
ROOM_HEIGHT = 256
DRAWING_SCALE = 2  # pictures are drawn this much larger, for smooth edges

SKINS = ((255, 224, 196), (241, 194, 155), (224, 172, 122), (198, 134, 90), (141, 85, 54), (92, 58, 40))
HAIRS = ((28, 22, 20), (70, 42, 24), (120, 72, 36), (214, 170, 92), (150, 56, 30), (176, 172, 168))
EYES = ((70, 44, 26), (44, 88, 140), (58, 110, 70), (90, 90, 96))
LIPS = ((200, 80, 84), (176, 60, 70), (214, 110, 104))


def draw(row: dict, file: str, target: Path) -> None:
    """Write the raw file `file` of a data set (a row of params.yaml with `draw: {images, seed}`) to `target`.

    Digits: the four idx .gz files of MNIST, 8x8 pixels, 80 % for training. Faces: CelebA's zip of 178x218
    JPEGs or its list of splits, 80/10/10 %. Rooms: one of LSUN's two zips of an LMDB environment of WebP
    images, 80/20 %. Raises UserError if more digits are asked for than there are.
    """
    images, seed = row["draw"]["images"], row["draw"]["seed"]
    if row["kind"] == "mnist":
        _write_digits(file, images, seed, target)
    elif file == "list_eval_partition.txt":
        with whole_file(target) as path:
            path.write_bytes(_partition(images))
    elif row["kind"] == "celeba":
        members = ((f"img_align_celeba/{i + 1:06d}.jpg", _jpeg(face(seed, i))) for i in range(images))
        with whole_file(target) as path:
            _write_zip(path, members)
    else:
        split = "train" if file == "bedroom_train_lmdb.zip" else "val"
        training = round(TRAIN_FRACTION * images)
        numbers = range(training) if split == "train" else range(training, images)
        with whole_file(target) as path:
            _write_rooms(path, split, seed, numbers)


# Digits


def _write_digits(file: str, images: int, seed: int, target: Path) -> None:
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    if images > len(digits.target):
        raise UserError(
            f"draw.images: {images} is more than the {len(digits.target)} digits there are: write at most "
            f"{len(digits.target)}"
        )
    chosen = np.random.default_rng(seed).permutation(len(digits.target))[:images]
    training = round(TRAIN_FRACTION * images)
    chosen = chosen[:training] if file.startswith("train") else chosen[training:]
    grey = np.rint(digits.images * (255 / 16))  # from 0..16
    values = (grey if "images" in file else digits.target)[chosen]
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    with whole_file(target) as path:
        path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0))


# Faces


def _partition(images: int) -> bytes:
    """CelebA's list of splits: `000001.jpg 0`, with CRLF as in the original; 0 train, 1 val, 2 test."""
    bounds = (round(0.8 * images), round(0.9 * images))
    return b"".join(b"%06d.jpg %d\r\n" % (i + 1, sum(i >= bound for bound in bounds)) for i in range(images))


def face(seed: int, i: int) -> Image.Image:
    """The i-th cartoon face of a seed, an RGB image of 178x218 pixels, eyes where CelebA aligns them."""
    random = np.random.default_rng((seed, i))
    width, height = FACE_WIDTH * DRAWING_SCALE, FACE_HEIGHT * DRAWING_SCALE
    picture = _gradient(width, height, _any_colour(random), _any_colour(random))
    skin, hair = _vary(_pick(random, SKINS), 5, random), _vary(_pick(random, HAIRS), 6, random)
    shade, light = _scaled(skin, 0.8), _scaled(skin, 1.1)
    eye, lips = _pick(random, EYES), _vary(_pick(random, LIPS), 12, random)
    clothes = _any_colour(random)
    turn = random.uniform(-1, 1) * 14  # the head's yaw, as the features' shift in pixels
    wide = random.uniform(92, 108)
    long_hair, bald = random.random() < 0.5, random.random() < 0.06
    smile, openness = random.uniform(-4, 26), random.uniform(0, 1)

    # Neck, shoulders and head are one layer, tilted as a whole: the head's roll.
    layer = Image.new("RGBA", (width, height), (*_scaled(skin, 0.9), 0))
    pen = ImageDraw.Draw(layer)
    x, y = width / 2, 246.0
    tall = wide * random.uniform(1.22, 1.34)

    def oval(cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
        pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=colour)

    if long_hair and not bald:
        pen.rounded_rectangle((x - wide * 1.2, y - 60, x + wide * 1.2, height - 10), radius=50, fill=_scaled(hair, 0.8))
    oval(x, height + 40, wide * 1.75, 110, clothes)
    pen.rounded_rectangle((x - wide * 0.42, y + 60, x + wide * 0.42, height - 30), radius=26, fill=shade)
    if not bald:
        oval(x, y - 36, wide * 1.17, tall * 0.98, _scaled(hair, 0.85))
    for side in (-1, 1):
        oval(x + side * wide * 0.98 - turn * 0.4, y + 4, 14, 24, shade)
    oval(x, y, wide, tall, shade)
    oval(x - 4 + turn * 0.3, y - 4, wide * 0.93, tall * 0.96, skin)
    oval(x - 14 + turn, y - tall * 0.5, wide * 0.5, tall * 0.22, light)
    if not bald:
        part = random.uniform(-0.5, 0.5) * wide
        fringe = random.uniform(0.42, 0.62)
        pen.chord((x - wide * 1.1, y - tall * 1.2, x + wide * 1.1, y - tall * fringe + 30), 180, 360, fill=hair)
        oval(x + part * 0.5, y - tall * 0.86, wide * 0.75, tall * 0.26, hair)
        for side in (-1, 1):
            drop = 0.25 if long_hair else 0.0
            oval(x + side * wide, y - tall * (0.45 - drop), wide * 0.17, tall * (0.4 + drop), hair)

    fx = x + turn
    apart, line = wide * random.uniform(0.4, 0.46), y - 14
    brow = random.uniform(-6, 6)
    for side in (-1, 1):
        ex = fx + side * apart
        oval(ex, line + 2, 23, 15, shade)
        oval(ex, line, 20, 6 + 6 * openness, (246, 246, 244))
        oval(ex + turn * 0.3, line, 9, 5.5 + 4 * openness, eye)
        oval(ex + turn * 0.3, line, 4.5, 4.5, (12, 10, 10))
        oval(ex + turn * 0.3 + 3, line - 3, 2, 2, (255, 255, 255))
        ends = (ex - side * 22, line - 24 + brow, ex + side * 24, line - 26 - brow * 0.3)
        pen.line(ends, fill=_scaled(hair, 0.7), width=8)
    nose = random.uniform(9, 15)
    pen.polygon(
        (fx + turn * 0.3 - 4, line + 8, fx - nose, y + 38, fx + nose + turn * 0.3, y + 38),
        fill=_scaled(skin, 0.93),
    )
    oval(fx + turn * 0.3, y + 36, nose, 8, shade)
    mouth, half = y + tall * 0.54, wide * random.uniform(0.32, 0.44)
    if smile > 12:  # an open smile with teeth
        pen.chord((fx - half, mouth - smile, fx + half, mouth + smile), 0, 180, fill=lips)
        pen.chord(
            (fx - half + 8, mouth - smile * 0.5, fx + half - 8, mouth + smile * 0.5),
            0,
            180,
            fill=(250, 248, 244),
        )
    else:
        pen.arc((fx - half, mouth - 14 - smile, fx + half, mouth + 4 + smile), 15, 165, fill=lips, width=10)
    if random.random() < 0.15:
        for side in (-1, 1):
            box = (fx + side * apart - 32, line - 24, fx + side * apart + 32, line + 26)
            pen.rounded_rectangle(box, radius=16, outline=(30, 30, 34), width=5)
        pen.line((fx - apart + 32, line - 4, fx + apart - 32, line - 4), fill=(30, 30, 34), width=5)

    roll = random.normal(0, 5)
    move = (random.normal(0, 4), random.normal(0, 4))
    layer = layer.rotate(roll, Image.Resampling.BILINEAR, center=(x, height), translate=move)
    picture.paste(layer, mask=layer.getchannel("A"))
    return _finish(picture, random)


# Rooms


def _write_rooms(path: Path, split: str, seed: int, numbers: Iterable[int]) -> None:
    """LSUN's container: a zip of an LMDB environment with hex digests as keys and WebP images as values."""
    # A key that depends on the number only keeps the order of the pictures whatever library encodes them.
    rooms = {hashlib.sha1(b"%d %d" % (seed, i)).hexdigest().encode(): _webp(room(seed, i)) for i in numbers}
    size = 2 * sum(map(len, rooms.values())) + 2**24
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{split}_lmdb.") as folder:
        if shutil.disk_usage(folder).free < size:
            # LMDB itself would only say that some input or output went wrong.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        environment = lmdb.open(folder, map_size=size - size % 2**20, lock=False)
        with environment, environment.begin(write=True) as transaction:
            for key in sorted(rooms):
                transaction.put(key, rooms[key])
        name = f"bedroom_{split}_lmdb"
        # The lock file would hold process numbers; readers make their own.
        members = (
            (f"{name}/data.mdb", (Path(folder) / "data.mdb").read_bytes()),
            (f"{name}/lock.mdb", bytes(8192)),
        )
        _write_zip(path, members)


def room(seed: int, i: int) -> Image.Image:
    """The i-th drawn bedroom of a seed, an RGB image 256 pixels high and 256 to 384 wide."""
    random = np.random.default_rng((seed, i))
    height = ROOM_HEIGHT * DRAWING_SCALE
    width = int(random.integers(ROOM_HEIGHT, 385)) * DRAWING_SCALE
    wall = _vary(_pastel(random), 8, random)
    wood = _vary(_pick(random, ((150, 106, 66), (110, 74, 46), (186, 150, 108), (120, 116, 112))), 14, random)
    blanket, pillow = _any_colour(random), _scaled(_pastel(random), 1.1)
    light = random.uniform(0.75, 1.1)
    picture = Image.new("RGB", (width, height), wall)
    pen = ImageDraw.Draw(picture)

    # The back wall is a rectangle; lines from its corners to the picture's make the room.
    left, right = random.uniform(0.1, 0.28) * width, random.uniform(0.72, 0.9) * width
    top, floor = random.uniform(0.08, 0.2) * height, random.uniform(0.54, 0.64) * height
    pen.rectangle((0, floor, width, height), fill=wood)
    for board in np.linspace(-0.5, 1.5, 15):
        at = left + board * (right - left)
        pen.line((at, floor, width / 2 + (at - width / 2) * 3, height * 1.4), fill=_scaled(wood, 0.86), width=3)
    pen.polygon((0, 0, width, 0, right, top, left, top), fill=_scaled(wall, 1.15))
    pen.polygon((0, 0, left, top, left, floor, 0, height), fill=_scaled(wall, 0.78))
    pen.polygon((width, 0, right, top, right, floor, width, height), fill=_scaled(wall, 0.88))
    pen.line((left, floor, right, floor), fill=_scaled(wall, 0.6), width=6)

    # A window on one half of the back wall, with curtains; a picture hangs on the other half.
    window_left = random.random() < 0.5
    third = (right - left) / 3
    wx = left + third * (0.6 if window_left else 2.4)
    wy, half, tall = (
        top + (floor - top) * 0.4,
        third * random.uniform(0.36, 0.5),
        (floor - top) * random.uniform(0.24, 0.32),
    )
    sky = _pick(random, ((170, 206, 240), (236, 240, 246), (252, 214, 160), (44, 54, 92)))
    curtain = _any_colour(random)
    pen.rectangle((wx - half, wy - tall, wx + half, wy + tall), fill=sky, outline=(244, 242, 238), width=8)
    pen.line((wx, wy - tall, wx, wy + tall), fill=(244, 242, 238), width=6)
    pen.line((wx - half, wy, wx + half, wy), fill=(244, 242, 238), width=6)
    for side in (-1, 1):
        cx = wx + side * half
        pen.rectangle((cx - half * 0.24, wy - tall - 12, cx + half * 0.24, wy + tall + 24), fill=curtain)
        pen.line((cx, wy - tall - 12, cx, wy + tall + 24), fill=_scaled(curtain, 0.8), width=5)
    if random.random() < 0.7:
        px, size = left + third * (2.3 if window_left else 0.7), third * random.uniform(0.18, 0.3)
        box = (px - size, wy - size * 0.8, px + size, wy + size * 0.8)
        pen.rectangle(box, fill=_any_colour(random), outline=_scaled(wood, 0.6), width=7)

    # The bed stands against the back wall and comes towards us.
    bx = left + (right - left) * random.uniform(0.36, 0.64)
    back, front = width * random.uniform(0.15, 0.2), width * random.uniform(0.26, 0.34)
    slant = (bx - width / 2) * random.uniform(0.2, 0.7)
    head, foot, end = floor - height * 0.06, height * random.uniform(0.8, 0.88), height * 0.09
    board = floor - height * random.uniform(0.16, 0.26)
    pen.rounded_rectangle((bx - back - 8, board, bx + back + 8, floor + 20), radius=14, fill=_scaled(wood, 0.7))
    near = bx + slant
    pen.polygon(
        (
            near - front - 24,
            foot + end + 14,
            near + front + 24,
            foot + end + 14,
            bx + back,
            floor + 10,
            bx - back,
            floor + 10,
        ),
        fill=_scaled(wood, 0.5),
    )
    pen.polygon((bx - back, head, bx + back, head, near + front, foot, near - front, foot), fill=blanket)
    pen.polygon(
        (near - front, foot, near + front, foot, near + front, foot + end, near - front, foot + end),
        fill=_scaled(blanket, 0.72),
    )
    if slant > 0:
        pen.polygon(
            (bx - back, head, near - front, foot, near - front, foot + end, bx - back, floor + 6),
            fill=_scaled(blanket, 0.6),
        )
    else:
        pen.polygon(
            (bx + back, head, near + front, foot, near + front, foot + end, bx + back, floor + 6),
            fill=_scaled(blanket, 0.6),
        )

    def across(depth: float) -> tuple[float, float, float, float]:
        """The bed's left and right edge, height and width at a depth from 0 (head) to 1 (foot)."""
        middle, reach = bx + slant * depth, back + (front - back) * depth
        return middle - reach, middle + reach, head + (foot - head) * depth, 2 * reach

    sheet = [across(depth) for depth in (0.0, 0.36, 0.46)]
    pen.polygon([(s[side], s[2]) for side, order in ((0, sheet[:2]), (1, sheet[1::-1])) for s in order], fill=pillow)
    a, b = sheet[1], sheet[2]
    pen.polygon((a[0], a[2], a[1], a[2], b[1], b[2], b[0], b[2]), fill=_scaled(blanket, 1.2))
    for side in (0.27, 0.73):
        edge, _, yy, span = across(0.12)
        pen.rounded_rectangle(
            (edge + span * (side - 0.2), yy - 20, edge + span * (side + 0.2), yy + 26),
            radius=16,
            fill=_scaled(pillow, 1.15),
            outline=_scaled(pillow, 0.8),
            width=3,
        )

    # A bedside table and its lamp.
    if random.random() < 0.85:
        side = -1 if random.random() < 0.5 else 1
        tx, table = bx + side * (back + width * 0.075), floor - height * 0.05
        pen.rectangle((tx - width * 0.05, table, tx + width * 0.05, floor + height * 0.06), fill=_scaled(wood, 0.8))
        pen.rectangle((tx - 4, table - height * 0.07, tx + 4, table), fill=(70, 64, 60))
        shade = _pick(random, ((255, 236, 180), (250, 250, 240), (236, 160, 110)))
        lamp = table - height * 0.07
        pen.polygon((tx - 20, lamp - 34, tx + 20, lamp - 34, tx + 32, lamp, tx - 32, lamp), fill=shade)
    return _finish(picture.point(lambda value: min(255, int(value * light))), random)


# Colours and files


def _pick(random: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    return choices[int(random.integers(len(choices)))]


def _any_colour(random: np.random.Generator) -> Colour:
    hue, saturation, value = random.random(), random.uniform(0.15, 0.75), random.uniform(0.25, 0.95)
    return _from_hsv(hue, saturation, value)


def _pastel(random: np.random.Generator) -> Colour:
    return _from_hsv(random.random(), random.uniform(0.04, 0.28), random.uniform(0.7, 0.92))


def _from_hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, max(0, round(value * factor))) for value in colour)
    return red, green, blue


def _vary(colour: Colour, sd: float, random: np.random.Generator) -> Colour:
    red, green, blue = np.clip(np.rint(colour + random.normal(0, sd, 3)), 0, 255).astype(int).tolist()
    return red, green, blue


def _gradient(width: int, height: int, top: Colour, bottom: Colour) -> Image.Image:
    column = np.linspace(top, bottom, height)[:, None].astype(np.uint8)
    return Image.fromarray(column).resize((width, height), Image.Resampling.NEAREST)


def _finish(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """The drawing at its final size, with the slight blur and grain of a photograph."""
    picture = picture.reduce(DRAWING_SCALE).filter(ImageFilter.BoxBlur(0.6))
    pixels = np.asarray(picture, dtype=np.int16)
    grain = random.integers(-6, 7, pixels.shape[:2], dtype=np.int16)[..., None]
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, method=1)
    return buffer.getvalue()


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """A zip of members stored as they are, with one fixed date: the same members give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            information = zipfile.ZipInfo(name)
            information.external_attr = 0o644 << 16
            archive.writestr(information, content)
