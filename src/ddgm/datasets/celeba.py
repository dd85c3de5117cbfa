"""CelebA, or faces in its format: the pictures are read from inside their zip, which is never unpacked."""

from pathlib import Path
from typing import Any

from ddgm.datasets import stream
from ddgm.datasets.containers import open_zip, zip_container
from ddgm.errors import UserError
from ddgm.progress import log

ARCHIVE = "img_align_celeba.zip"
FOLDER = "img_align_celeba/"
PARTITION = "list_eval_partition.txt"
SPLIT_OF_NUMBER = {"0": "train", "1": "val", "2": "test"}


def prepare(row: dict[str, Any], raw: Path, split: str, target: Path, workers: int) -> None:
    """Write the split `target` (prepared.py): pictures (N, 3, side, side), their keys the files' names.

    `raw` is the folder of the zip and of the official partition; the split's faces come in the order of their names,
    the first row["max_images"] of them if that is given. A zip with fewer faces than the partition lists is accepted
    with a warning. Raises UserError if a file is missing or damaged or the two do not fit together.
    """
    partition = read_partition(raw / PARTITION)
    path = raw / ARCHIVE
    with open_zip(path) as archive:
        present = [name for name in archive.namelist() if name.startswith(FOLDER) and not name.endswith("/")]
        if not present:
            raise UserError(f"{path} has no members {FOLDER}000001.jpg ...: fetch {ARCHIVE} again")
        unknown = next((name for name in present if name.removeprefix(FOLDER) not in partition), None)
        if unknown:
            raise UserError(f"{path} holds {unknown}, which {raw / PARTITION} does not list: fetch both again")
        if len(present) < len(partition):
            log.warning(f"{path} holds {len(present)} of the {len(partition)} faces listed")
        members = sorted(name for name in present if partition[name.removeprefix(FOLDER)] == split)
        if not members:
            raise UserError(f"{path} holds no face of the split {split!r}: fetch {ARCHIVE} again")
        stream.prepare(row, zip_container(path, archive, members[: row["max_images"]], FOLDER), target, workers)


def read_partition(path: Path) -> dict[str, str]:
    """File name -> split, from lines like `000001.jpg 0`; raises UserError if the file is otherwise."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it first, with 'snakemake {path}'") from error
    partition = {}
    for number, line in enumerate(lines, start=1):
        name, _, code = line.rstrip().partition(" ")
        split = SPLIT_OF_NUMBER.get(code)
        if not split:
            raise UserError(
                f"line {number} of {path} is {line[:40]!r}, where something like `000001.jpg 0` is expected "
                "(0 train, 1 val, 2 test): delete it and fetch it again"
            )
        partition[name] = split
    return partition
