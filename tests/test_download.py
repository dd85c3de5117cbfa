"""Raw files arrive whole and verified or not at all, and every fault is one sentence that says what to do.

The servers here are real ones on loopback, Google Drive's part included; faults are planted in their answers.
"""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from conftest import wait_for
from ddgm.datasets import download, registry
from ddgm.errors import UserError
from ddgm.parameters import check

ROW = {"kind": "mnist", "draw": None, "folder": None, "subset": None}
FILE = "train-labels-idx1-ubyte.gz"
PARTIAL = f".{FILE}.part"
CONTENT = gzip.compress(random.Random(0).randbytes(10_000), mtime=0)
CHUNK = 2**19  # gdown writes the file by pieces of so many bytes
LARGE = gzip.compress(random.Random(1).randbytes(3_000_000), mtime=0)
PUBLISHED = registry.FILES
MD5 = hashlib.md5(CONTENT).hexdigest()
HTML = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
DRIVE = "https://drive.google.com/file/d/0B7EVK8r0v71pZjFTYXZWM3FlRnM/view?resourcekey=0-dYn9"
CONFIRM = (  # on one line, as Google's is
    b'<!DOCTYPE html><html><body><form id="download-form" action="https://drive.usercontent.google.com/download">'
    b'<input type="hidden" name="id" value="x"><input type="hidden" name="confirm" value="t"></form></body></html>'
)
QUOTA = b"""<!DOCTYPE html><html><body>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


@dataclass(frozen=True)
class Answer:
    """What a server does with one request."""

    body: bytes = CONTENT
    status: int = 200
    ranges: bool = True  # whether it heeds Range
    shift: int = 0  # by which its Content-Range is wrong
    announced: bool = True  # whether it sends Content-Length
    cut: int | None = None  # after so many bytes it closes the connection
    stalls: bool = False  # there it waits for the test before it goes on
    headers: tuple = ()


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `answers` (the last for ever).

    `asked` has the path, the first byte wanted (None: no Range) and the number of bytes sent, for each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [Answer()]
        self.asked = []
        self.resume = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def paths(self):
        return [path for path, _, _ in self.asked]

    def handle_error(self, request, client_address):
        pass  # a client that went away


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else None
        record = [self.path, start, 0]
        server.asked.append(record)
        body, status = answer.body, answer.status
        if wanted and answer.ranges and status == 200:
            body, status = body[start:], 206
        self.send_response(status)
        if status == 206:
            first = start + answer.shift
            self.send_header("Content-Range", f"bytes {first}-{len(answer.body) - 1}/{len(answer.body)}")
        if answer.announced:
            self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        stop = len(body) if answer.cut is None else answer.cut
        pieces = [body[:stop], body[stop:]] if answer.stalls else [body[:stop]]
        for piece in pieces:
            for at in range(0, len(piece), 2**16):
                # Counted first: whoever has it may ask at once how much was sent.
                record[2] += len(piece[at : at + 2**16])
                self.wfile.write(piece[at : at + 2**16])
            if answer.stalls:
                server.resume.wait()
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    # A proxy of the machine's must not stand between the tests and their own server.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.resume.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def drive(server, monkeypatch):
    """The server, asked in the place of Google's: only the connection is led elsewhere."""
    send = requests.adapters.HTTPAdapter.send

    def led_here(adapter, request, **settings):
        address = urlsplit(request.url)
        assert address.netloc.endswith(".google.com")
        request = request.copy()
        request.url = f"{server.url}{address.path}?{address.query}"
        return send(adapter, request, **settings)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", led_here)
    return server


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A registry of one small file, and no pauses between attempts."""
    use(monkeypatch, urls=())
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setattr(random, "uniform", lambda least, most: 0.0)  # gdown's pauses


def use(monkeypatch, urls, file=FILE, content=CONTENT):
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    entry = registry.RawFile("mnist", file, ("train",), "1", urls, "mnist", len(content), checksum, "none", "nobody")
    monkeypatch.setattr(registry, "FILES", (entry,))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "raw" / "mnist" / FILE


@pytest.fixture
def shelf(tmp_path):
    """A mirror directory that holds the file."""
    folder = tmp_path / "mirror" / "mnist"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(CONTENT)
    return folder.parent


def sentence_of(target, mirror, file=FILE, row=ROW, left=()):
    """What a failing fetch says; it must be one line, leave no target, and nothing else but `left`."""
    with pytest.raises(UserError) as caught:
        download.fetch("digits", row, file, target, mirror)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sorted(os.listdir(target.parent) if target.parent.exists() else ()) == sorted(left)
    return sentence


def leave_partial(target, content):
    """What a fetch that was broken off leaves."""
    folder = target.parent / f".{target.name}.part"
    folder.mkdir(parents=True)
    (folder / f"{target.name}abcdefgh.part").write_bytes(content)


# --- where a file comes from ---


@pytest.mark.parametrize("form", ["absolute", "relative", "tilde", "file_url", "file_url_escaped"])
def test_a_mirror_directory_may_be_written_in_every_usual_way(form, shelf, target, monkeypatch):
    if form == "file_url_escaped":
        shelf = shelf.rename(shelf.with_name("my mirror"))
    monkeypatch.chdir(shelf.parent)
    monkeypatch.setenv("HOME", str(shelf.parent))
    written = {
        "absolute": str(shelf),
        "relative": "mirror",
        "tilde": "~/mirror",
        "file_url": shelf.as_uri(),
        "file_url_escaped": shelf.as_uri(),
    }[form]
    download.fetch("digits", ROW, FILE, target, written)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [FILE]


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_http_mirror_is_asked_for_folder_and_file(slash, server, target):
    download.fetch("digits", ROW, FILE, target, f"{server.url}/data{slash}")
    assert server.paths == [f"/data/mnist/{FILE}"]
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [FILE]


@pytest.mark.parametrize("place", ["folder", "mirror"])
def test_a_home_of_nobody_is_one_sentence(place, target):
    row = ROW | {"folder": "~nobody_of_that_name/x"} if place == "folder" else ROW
    with pytest.raises(UserError, match=r"is ~nobody_of_that_name/x, and nobody here has such a home: write the path"):
        download.fetch("digits", row, FILE, target, "~nobody_of_that_name/x")


def test_a_folder_in_the_place_of_the_file_is_one_sentence(shelf, target):
    target.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^{target} is a folder, and has to be a file: move it away"):
        download.fetch("digits", ROW, FILE, target, str(shelf))


@pytest.mark.parametrize("tilde", [False, True])
def test_the_users_own_folder_goes_before_every_mirror(tilde, server, shelf, target, monkeypatch):
    monkeypatch.setenv("HOME", str(shelf))
    folder = "~/mnist" if tilde else str(shelf / "mnist")
    download.fetch("digits", {**ROW, "folder": folder}, FILE, target, server.url)
    assert target.read_bytes() == CONTENT and server.asked == []


def test_a_file_missing_in_the_users_folder_is_not_looked_for_elsewhere(server, shelf, target):
    (shelf / "mnist" / FILE).unlink()
    sentence = sentence_of(target, server.url, row={**ROW, "folder": str(shelf / "mnist")})
    assert "datasets.digits.folder" in sentence and str(shelf / "mnist" / FILE) in sentence
    assert server.asked == []


@pytest.mark.parametrize("mirror", [None, ""])
def test_without_a_mirror_the_public_addresses_are_tried_in_order(mirror, server, target, monkeypatch, caplog):
    use(monkeypatch, urls=(f"{server.url}/first", f"{server.url}/second"))
    server.answers = [Answer(b"", 404), Answer()]
    download.fetch("digits", ROW, FILE, target, mirror)
    assert server.paths == ["/first", "/second"]
    assert target.read_bytes() == CONTENT
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{server.url}/first does not exist (HTTP 404); the next address is tried"]


def test_the_sentence_is_the_last_address_s_when_all_fail(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/first", f"{server.url}/second"))
    server.answers = [Answer(b"", 404)]
    assert f"{server.url}/second does not exist" in sentence_of(target, None)


def test_a_mirror_that_fails_is_not_replaced_by_the_public_addresses(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/public",))
    server.answers = [Answer(b"", 404)]
    sentence_of(target, server.url)
    assert server.paths == [f"/mnist/{FILE}"]


def test_a_fetched_file_is_readable_for_whom_the_umask_allows(server, target):
    download.fetch("digits", ROW, FILE, target, server.url)
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_nothing_is_written_in_the_users_home(server, target, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    download.fetch("digits", ROW, FILE, target, server.url)
    assert os.listdir(home) == []


# --- what is there already ---


def test_a_verified_file_is_not_fetched_again(server, target):
    for _ in range(2):
        download.fetch("digits", ROW, FILE, target, server.url)
    assert len(server.asked) == 1 and target.read_bytes() == CONTENT


def test_a_wrong_file_put_there_by_hand_is_refused_and_left_alone(server, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"a person's own")
    sentence = sentence_of(target, server.url, left=[FILE])
    assert f"{target} is not {FILE}" in sentence and "remove it and run the same command again" in sentence
    assert target.read_bytes() == b"a person's own" and server.asked == []


def test_what_a_broken_fetch_left_is_removed_when_the_file_comes_from_elsewhere(shelf, target):
    leave_partial(target, CONTENT[:100])
    download.fetch("digits", ROW, FILE, target, str(shelf))
    assert os.listdir(target.parent) == [FILE]


# --- broken transfers ---


@pytest.fixture
def large(server, monkeypatch):
    """The server has the large file: what comes is kept by gdown's pieces of CHUNK bytes."""
    use(monkeypatch, urls=(), content=LARGE)
    return server


def test_a_cut_connection_is_continued_where_it_stopped(large, target):
    large.answers = [Answer(LARGE, cut=2 * CHUNK + 1), Answer(LARGE)]
    download.fetch("digits", ROW, FILE, target, large.url)
    assert target.read_bytes() == LARGE
    assert [start for _, start, _ in large.asked] == [None, 2 * CHUNK]
    assert large.asked[-1][2] == len(LARGE) - 2 * CHUNK


def test_a_server_that_cuts_again_and_again_is_followed_to_the_end(large, target):
    large.answers = [Answer(LARGE, cut=CHUNK + 1)]
    download.fetch("digits", ROW, FILE, target, large.url)
    assert target.read_bytes() == LARGE and len(large.asked) > 4


def test_a_connection_that_is_always_cut_keeps_what_came_and_says_how_much(large, target):
    large.answers = [Answer(LARGE, cut=CHUNK), Answer(LARGE, cut=0)]
    sentence = sentence_of(target, large.url, left=[PARTIAL])
    assert "cut short" in sentence and f"{CHUNK:,} of {len(LARGE):,} bytes are kept" in sentence
    assert "the same command goes on from there" in sentence
    large.answers, large.asked[:] = [Answer(LARGE)], []
    download.fetch("digits", ROW, FILE, target, large.url)
    assert large.asked[-1][1:] == [CHUNK, len(LARGE) - CHUNK]
    assert target.read_bytes() == LARGE and os.listdir(target.parent) == [FILE]


@pytest.mark.parametrize(
    "deaf",
    [Answer(ranges=False), Answer(shift=7), Answer(shift=-7)],
    ids=["ignores Range", "sends a later part", "sends an earlier part"],
)
def test_a_server_that_cannot_continue_is_asked_for_the_whole_file(deaf, server, target):
    leave_partial(target, CONTENT[:4_000])
    server.answers = [deaf]
    download.fetch("digits", ROW, FILE, target, server.url)
    assert target.read_bytes() == CONTENT and os.listdir(target.parent) == [FILE]
    assert [start for _, start, _ in server.asked] == [None, 4_000, None]


def test_a_server_that_ignores_range_when_a_connection_was_cut_is_asked_for_the_whole_file(large, target):
    large.answers = [Answer(LARGE, cut=CHUNK), Answer(LARGE, ranges=False)]
    download.fetch("digits", ROW, FILE, target, large.url)
    assert target.read_bytes() == LARGE


@pytest.mark.parametrize("status", [429, 503])
def test_one_error_at_the_continuation_does_not_cost_what_came(status, large, target):
    large.answers = [Answer(LARGE, cut=CHUNK), Answer(b"", status), Answer(LARGE)]
    download.fetch("digits", ROW, FILE, target, large.url)
    assert target.read_bytes() == LARGE and large.asked[-1][1] == CHUNK


def test_a_continued_file_with_wrong_bytes_is_fetched_once_more_from_its_beginning(server, target):
    leave_partial(target, bytes(4_000))
    download.fetch("digits", ROW, FILE, target, server.url)
    assert target.read_bytes() == CONTENT and os.listdir(target.parent) == [FILE]


@pytest.mark.parametrize("attempts", [1, 3])
def test_passing_server_errors_are_followed_by_success(attempts, server, target):
    server.answers = [Answer(b"", 500)] * attempts + [Answer()]
    download.fetch("digits", ROW, FILE, target, server.url)
    assert target.read_bytes() == CONTENT and len(server.asked) == attempts + 1


def test_a_server_that_keeps_failing_is_given_up_with_longer_pauses(server, target, monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 1.0)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers = [Answer(b"", 503)]
    assert "HTTP 503" in sentence_of(target, server.url)
    assert len(server.asked) == download.ATTEMPTS and pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_a_length_that_is_not_announced_is_no_fault(content, server, target, monkeypatch):
    use(monkeypatch, urls=(), content=content)
    server.answers = [Answer(content, announced=False)]
    download.fetch("digits", ROW, FILE, target, server.url)
    assert target.read_bytes() == content


def test_a_server_that_says_nothing_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sentence = sentence_of(target, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no connection" in sentence


def test_a_server_that_falls_silent_leaves_what_came(server, target, monkeypatch):
    use(monkeypatch, urls=(), content=LARGE)
    monkeypatch.setattr(download, "TIMEOUT_S", 2)
    monkeypatch.setattr(download, "RECONNECTIONS", 0)
    server.answers = [Answer(LARGE, cut=1_000_000, stalls=True)]
    sentence = sentence_of(target, server.url, left=[PARTIAL])
    assert "no connection" in sentence and f"of {len(LARGE):,} bytes are kept" in sentence


def test_no_connection_says_how_to_set_a_mirror(server, target):
    url = server.url
    server.server_close()
    sentence = sentence_of(target, url)
    assert "no connection" in sentence and url.removeprefix("http://") in sentence
    assert "DDGM_MIRROR" in sentence and "datasets.digits.folder in params.yaml" in sentence


# --- several processes ---

FETCH = """
import logging, sys
from pathlib import Path
from ddgm.datasets import download, registry
logging.basicConfig(level="INFO", format="%(message)s")
_, url, target, bytes, checksum = sys.argv
download.TIMEOUT_S = 600  # however busy the machine: the server is silent until it is told to go on
registry.FILES = (registry.RawFile("mnist", "x.gz", ("train",), "1", (), "mnist", int(bytes), checksum, "", ""),)
row = {"kind": "mnist", "draw": None, "folder": None, "subset": None}
download.fetch("digits", row, "x.gz", Path(target), url)
"""


def start_fetch(server, target, content, said=subprocess.PIPE):
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    command = [sys.executable, "-c", FETCH, server.url, target, str(len(content)), checksum]
    return subprocess.Popen(command, stderr=said, text=True)


def test_a_killed_fetch_is_continued_by_the_next_process(server, tmp_path):
    target, stop = tmp_path / "x.gz", 2_000_000
    partial = tmp_path / ".x.gz.part"
    server.answers = [Answer(LARGE, cut=stop, stalls=True), Answer(LARGE)]
    first = start_fetch(server, target, LARGE)
    wait_for(lambda: sum(file.stat().st_size for file in partial.glob("*")) > 1_000_000, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = sum(file.stat().st_size for file in partial.glob("*"))
    assert 1_000_000 < kept <= stop and sorted(os.listdir(tmp_path)) == [".x.gz.lock", ".x.gz.part"]
    second = start_fetch(server, target, LARGE)
    assert second.wait(300) == 0, second.stderr.read()
    second.communicate()
    assert server.asked[-1][1:] == [kept, len(LARGE) - kept]
    assert target.read_bytes() == LARGE and os.listdir(tmp_path) == ["x.gz"]


def test_of_two_processes_one_downloads_and_the_other_waits(server, tmp_path):
    target = tmp_path / "x.gz"
    server.answers = [Answer(LARGE, cut=1_000_000, stalls=True)]
    first = start_fetch(server, target, LARGE)
    wait_for(lambda: server.asked, first)
    log = tmp_path / "second.log"
    with log.open("w") as said:
        second = start_fetch(server, target, LARGE, said)
    wait_for(lambda: "is being fetched by another process" in log.read_text(), second)
    server.resume.set()
    assert first.wait(300) == 0 and second.wait(300) == 0
    assert "is in place and verified" in log.read_text()
    first.communicate()
    assert len(server.asked) == 1
    assert target.read_bytes() == LARGE and sorted(os.listdir(tmp_path)) == ["second.log", "x.gz"]


# --- answers that are not the file ---


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "does not exist"), (410, "does not exist"), (401, "quota"), (403, "quota"), (429, "quota"), (418, "fails")],
)
def test_a_refusal_is_not_repeated_and_says_what_to_do(status, words, server, target):
    server.answers = [Answer(HTML, status)]
    sentence = sentence_of(target, server.url)
    assert f"HTTP {status}" in sentence and words in sentence
    assert f"{server.url}/mnist/{FILE}" in sentence
    assert "name the place that has it (its folder as datasets.digits.folder in params.yaml" in sentence
    assert "DDGM_MIRROR" in sentence and "datasets.digits.folder in params.yaml" in sentence
    assert len(server.asked) == 1


def test_the_manual_steps_begin_with_the_public_address(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/public",))
    server.answers = [Answer(b"", 403)]
    assert f"get it with a browser from {server.url}/public, name the place that has it" in sentence_of(target, None)


def test_an_html_page_is_recognised_before_its_checksum(server, target):
    server.answers = [Answer(HTML)]
    sentence = sentence_of(target, server.url)
    assert "HTML page" in sentence and FILE in sentence
    assert MD5 not in sentence


def test_an_endless_html_page_is_broken_off_at_its_beginning(server, target):
    server.answers = [Answer(HTML + bytes(30_000_000))]
    assert "HTML page" in sentence_of(target, server.url)
    assert len(server.asked) == 1 and server.asked[0][2] < 20_000_000


@pytest.mark.parametrize("kept", [0, 100, len(CONTENT) - 4])
def test_a_truncated_archive_is_called_cut_short(kept, server, target):
    server.answers = [Answer(CONTENT[:kept])]
    sentence = sentence_of(target, server.url)
    assert "cut short" in sentence and f"{kept:,} of {len(CONTENT):,} bytes" in sentence
    assert MD5 not in sentence


def test_a_truncated_zip_is_called_cut_short(shelf, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", bytes(1000))
    use(monkeypatch, urls=(), file="a.zip", content=buffer.getvalue())
    (shelf / "mnist" / "a.zip").write_bytes(buffer.getvalue()[:-10])
    assert "cut short" in sentence_of(tmp_path / "raw" / "a.zip", str(shelf), file="a.zip")


@pytest.mark.parametrize("kind", ["other bytes", "another gzip", "damaged gzip"])
def test_wrong_bytes_are_named_with_both_checksums_and_fetched_once(kind, server, target):
    other = {
        "other bytes": b"something else entirely",
        "another gzip": gzip.compress(b"something else", mtime=0),
        "damaged gzip": CONTENT[:60] + bytes(20) + CONTENT[80:],
    }[kind]
    server.answers = [Answer(other)]
    sentence = sentence_of(target, server.url)
    assert MD5 in sentence and hashlib.md5(other).hexdigest() in sentence
    assert f"{server.url}/mnist/{FILE}" in sentence
    assert len(server.asked) == 1


def test_a_checksum_may_be_a_sha256(server, target, monkeypatch):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    (entry,) = registry.FILES
    monkeypatch.setattr(registry, "FILES", (replace(entry, checksum=f"sha256:{sha256}"),))
    server.answers = [Answer(b"wrong"), Answer()]
    assert f"its sha256 is {hashlib.sha256(b'wrong').hexdigest()}" in sentence_of(target, server.url)
    download.fetch("digits", ROW, FILE, target, server.url)


def test_wrong_bytes_in_a_mirror_directory_are_refused_too(shelf, target):
    (shelf / "mnist" / FILE).write_bytes(b"wrong")
    sentence = sentence_of(target, str(shelf))
    assert MD5 in sentence and hashlib.md5(b"wrong").hexdigest() in sentence
    assert str(shelf / "mnist" / FILE) in sentence


def test_a_file_missing_in_the_mirror_is_named_with_its_full_path(shelf, target):
    (shelf / "mnist" / FILE).unlink()
    sentence = sentence_of(target, str(shelf))
    assert str(shelf / "mnist" / FILE) in sentence
    assert f"DDGM_MIRROR with mnist/{FILE} in it" in sentence


def test_an_unknown_scheme_is_refused_with_the_allowed_ones(target):
    sentence = sentence_of(target, "ftp://example.org/data")
    assert "ftp://example.org/data" in sentence and "file:///" in sentence and "https://" in sentence


# --- subsets ---


def declared(content):
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    return {**ROW, "subset": {"says": "subset: one of two", "checksums": {FILE: checksum}}}


def test_an_undeclared_subset_is_refused_with_the_lines_that_declare_it(shelf, target):
    small = gzip.compress(b"a smaller set", mtime=0)
    (shelf / "mnist" / FILE).write_bytes(small)
    sentence = sentence_of(target, str(shelf))
    line = f'checksums: {{{FILE}: "md5:{hashlib.md5(small).hexdigest()}"}}'
    assert "if it is a subset on purpose, write in params.yaml, under datasets.digits, " in sentence
    assert f'subset: {{says: "subset: what it is", {line}}}' in sentence


def test_a_declared_subset_is_accepted_and_the_official_file_is_not(shelf, target):
    small = gzip.compress(b"a smaller set", mtime=0)
    sentence = sentence_of(target, str(shelf), row=declared(small))
    assert f"is not the {FILE} that datasets.digits.subset declares" in sentence and MD5 in sentence
    (shelf / "mnist" / FILE).write_bytes(small)
    download.fetch("digits", declared(small), FILE, target, str(shelf))
    assert target.read_bytes() == small


def test_a_declared_subset_is_not_asked_of_the_public_addresses(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/public",))
    sentence = sentence_of(target, None, row=declared(b"small"))
    assert "which no public address has: name the place that has it" in sentence and server.asked == []


def test_a_wrong_file_of_a_public_address_is_not_offered_as_a_subset(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/public",))
    server.answers = [Answer(b"wrong")]
    assert "subset" not in sentence_of(target, None)


# --- Google Drive ---


PAGE = (("Content-Type", "text/html; charset=utf-8"),)
ATTACHED = (
    ("Content-Type", "application/octet-stream"),
    ("Content-Disposition", 'attachment; filename="other.zip"'),
    ("Last-Modified", "Mon, 28 Sep 2015 00:00:00 GMT"),
)


def test_drives_confirmation_page_is_answered(drive, target, monkeypatch):
    use(monkeypatch, urls=(DRIVE,))
    drive.answers = [Answer(CONFIRM, headers=PAGE), Answer(headers=ATTACHED)]
    download.fetch("faces", ROW, FILE, target, None)
    assert target.read_bytes() == CONTENT and os.listdir(target.parent) == [FILE]
    assert drive.paths == ["/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM", "/download?id=x&confirm=t"]


def test_a_download_from_drive_is_continued_too(drive, target, monkeypatch):
    use(monkeypatch, urls=(DRIVE,))
    leave_partial(target, CONTENT[:4_000])
    drive.answers = [Answer(CONFIRM, headers=PAGE), Answer(headers=ATTACHED)]
    download.fetch("faces", ROW, FILE, target, None)
    assert target.read_bytes() == CONTENT and drive.asked[-1][1:] == [4_000, len(CONTENT) - 4_000]


def test_drives_quota_page_is_a_sentence_with_the_manual_steps(drive, target, monkeypatch):
    use(monkeypatch, urls=(DRIVE,))
    drive.answers = [Answer(QUOTA, headers=PAGE)]
    sentence = sentence_of(target, None)
    assert "refuses the download (Google Drive; its quota may be used up): try again tomorrow" in sentence
    assert f"get it with a browser from {DRIVE}, name the place that has it" in sentence
    assert len(drive.asked) == 1


# --- disks ---


@contextlib.contextmanager
def small_disk(folder, options="size=64k"):
    """A file system of 64 kB, where this machine lets root mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


only_root_mounts = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a disk")
SOURCES = pytest.mark.parametrize("source", ["directory", "server", "public"])


def place(source, content, shelf, server, monkeypatch):
    """Let one kind of source have the content; the mirror to name."""
    use(monkeypatch, urls=(f"{server.url}/public",), content=content)
    (shelf / "mnist" / FILE).write_bytes(content)
    server.answers = [Answer(content)]
    return {"directory": str(shelf), "server": server.url, "public": None}[source]


@only_root_mounts
@SOURCES
def test_a_disk_too_small_is_noticed_before_the_transfer(source, shelf, server, tmp_path, monkeypatch):
    wanted = place(source, LARGE, shelf, server, monkeypatch)
    with small_disk(tmp_path / "disk") as disk:
        sentence = sentence_of(disk / FILE, wanted)
    assert f"needs {len(LARGE):,} more bytes, and {disk} has 65,536 free" in sentence
    assert sum(sent for _, _, sent in server.asked) == 0


@only_root_mounts
def test_a_disk_too_small_for_what_the_server_announces_is_noticed_at_once(server, tmp_path):
    server.answers = [Answer(LARGE + bytes(10_000_000))]
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        sentence = sentence_of(disk / FILE, server.url, row=declared(LARGE), left=[PARTIAL])
    assert f"needs {len(LARGE) + 10_000_000 - CHUNK:,} more bytes" in sentence


def test_what_came_already_needs_no_room_again(server, target, monkeypatch):
    use(monkeypatch, urls=(), content=LARGE)
    server.answers = [Answer(LARGE)]
    leave_partial(target, LARGE[:-1000])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 1000))
    download.fetch("digits", ROW, FILE, target, server.url)
    assert target.read_bytes() == LARGE


@only_root_mounts
@pytest.mark.parametrize("source", ["directory", "server"])
def test_a_disk_that_fills_up_on_the_way_is_reported(source, shelf, server, tmp_path, monkeypatch):
    wanted = place(source, LARGE, shelf, server, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 10**9))
    with small_disk(tmp_path / "disk") as disk:
        sentence = sentence_of(disk / FILE, wanted, left=[PARTIAL] if source == "server" else [])
    assert "disk is full" in sentence and str(disk / FILE) in sentence


@only_root_mounts
@SOURCES
def test_a_read_only_folder_is_named(source, shelf, server, tmp_path, monkeypatch):
    wanted = place(source, CONTENT, shelf, server, monkeypatch)
    with small_disk(tmp_path / "disk", "ro") as disk:
        sentence = sentence_of(disk / FILE, wanted)
    assert (
        "no permission" in sentence
        and str(disk / FILE) in sentence
        and f"change the mode of it, or of {disk}" in sentence
    )
    assert server.asked == []


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(shelf, target):
    target.parent.mkdir(parents=True)
    target.parent.chmod(0o500)
    try:
        assert "no permission" in sentence_of(target, str(shelf))
    finally:
        target.parent.chmod(0o700)


@pytest.mark.parametrize("source", ["directory", "server", "drawn"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "could not be written"),
    ],
    ids=["full", "quota", "not allowed", "read-only", "broken"],
)
def test_a_disk_that_refuses_at_the_last_step_is_named(code, words, source, shelf, server, target, monkeypatch):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    row = {**ROW, "draw": {"images": 20, "seed": 0}} if source == "drawn" else ROW
    left = [PARTIAL] if source == "server" else []
    sentence = sentence_of(target, str(shelf) if source == "directory" else server.url, row=row, left=left)
    assert words in sentence and str(target) in sentence
    if source == "server":
        monkeypatch.undo()
        use(monkeypatch, urls=())
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        download.fetch("digits", ROW, FILE, target, server.url)
        assert sum(sent for _, _, sent in server.asked) <= 2 * len(CONTENT) and os.listdir(target.parent) == [FILE]


# --- what a person sees ---


def test_the_licence_and_the_citation_are_said_first(shelf, target, monkeypatch, caplog):
    caplog.set_level("INFO")
    entry = next(entry for entry in PUBLISHED if entry.kind == "celeba")
    monkeypatch.setattr(registry, "FILES", (entry,))
    with pytest.raises(UserError):
        download.fetch("celeba", {**ROW, "kind": "celeba"}, entry.file, target, str(shelf))
    assert "non-commercial research only" in caplog.messages[0] and "Liu, Luo, Wang and Tang 2015" in caplog.messages[0]


def test_without_a_terminal_the_log_says_now_and_then_how_far_it_is(server, target, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(download, "LINE_SECONDS", 0)
    use(monkeypatch, urls=(), content=LARGE)
    server.answers = [Answer(LARGE)]
    download.fetch("digits", ROW, FILE, target, server.url)
    assert [line for line in caplog.messages if re.search(r"52\d?k?.*/3.00M \[\d\d:\d\d<\d\d:\d\d, .*B/s\]", line)]


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left(server, target, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    use(monkeypatch, urls=(), content=LARGE)
    server.answers = [Answer(LARGE)]
    download.fetch("digits", ROW, FILE, target, server.url)
    assert re.search(r"100%\|█+\| 3.00M/3.00M \[\d\d:\d\d<\d\d:\d\d, .*B/s\]", capsys.readouterr().err)


# --- the registry ---


def test_a_file_the_data_set_does_not_have_is_refused_with_those_it_has(target, monkeypatch):
    monkeypatch.setattr(registry, "FILES", PUBLISHED)
    sentence = sentence_of(target, None, file="train.gz")
    assert "'train.gz'" in sentence
    assert all(name in sentence for name in registry.raw_files(ROW, "train") + registry.raw_files(ROW, "test"))


def test_the_registry_knows_the_files_of_each_split():
    names = {(entry.kind, split): [] for entry in PUBLISHED for split in entry.splits}
    for entry in PUBLISHED:
        for split in entry.splits:
            names[entry.kind, split].append(entry.file)
        assert entry.urls and all(url.startswith("http") for url in entry.urls)
        assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", entry.checksum)
        assert entry.bytes and entry.licence and entry.citation and entry.mirror_folder
    assert names == {
        ("mnist", "train"): ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
        ("mnist", "test"): ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
        ("celeba", "train"): ["img_align_celeba.zip", "list_eval_partition.txt"],
        ("celeba", "val"): ["img_align_celeba.zip", "list_eval_partition.txt"],
        ("celeba", "test"): ["img_align_celeba.zip", "list_eval_partition.txt"],
        ("lsun", "train"): ["bedroom_train_lmdb.zip"],
        ("lsun", "val"): ["bedroom_val_lmdb.zip"],
    }


def test_the_2d_sets_have_splits_and_no_raw_files(target):
    for kind in ("four_spin", "two_spiral"):
        row = {"kind": kind}
        assert registry.splits(row) == ("train", "test")
        assert registry.raw_files(row, "train") == []
        assert registry.module(row) == "ddgm.datasets.drawn_points"
        with pytest.raises(UserError, match="no raw files"):
            download.fetch(kind, row, "x.npy", target, None)


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'val'.*train, test"):
        registry.raw_files(ROW, "val")


def test_provenance_gets_a_phrase_and_the_checksums_that_were_verified(parameters, monkeypatch):
    monkeypatch.setattr(registry, "FILES", PUBLISHED)
    rows = parameters["datasets"]
    assert {name: registry.source(row) for name, row in rows.items() if not (row.get("subset"))} == {
        "four_spin": "computed",
        "two_spiral": "computed",
        "mnist": "original files",
        "celeba": "original files",
        "lsun_bedroom": "original files",
        "toy_digits": "scikit-learn's digits: 1797 pictures, seed 0",
        "toy_faces": "drawn by code: 600 pictures, seed 0",
        "toy_rooms": "drawn by code: 400 pictures, seed 0",
    }
    assert registry.checksums(rows["toy_faces"], "train") == registry.checksums(rows["four_spin"], "train") == {}
    partition = {"list_eval_partition.txt": "md5:d32c9cbf5e040fd4025c592c306e6668"}
    assert registry.checksums(rows["celeba"], "val") == {
        "img_align_celeba.zip": "md5:00d2c5bc6d35e252742224ab0c1e8fcb",
        **partition,
    }
    row = rows["celeba_15k"]
    assert registry.source(row) == row["subset"]["says"] and "subset" in row["subset"]["says"]
    assert registry.checksums(row, "val") == {**row["subset"]["checksums"], **partition}


@pytest.mark.parametrize("dataset", ["celeba_15k", "lsun_stand_in"])
def test_the_subsets_of_the_mirror_are_the_declared_ones(dataset, parameters, mirror, tmp_path, monkeypatch):
    row = parameters["datasets"][dataset]
    monkeypatch.setattr(registry, "FILES", PUBLISHED)
    for file in registry.files(row):
        download.fetch(dataset, row, file, tmp_path / file, str(mirror))
    archive = next(iter(row["subset"]["checksums"]))
    with pytest.raises(UserError, match="if it is a subset on purpose, write"):
        download.fetch("official", {**row, "subset": None}, archive, tmp_path / "official" / archive, str(mirror))


def test_what_the_sentence_tells_to_write_declares_the_subset(parameters, shelf, target, monkeypatch):
    (shelf / "mnist" / FILE).write_bytes(b"a smaller set")
    written = re.search(r"under datasets.digits, (subset: .*\}\});", sentence_of(target, str(shelf)))[1]
    row = {**ROW, **yaml.safe_load(written)}
    download.fetch("digits", row, FILE, target, str(shelf))
    monkeypatch.setattr(registry, "FILES", PUBLISHED)
    parameters["datasets"]["mnist"] = row
    check(parameters)


def test_the_registry_imports_nothing_heavy():
    code = (
        "import sys, ddgm.datasets.registry; print(*{'torch', 'numpy', 'PIL', 'lmdb', 'requests'} & set(sys.modules))"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy == []
