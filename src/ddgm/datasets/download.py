"""Raw files: fetched from a mirror or their public addresses, verified, and put in place whole, or drawn.

Every fault is a UserError of one sentence that names the file, what is wrong with it and what to do.
"""

import errno
import gzip
import logging
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pooch
import requests

from ddgm.datasets import drawn, registry
from ddgm.datasets.registry import RawFile
from ddgm.errors import UserError
from ddgm.whole_file import whole_file

ATTEMPTS = 3  # at each address
PAUSE_S = 2.0  # before the second attempt, doubled before each further one
TIMEOUT_S = 30.0  # of silence
CHUNK_BYTES = 2**16
MIRROR = "set DDGM_MIRROR, or `mirror:` in params.yaml, to a directory or URL that holds"

log = logging.getLogger(__name__)


class _PassingError(UserError):
    """A fault that another attempt may not meet."""


def fetch(dataset: str, row: dict, file: str, target: Path, mirror: str | None) -> None:
    """Put one raw file of a data set (a row of params.yaml) at `target`, verified, whole or not at all.

    row["draw"] given: the file is drawn. Otherwise it comes from `mirror` if that is given (a directory, a
    file:// or an http(s):// URL; the file lies at {mirror}/{mirror_folder}/{file}), else from its public
    addresses, one after the other. Raises UserError for every fault of a name, source, network or disk.
    """
    entry = registry.find(dataset, row, file)
    with _faults_of_disk(target):
        if row["draw"] is not None:
            drawn.draw(row, file, target)
        elif entry.kind != "mnist":
            raise UserError(
                f"fetching the official {file} of {dataset} is not built yet: until it is, place the file at "
                f"{target} yourself"
            )
        elif mirror and not mirror.startswith(("http://", "https://")):
            _copy(entry, _directory(mirror) / entry.mirror_folder / file, target)
        elif mirror:
            _download(entry, (f"{mirror.rstrip('/')}/{entry.mirror_folder}/{file}",), target)
        else:
            _download(entry, entry.urls, target)


def _directory(mirror: str) -> Path:
    """The directory that a mirror without http names: a plain path (~ expanded) or a file:// URL."""
    if "://" not in mirror:
        return Path(mirror).expanduser()
    url = urlsplit(mirror)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise UserError(
            f"the mirror {mirror!r} cannot be used: write a directory, or a URL that begins with file:///, "
            "http:// or https://"
        )
    return Path(unquote(url.path))


def _copy(entry: RawFile, source: Path, target: Path) -> None:
    try:
        original = source.open("rb")
    except OSError as error:
        raise UserError(f"the mirror has no readable file {source} ({error.strerror}): {_where(entry)}") from error
    with original, whole_file(target) as temporary:
        with temporary.open("wb") as copy:
            shutil.copyfileobj(original, copy, 2**20)
        _verify(entry, temporary, str(source))


def _download(entry: RawFile, urls: tuple[str, ...], target: Path) -> None:
    for url in urls:
        try:
            return _attempt(entry, url, target)
        except UserError as fault:
            if url == urls[-1]:
                raise
            log.warning("%s; the next address is tried", fault)


def _attempt(entry: RawFile, url: str, target: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            with whole_file(target) as temporary, _faults_of_network(entry, url):
                _retrieve(entry, url, temporary)
            return
        except _PassingError:
            if attempt + 1 == ATTEMPTS:
                raise
            log.warning("attempt %d of %d to fetch %s failed", attempt + 1, ATTEMPTS, url)
            time.sleep(PAUSE_S * 2**attempt)


def _retrieve(entry: RawFile, url: str, path: Path) -> None:
    """Download through pooch, which checks the md5 too; our check comes first, for it knows the causes."""
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=CHUNK_BYTES,
        timeout=TIMEOUT_S,
        # Else some servers send a .gz as "encoded" and requests would unpack it.
        headers={"Accept-Encoding": "identity"},
    )

    def download_and_verify(url: str, output_file: str, pooch: object) -> None:
        download(url, output_file, pooch)
        _verify(entry, Path(output_file), url)

    pooch.get_logger().setLevel("WARNING")
    known_hash = f"md5:{entry.md5}" if entry.md5 else None
    pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=download_and_verify)


def _verify(entry: RawFile, path: Path, source: str) -> None:
    """Raise UserError unless the file at `path`, which came from `source`, is the one registered."""
    md5 = pooch.file_hash(str(path), alg="md5")
    if md5 == entry.md5:
        return
    with path.open("rb") as file:
        beginning = file.read(1024).lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        raise UserError(
            f"{source} is an HTML page, not {entry.file}: open it in a browser to see what it wants, or {_where(entry)}"
        )
    if _is_cut_short(path):
        raise _PassingError(
            f"{source} is cut short, {path.stat().st_size} bytes of {entry.file}: try again later, or {_where(entry)}"
        )
    if entry.md5 is not None:
        raise _PassingError(
            f"{source} is not {entry.file} as published, its md5 is {md5} instead of {entry.md5}: {_where(entry)}"
        )


def _is_cut_short(path: Path) -> bool:
    """Whether a file is empty or an archive (by its content) without its end."""
    with path.open("rb") as file:
        beginning = file.read(4)
    if beginning[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                while file.read(2**20):
                    pass
        except EOFError:
            return True
        except (OSError, zlib.error):
            return False
    # A zip's table of contents is at its end.
    return not beginning or (beginning == b"PK\x03\x04" and not zipfile.is_zipfile(path))


def _where(entry: RawFile) -> str:
    return f"{MIRROR} a good {entry.mirror_folder}/{entry.file}"


@contextmanager
def _faults_of_network(entry: RawFile, url: str) -> Iterator[None]:
    where = _where(entry)
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code
        if status == 404:
            raise UserError(f"{url} does not exist (HTTP 404): {where}") from error
        if status in (403, 429):
            raise UserError(
                f"{url} refuses the download (HTTP {status}, its quota may be used up): try again tomorrow, or {where}"
            ) from error
        raise _PassingError(f"{url} fails with HTTP {status}: try again later, or {where}") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _PassingError(
            f"{url} is cut short, the connection was closed early: try again later, or {where}"
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _PassingError(
            f"no connection to {urlsplit(url).netloc} for {entry.file}: check the network, or {where}"
        ) from error
    except requests.RequestException as error:
        raise UserError(f"{url} cannot be downloaded ({error}): {where}") from error


@contextmanager
def _faults_of_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"the disk is full: {target} could not be written; free some space on it, then run this again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            sentence = (
                f"no permission to write {target} ({error.strerror}): "
                f"make {target.parent} writable, or run this where you may write"
            )
        else:
            sentence = f"{target} could not be written ({error}): check the disk and the folder {target.parent}"
        raise UserError(sentence) from error
