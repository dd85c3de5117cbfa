"""A container of encoded pictures becomes a prepared split: on all cores, in constant memory, resumable.

The container's entries are read in order by one process, developed (images.py) by as many as there are workers, and
appended in order to a hidden array beside the target. A journal beside that says which entries are done, so that an
interrupted preparation goes on after them; the same entries give the same bytes whatever the number of workers.
"""

import fcntl
import json
import os
import shutil
import signal
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from PIL import __version__ as pillow_version
from simplejpeg import __version__ as simplejpeg_version

from ddgm.datasets.images import UnusableError, develop
from ddgm.datasets.prepared import FAULT_COLUMNS, Split, index_columns, write_sheet, write_table
from ddgm.errors import UserError
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
            closing(developed(row, container, partial.done, workers)) as done,
        ):
            for pictures, chunk in done:
                partial.append(pictures, chunk)
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


def developed(row: dict[str, Any], container: Container, start: int, workers: int) -> Iterator[tuple[bytes, Chunk]]:
    """The container's chunks from entry `start` on, in order: their pictures' bytes, and what the journal keeps."""
    work = (row["side"], row["crop"], row["draft"])
    parts = chunks(container.entries(start))
    workers = min(workers, -(-(container.count - start) // CHUNK_ENTRIES))
    if workers <= 1:
        yield from (develop_chunk(part, *work) for part in parts)
        return
    waiting: deque[Future] = deque()
    with pool(workers - 1) as executor:
        for part in parts:
            if sum(not future.done() for future in waiting) < 2 * (workers - 1):
                waiting.append(executor.submit(develop_chunk, part, *work))
            else:
                # The others have enough to do, or have not started yet: this process is a worker too.
                waiting.append(Future())
                waiting[-1].set_result(develop_chunk(part, *work))
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


def develop_chunk(part: list[Entry], side: int, crop: int | None, draft: bool) -> tuple[bytes, Chunk]:
    """A chunk's usable pictures, one after the other, and its line of the journal."""
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
    digests = [blake2b(entry.data, digest_size=8).hexdigest() for entry in part]
    return content, Chunk([entry.key for entry in part], digests, faults, left_out, zlib.crc32(content))


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

    def offset(self) -> int:
        """Where the next picture's bytes begin."""
        return len(self.header(0)) + self.pictures * int(np.prod(self.shape))

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
            "versions": [pillow_version, simplejpeg_version],
        }

    def __enter__(self) -> "Partial":
        self.array_path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.journal = stack.enter_context(self.journal_path.open("a+", encoding="utf-8"))
            try:
                # The kernel lets go of it when the process ends, however it ends.
                fcntl.flock(self.journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResumableError(
                    f"another process prepares {self.split.array} already: wait for it, or stop it first"
                ) from None
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
            self.array.seek(self.offset())
            while line := self.read_line():
                chunk = Chunk(**line)
                if zlib.crc32(self.array.read(chunk.pictures * int(np.prod(self.shape)))) != chunk.checksum:
                    break  # a power cut may have kept the line and lost the pictures
                self.count(chunk)
                good = self.journal.tell()
        self.journal.seek(good)
        self.journal.truncate()
        if not good:
            self.write_line(self.made_of())
        self.array.seek(self.offset())
        self.array.truncate()
        if self.done:
            log.info(f"{self.split.array}: going on after {self.done} of {self.container.count} pictures")

    def read_line(self) -> dict[str, Any] | None:
        """The journal's next line, None at the end or where a kill cut a line off."""
        line = self.journal.readline()
        return json.loads(line) if line.endswith("\n") else None

    def write_line(self, line: dict[str, Any]) -> None:
        self.journal.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.journal.flush()

    def require_space(self) -> None:
        need = (self.container.count - self.done) * int(np.prod(self.shape))
        free = shutil.disk_usage(self.array_path.parent).free
        if need > free:
            raise ResumableError(
                f"{self.split.array} needs {need / 1e9:.1f} GB more and {self.array_path.parent} has {free / 1e9:.1f} "
                "GB free: free some space on it, or write a smaller max_images"
            )

    def append(self, pictures: bytes, chunk: Chunk) -> None:
        """Add a chunk: its pictures first, its line after them."""
        self.array.write(pictures)
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
        while line := self.read_line():
            yield Chunk(**line)

    def finish(self) -> None:
        """Put the split in its place: the array, index, faults and sheet."""
        self.array.seek(0)
        self.array.write(self.header(self.pictures))
        self.array.flush()
        faults: Counter[str] = Counter()
        repeats = self.repeats()
        with self.split.whole() as (array, index, faults_path, sheet):
            write_table(index, index_columns(), self.index_lines())
            write_table(faults_path, FAULT_COLUMNS, self.fault_lines(repeats, faults))
            shape = (self.pictures, *self.shape)
            write_sheet(sheet, self.row, self.split, shape, np.uint8, self.done, dict(faults))
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
        digests = np.empty(self.done, np.uint64)
        filled = 0
        for chunk in self.chunks():
            digests[filled : filled + len(chunk.keys)] = [int(digest, 16) for digest in chunk.digests]
            filled += len(chunk.keys)
        order = np.argsort(digests, kind="stable")
        same = np.flatnonzero(digests[order][1:] == digests[order][:-1]) + 1
        first: dict[int, int] = {}
        for place in same:
            before = int(order[place - 1])
            first[int(order[place])] = first.get(before, before)
        return first
