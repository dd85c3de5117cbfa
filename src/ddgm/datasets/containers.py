"""The containers that pictures come in, read in place: a zip, and a zip of an LMDB environment."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lmdb

from ddgm.datasets.stream import LARGEST_ENTRY, Container, Entry, ResumableError
from ddgm.errors import UserError
from ddgm.whole_file import whole_file

READ_ENTRIES = 256  # from an LMDB environment before it is opened anew


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file, open for reading; UserError if it is missing or no whole zip."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it first, with 'snakemake {path}'") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is no whole zip file ({error}): delete it and fetch it again") from error


def unreadable(path: Path, error: RuntimeError) -> UserError:
    """What is said of a zip with a password, or packed by a method that Python does not know: no entry can be read."""
    return UserError(f"{path} cannot be unpacked here ({error}): pack it again as a plain zip, without a password")


def zip_container(path: Path, archive: zipfile.ZipFile, members: Sequence[str], folder: str = "") -> Container:
    """Members of an open zip, in the order given; their keys are their names without the `folder`."""

    def entries(start: int) -> Iterator[Entry]:
        for member in islice(members, start, None):
            key = member.removeprefix(folder)
            size = archive.getinfo(member).file_size
            if size > LARGEST_ENTRY:
                yield Entry(key, b"", "huge", f"{size} bytes")
                continue
            try:
                yield Entry(key, archive.read(member))
            except RuntimeError as error:
                raise unreadable(path, error) from error
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                yield Entry(key, b"", "undecodable", f"damaged in the zip, {error}")

    return Container(path, len(members), entries)


def lmdb_container(path: Path, data: Path, most: int | None) -> Container:
    """The first `most` (None: all) values of the LMDB environment in the file `data`, in the order of their keys.

    `path` is the zip that it comes from. The environment is opened anew now and then: its pages, mapped into memory,
    would otherwise count as ours until the system wants them back. Raises UserError if it is damaged.
    """
    with environment(path, data) as opened:
        count = min(opened.stat()["entries"], most or opened.stat()["entries"])
        if (opened.info()["last_pgno"] + 1) * opened.stat()["psize"] > data.stat().st_size:
            # Reading past the end of a memory map would kill the process (SIGBUS).
            raise UserError(f"data.mdb in {path} is cut short: delete the zip and fetch it again")

    def entries(start: int) -> Iterator[Entry]:
        first: bytes | None = None
        for begin in range(start, count, READ_ENTRIES):
            size = min(READ_ENTRIES, count - begin)
            with environment(path, data) as opened, opened.begin() as transaction, transaction.cursor() as cursor:
                if first is None:
                    first = next(islice(cursor.iternext(values=False), begin, None))
                cursor.set_range(first)
                found = list(islice(cursor, size + 1))
            first = found[-1][0]  # of the next part, where there is one
            for key, value in found[:size]:
                name = key.decode("ascii", "backslashreplace")
                large = len(value) > LARGEST_ENTRY
                yield Entry(name, b"", "huge", f"{len(value)} bytes") if large else Entry(name, value)

    return Container(path, count, entries)


@contextmanager
def environment(path: Path, data: Path) -> Iterator[lmdb.Environment]:
    """An LMDB environment, open for reading; UserError if it is damaged."""
    try:
        with lmdb.open(str(data), subdir=False, readonly=True, lock=False) as opened:
            yield opened
    except lmdb.Error as error:
        raise UserError(
            f"data.mdb in {path} is no readable LMDB environment ({error}): delete the zip and fetch it again"
        ) from error


def unpack(path: Path, member: str, target: Path) -> None:
    """One member of a zip as a file, whole, in a folder that is ours alone: what is there already is kept.

    Raises UserError if the zip is damaged, has no such member, or the disk is too small for it.
    """
    with open_zip(path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{path} has no member {member}: delete it and fetch it again")
        size = archive.getinfo(member).file_size
        if target.exists() and target.stat().st_size == size and target.stat().st_mtime > path.stat().st_mtime:
            return
        for left in target.parent.glob(f".{target.stem}.*"):
            left.unlink()  # of an unpacking that was killed
        free = shutil.disk_usage(target.parent).free
        if size > free:
            raise ResumableError(
                f"{member} of {path} has to be unpacked, which takes {size / 1e9:.1f} GB, and {target.parent} has "
                f"{free / 1e9:.1f} GB free: free some space on it and run the same command again"
            )
        try:
            with whole_file(target) as temporary, archive.open(member) as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**24)
        except RuntimeError as error:
            raise unreadable(path, error) from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{member} in {path} cannot be read ({error}): delete the zip and fetch it again"
            ) from error
