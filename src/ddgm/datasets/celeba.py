"""CelebA, or faces in its format: the pictures are read from inside their zip, which is never unpacked."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddgm.datasets import images
from ddgm.errors import UserError

ARCHIVE = "img_align_celeba.zip"
FOLDER = "img_align_celeba/"
PARTITION = "list_eval_partition.txt"
SPLIT_OF_NUMBER = {"0": "train", "1": "val", "2": "test"}

log = logging.getLogger(__name__)


def prepare(row: dict, raw: Path, split: str, target: Path) -> None:
    """Write `target` ({split}.npy, uint8 (N, 3, side, side), 0 to 255) and its index: position, key (file).

    `raw` is the folder of the zip and of the official partition; the split's faces come in the order of
    their names, the first row["max_images"] of them if that is given. A zip with fewer faces than the
    partition lists is accepted with a warning. Raises UserError if a file is missing or damaged or the two
    do not fit together.
    """
    partition = read_partition(raw / PARTITION)
    archive_path = raw / ARCHIVE
    with images.open_zip(archive_path) as archive:
        members = (name for name in archive.namelist() if name.startswith(FOLDER) and not name.endswith("/"))
        present = sorted(name.removeprefix(FOLDER) for name in members)
        if not present:
            raise UserError(f"{archive_path} has no members {FOLDER}000001.jpg ...: fetch {ARCHIVE} again")
        unknown = next((name for name in present if name not in partition), None)
        if unknown:
            raise UserError(f"{archive_path} holds {unknown}, which {raw / PARTITION} does not list: fetch both again")
        if len(present) < len(partition):
            log.warning("%s holds %d of the %d faces listed", archive_path, len(present), len(partition))
        names = [name for name in present if partition[name] == split]
        if not names:
            raise UserError(f"{archive_path} holds no face of the split {split!r}: fetch {ARCHIVE} again")
        names = names[: row["max_images"]]

        def faces() -> Iterator[tuple[np.ndarray, tuple[str]]]:
            for name in names:
                where = f"{FOLDER}{name} in {archive_path}"
                picture = images.decode(images.read_member(archive, FOLDER + name, where), where)
                yield images.square(picture, row["side"], row["crop"], where), (name,)

        images.write(target, (len(names), 3, row["side"], row["side"]), ("key",), faces())


def read_partition(path: Path) -> dict[str, str]:
    """File name -> split, from lines like `000001.jpg 0`; raises UserError if the file is otherwise."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it first") from error
    partition = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in SPLIT_OF_NUMBER:
            raise UserError(
                f"line {number} of {path} is {line[:40]!r}, where something like `000001.jpg 0` is expected "
                "(0 train, 1 val, 2 test): delete it and fetch it again"
            )
        partition[words[0]] = SPLIT_OF_NUMBER[words[1]]
    return partition
