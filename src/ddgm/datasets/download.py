"""Raw files: taken from a folder, a mirror or their public addresses, verified, and put in place whole, or drawn.

gdown transfers, whatever the address; every fault is a UserError of one sentence that says what to do.
"""

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gdown
import requests
from filelock import FileLock, Timeout
from gdown.exceptions import DownloadError, FileURLRetrievalError
from tqdm import tqdm

from ddgm.datasets import drawn, registry
from ddgm.datasets.verify import Order, SourceError, WrongFileError, refuse_page, verify
from ddgm.errors import UserError
from ddgm.lock import lockable
from ddgm.progress import LINE_SECONDS
from ddgm.whole_file import whole_file

RECONNECTIONS = 4  # within an attempt, with gdown's own pauses, when the network fails
ATTEMPTS = 4  # at each address, when the server fails
PAUSE_S = 2.0  # before the second attempt, doubled before each further one
TIMEOUT_S = 30.0  # of silence

log = logging.getLogger(__name__)


class DiskError(UserError):
    """A fault of this machine's disk, whatever the source."""


class _PassingError(SourceError):
    """A fault that another attempt may not meet."""


def fetch(dataset: str, row: dict, file: str, target: Path, mirror: str | None) -> None:
    """Put one raw file of a data set (a row of params.yaml) at `target`, verified, whole or not at all.

    row["draw"] given: the file is drawn. Otherwise a file already at `target` is verified and left as it is, and a
    missing one comes from row["folder"] if that is given, else from `mirror` (a directory, a file:// or an
    http(s):// URL; the file lies at {mirror}/{mirror_folder}/{file}), else from its public addresses, one after the
    other. What a broken transfer has brought is kept beside `target` and continued by the next call; of several
    calls at once, one fetches and the others wait. Raises UserError for every fault of a name, source, network or
    disk.
    """
    order = Order(dataset, row, registry.find(dataset, row, file), target)
    with _faults_of_disk(target):
        if row["draw"] is not None:
            drawn.draw(row, file, target)
            return
        log.info("%s of %s: licence: %s; to be cited: %s", file, dataset, order.entry.licence, order.entry.citation)
        if _is_in_place(order):
            shutil.rmtree(order.partial, ignore_errors=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(target):
                if not _is_in_place(order):
                    _bring(order, mirror)
                shutil.rmtree(order.partial, ignore_errors=True)


def _is_in_place(order: Order) -> bool:
    """Whether the file is there and verified; raises UserError if another one is, which may be a person's own."""
    if not order.target.exists():
        return False
    verify(order, order.target, str(order.target), "remove it and run the same command again to fetch it")
    log.info("%s is in place and verified", order.target)
    return True


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time fetch `target`; the lock of a process that died holds nobody up."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        with lockable(target.parent):
            lock.acquire(timeout=0)
    except Timeout:
        log.info("%s is being fetched by another process: waiting for it", target)
        lock.acquire()
    try:
        yield
    finally:
        # Still held: whoever waits notices that the file is gone, and makes another.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _bring(order: Order, mirror: str | None) -> None:
    entry = order.entry
    if order.row["folder"]:
        setting = f"datasets.{order.dataset}.folder"
        _copy(order, _at_home(order.row["folder"], setting) / entry.file, f"the folder that {setting} names")
    elif mirror and not mirror.startswith(("http://", "https://")):
        _copy(order, _directory(mirror) / entry.mirror_folder / entry.file, "the mirror")
    elif mirror:
        _download(order, (f"{mirror.rstrip('/')}/{entry.mirror_folder}/{entry.file}",))
    elif entry.version == "subset":
        raise UserError(
            f"datasets.{order.dataset}.subset declares its own {entry.file}, which no public address has: "
            f"{order.by_hand()}"
        )
    else:
        _download(order, entry.urls)


def _at_home(path: str, setting: str) -> Path:
    """A path with its ~ expanded, or UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{setting} is {path}, and nobody here has such a home: write the path in full") from None


def _directory(mirror: str) -> Path:
    """The directory that a mirror without http names: a plain path (~ expanded) or a file:// URL."""
    if "://" not in mirror:
        return _at_home(mirror, "the mirror")
    url = urlsplit(mirror)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise UserError(
            f"the mirror {mirror!r} cannot be used: write a directory, or a URL that begins with file:///, "
            "http:// or https://"
        )
    return Path(unquote(url.path))


def _copy(order: Order, source: Path, place: str) -> None:
    try:
        original = source.open("rb")
    except OSError as error:
        raise UserError(f"{place} has no readable file {source} ({error.strerror}): {order.by_hand()}") from error
    with original:
        _check_room(order, source.stat().st_size)
        with whole_file(order.target) as temporary:
            with temporary.open("wb") as copy:
                shutil.copyfileobj(original, copy, 2**20)
            verify(order, temporary, str(source), order.by_hand())


def _download(order: Order, urls: tuple[str, ...]) -> None:
    for url in urls:
        try:
            return _attempt(order, url)
        except SourceError as fault:
            if url == urls[-1]:
                raise
            log.warning("%s; the next address is tried", _what_happened(fault))


def _what_happened(fault: SourceError) -> str:
    """A fault's sentence without the advice."""
    return str(fault).partition(": ")[0]


def _attempt(order: Order, url: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _transfer(order, url)
        except _PassingError as fault:
            if attempt + 1 == ATTEMPTS:
                raise
            log.warning("attempt %d of %d: %s", attempt + 1, ATTEMPTS, _what_happened(fault))
            time.sleep(PAUSE_S * 2**attempt)


def _transfer(order: Order, url: str) -> None:
    """Go on with the transfer, or begin it, and put the file in place; raises SourceError."""
    if order.entry.bytes:
        _check_room(order, order.entry.bytes - order.kept())
    continued = order.kept() > 0
    order.partial.mkdir(exist_ok=True)
    whole = order.partial / order.entry.file
    try:
        _retrieve(order, url, whole)
        verify(order, whole, url, order.by_hand())
        # Flushing a large file takes minutes, and whole_file removes what it is interrupted at.
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        with whole_file(order.target) as temporary:
            whole.replace(temporary)
    except WrongFileError as fault:
        shutil.rmtree(order.partial)
        if continued:
            # Perhaps it is the bytes of an earlier run that are wrong.
            raise _PassingError(str(fault)) from fault
        raise
    finally:
        if not order.kept():
            shutil.rmtree(order.partial, ignore_errors=True)


def _retrieve(order: Order, url: str, path: Path) -> None:
    watch = _Watch(order, url)
    try:
        gdown.download(
            url,
            str(path),
            quiet=not sys.stderr.isatty(),
            use_cookies=False,
            resume=True,
            retries=RECONNECTIONS,
            timeout=TIMEOUT_S,
            progress=watch,
        )
    except (DownloadError, requests.RequestException) as error:
        if _is_refused_range(error) and not watch.begun:
            # The server sends the whole file or nothing.
            shutil.rmtree(order.partial)
        raise _fault(order, url, watch.total, error) from error


class _Watch:
    """Follows a transfer: its first bytes show a page or a disk too small; without a terminal, the log says how far."""

    def __init__(self, order: Order, url: str) -> None:
        self.order, self.url = order, url
        self.begun, self.total = False, order.entry.bytes
        self.started = self.spoke = time.monotonic()
        self.initial = order.kept()

    def __call__(self, done: int, total: int | None) -> None:
        if not self.begun:
            self.begun, self.total = True, total or self.total
            for file in self.order.partial.iterdir():
                refuse_page(self.order, file, self.url, self.order.by_hand())
            _check_room(self.order, total - done if total else 0)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self.spoke > LINE_SECONDS:
            self.spoke = now
            meter = tqdm.format_meter(
                done, total, now - self.started, ncols=0, unit="B", unit_scale=True, initial=self.initial
            )
            log.info("%s: %s", self.order.entry.file, meter.strip())


def _check_room(order: Order, needed: int) -> None:
    """Raise DiskError unless the disk of the target has room for so many bytes."""
    folder = order.target.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskError(
            f"the disk is too full: {order.entry.file} needs {needed:,} more bytes, and {folder} has {free:,} free: "
            "free some space and run the same command again"
        )


def _is_refused_range(error: Exception) -> bool:
    return isinstance(error, DownloadError) and "byte range" in str(error)


def _fault(order: Order, url: str, total: int | None, error: Exception) -> SourceError:
    """The sentence for what gdown, or requests below it, raised."""
    file, by_hand = order.entry.file, order.by_hand()
    status = error.response.status_code if isinstance(error, requests.HTTPError) else 0
    cause = error.__cause__ or error
    come = order.kept()
    of_how_many = f" of {total:,}" if total else ""
    kept = f" ({come:,}{of_how_many} bytes are kept, and the same command goes on from there)" if come else ""
    if isinstance(error, FileURLRetrievalError) or status in (401, 403, 429):
        answer = f"HTTP {status}" if status else "Google Drive"
        return SourceError(
            f"{url} refuses the download ({answer}; its quota may be used up): try again tomorrow, or {by_hand}"
        )
    if status in (404, 410):
        return SourceError(f"{url} does not exist (HTTP {status}): {by_hand}")
    if status:
        kind = _PassingError if status >= 500 else SourceError
        return kind(f"{url} fails with HTTP {status}: try again later, or {by_hand}")
    if _is_refused_range(error):
        return _PassingError(
            f"{url} does not send the rest of {file} where it broke off{kept}: try again later, or {by_hand}"
        )
    if isinstance(cause, requests.ConnectionError | requests.Timeout):
        trusted = "trusted " if isinstance(cause, requests.exceptions.SSLError) else ""
        host = urlsplit(url).netloc
        return SourceError(f"no {trusted}connection to {host} for {file}{kept}: check the network, or {by_hand}")
    if isinstance(error, DownloadError) or isinstance(cause, requests.exceptions.ChunkedEncodingError):
        return _PassingError(f"{url} is cut short, the server closed early{kept}: try again, or {by_hand}")
    return SourceError(f"{url} cannot be downloaded ({error}): {by_hand}")


@contextmanager
def _faults_of_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"the disk is full: {target} could not be written; free some space on it, then run this again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            sentence = (
                f"no permission to read or write {target} ({error.strerror}): "
                f"change the mode of it, or of {target.parent}, or run this where you may write"
            )
        elif error.errno == errno.EISDIR:
            sentence = f"{target} is a folder, and has to be a file: move it away, then run this again"
        else:
            sentence = f"{target} could not be written ({error}): check the disk and the folder {target.parent}"
        raise DiskError(sentence) from error
