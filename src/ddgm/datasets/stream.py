"""A container of encoded pictures becomes a prepared split: on all cores, in constant memory, resumable.

The container's entries are read in order by one process, developed (images.py) by as many as there are workers, and
appended in order to a hidden array beside the target. A journal beside that says which entries are done, so that an
interrupted preparation goes on after them; the same entries give the same bytes whatever the number of workers.
"""

import json
import math
import os
import shutil
import signal
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from PIL import __version__ as pillow_version
from simplejpeg import __version__ as simplejpeg_version

from ddgm.datasets import images
from ddgm.datasets.images import UnusableError, develop
from ddgm.datasets.prepared import Split, digest
from ddgm.datasets.registry import checksums
from ddgm.datasets.writing import FAULT_COLUMNS, index_columns, write_sheet, write_table
from ddgm.errors import UserError
from ddgm.lock import lock
from ddgm.progress import Progress, log

CHUNK_ENTRIES = 128
CHUNK_BYTES = 2**24
LARGEST_ENTRY = 2**26  # bytes; what is larger is no photograph, and is not read
MOST_LEFT_OUT = 0.001  # of all entries


class ResumableError(UserError):
    """A fault after which the same command goes on where it was: what has been done so far is kept."""


@dataclass(frozen=True)
class Entry:
    """One entry of a container: its name there and its bytes, or why it has none (`fault`, `detail`)."""

    key: str
    data: bytes
    fault: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Container:
    """Encoded pictures in a file: how many, and, from the `start`-th on, one after the other."""

    file: Path
    count: int
    entries: Callable[[int], Iterator[Entry]]


@dataclass(frozen=True)
class Chunk:
    """A few neighbouring entries, developed: what the journal keeps of them.

    `faults` has [which entry, fault, detail]; `left_out` says which entries gave no picture. The digests tell equal
    entries, the checksum is of the pictures' bytes.
    """

    keys: list[str]
    digests: list[str]
    faults: list[tuple[int, str, str]]
    left_out: list[int]
    checksum: int

    @property
    def pictures(self) -> int:
        return len(self.keys) - len(self.left_out)


def prepare(row: dict[str, Any], container: Container, target: Path, workers: int) -> None:
    """Write the split `target` from a container, with row's side, crop and draft.

    Pictures in grey, CMYK or another mode than RGB and repeated ones are kept and listed among the split's faults;
    undecodable, tiny and huge ones are listed and left out. Raises UserError if more than MOST_LEFT_OUT of all
    entries are left out, if the disk is too small, or if another process prepares this split.
    """
    split = Split(target)
    if not container.count:
        raise UserError(f"{container.file} holds no pictures for the split {split.name!r}: fetch it again")
    with Partial(row, container, split) as partial:
        with (
            Progress(f"{split.dataset} {split.name}", container.count, partial.done, "image") as bar,
            closing(developed(row, container, partial, workers)) as done,
        ):
            for chunk in done:
                partial.append(chunk)
                bar.show(partial.done, f"{partial.left_out} left out")
                refuse_too_many(partial, container)
        partial.finish()


def refuse_too_many(partial: "Partial", container: Container) -> None:
    if partial.left_out > MOST_LEFT_OUT * container.count:
        kinds = ", ".join(f"{count} {fault}" for fault, count in sorted(partial.unusable.items()))
        raise UserError(
            f"{partial.left_out} of the {container.count} pictures in {container.file} cannot be used ({kinds}; the "
            f"first is {partial.first_unusable}), and at most {MOST_LEFT_OUT:.1%} may be left out: fetch the file "
            "again, or correct side and crop"
        )


def developed(row: dict[str, Any], container: Container, partial: "Partial", workers: int) -> Iterator[Chunk]:
    """The container's chunks from the first that is not done, in order; their pictures are in the partial array.

    Each chunk is written where it lies if no entry was left out before it: so the processes that develop hand back
    a few kilobytes, which a pipe takes at once, also from one that is killed.
    """
    work = (partial.array_path, row["side"], row["crop"], row["draft"])
    parts = placed(chunks(container.entries(partial.done)), partial.place, partial.done)
    workers = min(workers, -(-(container.count - partial.done) // CHUNK_ENTRIES))
    if workers <= 1:
        yield from (develop_chunk(part, place, *work) for part, place in parts)
        return
    waiting: deque[Future] = deque()
    with pool(workers - 1) as executor:
        for part, place in parts:
            if sum(not future.done() for future in waiting) < 2 * (workers - 1):
                waiting.append(executor.submit(develop_chunk, part, place, *work))
            else:
                # The others have enough to do, or have not started yet: this process is a worker too.
                waiting.append(Future())
                waiting[-1].set_result(develop_chunk(part, place, *work))
            while waiting and (waiting[0].done() or len(waiting) > 4 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def pool(workers: int) -> Iterator[Executor]:
    """Processes that develop beside this one; ResumableError if one of them dies."""
    # Forked from a clean server process: this one may have threads, which do not survive a fork.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    executor = ProcessPoolExecutor(workers, context, initializer=start_worker)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise ResumableError(
            f"one of the {workers + 1} processes that decode pictures was killed, perhaps for want of memory: write a "
            "smaller --workers, and run the same command again, which goes on where it was"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Neighbouring entries together, at most CHUNK_ENTRIES and, unless one alone is larger, CHUNK_BYTES."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if part and (len(part) == CHUNK_ENTRIES or size + len(entry.data) > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry.data)
    if part:
        yield part


def placed(parts: Iterable[list[Entry]], place: Callable[[int], int], number: int) -> Iterator[tuple[list[Entry], int]]:
    """Each part with the place in the array of its first entry, the first of all being entry `number`."""
    for part in parts:
        yield part, place(number)
        number += len(part)


def develop_chunk(part: list[Entry], place: int, array: Path, side: int, crop: int | None, draft: bool) -> Chunk:
    """Write a chunk's usable pictures into the file `array`, one after the other from byte `place` on."""
    pictures, faults, left_out = [], [], []
    for number, entry in enumerate(part):
        try:
            if entry.fault:
                raise UnusableError(entry.fault, entry.detail)
            picture, colour = develop(entry.data, side, crop, draft)
        except UnusableError as error:
            faults.append((number, error.fault, error.detail))
            left_out.append(number)
            continue
        pictures.append(picture.tobytes())
        if colour:
            faults.append((number, colour, "converted to RGB"))
    content = b"".join(pictures)
    with array.open("r+b") as file:
        file.seek(place)
        file.write(content)
    # Of an entry that was not read, nothing is known that another could repeat.
    digests = ["" if entry.fault else blake2b(entry.data, digest_size=8).hexdigest() for entry in part]
    return Chunk([entry.key for entry in part], digests, faults, left_out, zlib.crc32(content))


@contextmanager
def alone(folder: Path, target: Path) -> Iterator[None]:
    """A folder, made if it must be, that this process alone works in; ResumableError if another prepares `target`."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        hold(handle, target)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()  # where nothing is in it; another's is left to it
    finally:
        os.close(handle)


def hold(handle: int, target: Path) -> None:
    """Lock an open file or folder near `target`; ResumableError if another process prepares that."""
    if not lock(handle, target.parent):
        raise ResumableError(f"another process prepares {target} already: wait for it, or stop it first")


def images_version() -> str:
    """A digest of the module that develops: pictures of two versions of it must not share an array."""
    return blake2b(Path(images.__file__).read_bytes(), digest_size=8).hexdigest()


class Partial:
    """A split in the making: the array so far (.{split}.part.npy) and its journal (.{split}.part.jsonl).

    The journal's first line says what is being made: another container, other parameters or another decoder start
    anew. Each further line is a Chunk, whose pictures are in the array. What was appended is kept when the
    preparation is interrupted, and gone when it has ended or failed for good.
    """

    def __init__(self, row: dict[str, Any], container: Container, split: Split) -> None:
        self.row, self.container, self.split = row, container, split
        self.array_path = split.array.with_name(f".{split.name}.part.npy")
        self.journal_path = self.array_path.with_suffix(".jsonl")
        self.shape = (3, row["side"], row["side"])
        self.done = self.left_out = 0
        self.unusable: Counter[str] = Counter()
        self.first_unusable = ""

    @property
    def pictures(self) -> int:
        return self.done - self.left_out

    @property
    def picture_bytes(self) -> int:
        return math.prod(self.shape)

    def place(self, picture: int) -> int:
        """Where a picture's bytes begin."""
        return len(self.header(0)) + picture * self.picture_bytes

    def header(self, count: int) -> bytes:
        """What an .npy file of `count` pictures begins with; its length does not depend on `count`."""
        head = BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        )
        return head.getvalue()

    def made_of(self) -> dict[str, Any]:
        """What the pictures depend on."""
        file = self.container.file.stat()
        return {
            "file": [self.container.file.name, file.st_size, file.st_mtime_ns],
            "entries": self.container.count,
            "parameters": {key: self.row[key] for key in ("side", "crop", "draft", "max_images")},
            "checksums": checksums(self.row, self.split.name),
            "versions": [pillow_version, simplejpeg_version, images_version()],
        }

    def __enter__(self) -> "Partial":
        self.array_path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.journal = stack.enter_context(self.journal_path.open("a+", encoding="utf-8"))
            hold(self.journal.fileno(), self.split.array)
            self.array = stack.enter_context(open(self.array_path, "r+b" if self.array_path.exists() else "w+b"))
            self.resume()
            self.require_space()
            self.handles = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and issubclass(kind, UserError) and not issubclass(kind, ResumableError):
            self.forget()
        self.handles.close()

    def resume(self) -> None:
        """Take up what an interrupted preparation of the same thing has left; anything else is cut off."""
        good = 0
        self.journal.seek(0)
        if self.read_line() == self.made_of():
            good = self.journal.tell()
            self.array.seek(self.place(0))
            for chunk in self.lines():
                if zlib.crc32(self.array.read(chunk.pictures * self.picture_bytes)) != chunk.checksum:
                    break  # a power cut may have kept the line and lost the pictures
                self.count(chunk)
                good = self.journal.tell()
        self.journal.seek(good)
        self.journal.truncate()
        if not good:
            self.write_line(self.made_of())
        self.array.truncate(self.place(self.pictures))
        if self.done:
            log.info(f"{self.split.array}: going on after {self.done} of {self.container.count} pictures")

    def read_line(self) -> dict[str, Any] | None:
        """The journal's next line, None at the end or where a kill cut a line off."""
        line = self.journal.readline()
        try:
            return json.loads(line) if line.endswith("\n") else None
        except ValueError:
            return None

    def lines(self) -> Iterator[Chunk]:
        """The chunks from here to the journal's end, or to what no journal holds (a power cut may leave zeros)."""
        while line := self.read_line():
            if not isinstance(line, dict) or line.keys() != Chunk.__dataclass_fields__.keys():
                return
            yield Chunk(**line)

    def write_line(self, line: dict[str, Any]) -> None:
        self.journal.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.journal.flush()

    def require_space(self) -> None:
        need = (self.container.count - self.done) * self.picture_bytes
        free = shutil.disk_usage(self.array_path.parent).free
        if need > free:
            raise ResumableError(
                f"{self.split.array} needs {need / 1e9:.1f} GB more and {self.array_path.parent} has {free / 1e9:.1f} "
                "GB free: free some space on it, or write a smaller max_images"
            )

    def append(self, chunk: Chunk) -> None:
        """Add a chunk whose pictures are in the array: close up to those before it, then write its line."""
        if self.left_out:
            self.array.seek(self.place(self.done))
            content = self.array.read(chunk.pictures * self.picture_bytes)
            self.array.seek(self.place(self.pictures))
            self.array.write(content)
            self.array.flush()
        self.write_line(asdict(chunk))
        self.count(chunk)

    def count(self, chunk: Chunk) -> None:
        left_out = set(chunk.left_out)
        for number, fault, detail in chunk.faults:
            if number in left_out:
                self.unusable[fault] += 1
                self.first_unusable = self.first_unusable or f"{chunk.keys[number]}, {fault}: {detail}"
                log.warning(f"{chunk.keys[number]} in {self.container.file} is left out, {fault}: {detail}")
        self.done += len(chunk.keys)
        self.left_out += len(left_out)

    def chunks(self) -> Iterator[Chunk]:
        """All that the journal holds."""
        self.journal.seek(0)
        self.journal.readline()
        yield from self.lines()

    def finish(self) -> None:
        """Put the split in its place: the array, index, faults and sheet."""
        self.array.seek(0)
        self.array.write(self.header(self.pictures))
        self.array.truncate(self.place(self.pictures))
        self.array.flush()
        # Now, and not between the renames, where an interruption costs everything: it takes minutes for gigabytes.
        os.fsync(self.array.fileno())
        of_array = digest(self.array_path)
        faults: Counter[str] = Counter()
        repeats = self.repeats()
        with self.split.whole() as (array, index, faults_path, sheet):
            write_table(index, index_columns(), self.index_lines())
            write_table(faults_path, FAULT_COLUMNS, self.fault_lines(repeats, faults))
            shape = (self.pictures, *self.shape)
            written = of_array, digest(index), digest(faults_path)
            write_sheet(sheet, self.row, self.split, written, shape, np.uint8, self.done, dict(faults))
            self.array_path.replace(array)
        self.forget()

    def forget(self) -> None:
        """Remove the partial array and its journal."""
        self.array_path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def entries(self) -> Iterator[tuple[int, int | str, str, list[tuple[str, str]]]]:
        """Of every entry: its number, its picture's position ("" if left out), its key and its faults."""
        number = position = 0
        for chunk in self.chunks():
            left_out = set(chunk.left_out)
            faults: dict[int, list[tuple[str, str]]] = {}
            for which, fault, detail in chunk.faults:
                faults.setdefault(which, []).append((fault, detail))
            for which, key in enumerate(chunk.keys):
                kept = which not in left_out
                yield number, position if kept else "", key, faults.get(which, [])
                number += 1
                position += kept

    def index_lines(self) -> Iterator[tuple]:
        for _, position, key, _ in self.entries():
            if position != "":
                yield position, key, self.split.name

    def fault_lines(self, repeats: dict[int, int], counts: Counter[str]) -> Iterator[tuple]:
        """The entries with a fault; `counts` counts them."""
        firsts = dict.fromkeys(repeats.values(), "")
        for number, position, key, faults in self.entries():
            if number in firsts:
                firsts[number] = key
            if number in repeats:
                faults = [*faults, ("duplicate", f"the same bytes as {firsts[repeats[number]]}")]
            for fault, detail in faults:
                counts[fault] += 1
                yield position, key, fault, detail

    def repeats(self) -> dict[int, int]:
        """Entry number -> number of the first entry with the same bytes, for those that are not the first.

        8 bytes an entry: 24 MB for three million, among which two different ones collide once in four million times.
        """
        digests, known = np.zeros(self.done, np.uint64), np.zeros(self.done, bool)
        filled = 0
        for chunk in self.chunks():
            part = slice(filled, filled + len(chunk.keys))
            digests[part] = [int(digest or "0", 16) for digest in chunk.digests]
            known[part] = [bool(digest) for digest in chunk.digests]
            filled += len(chunk.keys)
        numbers = np.flatnonzero(known)
        order = numbers[np.argsort(digests[numbers], kind="stable")]
        same = np.flatnonzero(digests[order][1:] == digests[order][:-1]) + 1
        first: dict[int, int] = {}
        for place in same:
            before = int(order[place - 1])
            first[int(order[place])] = first.get(before, before)
        return first
