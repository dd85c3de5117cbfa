"""Raw files arrive whole and verified or not at all, and every fault is one sentence that says what to do."""

import errno
import gzip
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import zipfile

import pytest

from ddgm.datasets import download, registry
from ddgm.errors import UserError

ROW = {"kind": "mnist", "draw": None}
FILE = "train-labels-idx1-ubyte.gz"
CONTENT = gzip.compress(bytes(range(256)) * 64, mtime=0)
PUBLISHED = registry.FILES
MD5 = hashlib.md5(CONTENT).hexdigest()
HTML = b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>"


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `answers` (the last for ever), and counts the requests.

    An answer is (status, body, claimed length); `paths` are those asked for.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [(200, CONTENT, None)]
        self.paths = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        answers = self.server.answers
        status, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

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
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A registry of one small file, and no pauses between attempts."""
    use(monkeypatch, urls=())
    monkeypatch.setattr(download, "PAUSE_S", 0.0)


def use(monkeypatch, urls, file=FILE, content=CONTENT):
    md5 = hashlib.md5(content).hexdigest()
    entry = registry.RawFile("mnist", file, ("train",), "1", urls, "mnist", len(content), md5, "", "")
    monkeypatch.setattr(registry, "FILES", (entry,))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "raw" / "mnist" / FILE


@pytest.fixture
def mirror(tmp_path):
    """A mirror directory that holds the file."""
    folder = tmp_path / "mirror" / "mnist"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(CONTENT)
    return folder.parent


def sentence_of(target, mirror, file=FILE, row=ROW):
    """What a failing fetch says; it must be one line and leave nothing behind."""
    with pytest.raises(UserError) as caught:
        download.fetch("mnist", row, file, target, mirror)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not target.parent.exists() or not any(target.parent.iterdir())
    return sentence


@pytest.mark.parametrize("form", ["absolute", "relative", "tilde", "file_url", "file_url_escaped"])
def test_a_mirror_directory_may_be_written_in_every_usual_way(form, mirror, target, monkeypatch):
    if form == "file_url_escaped":
        mirror = mirror.rename(mirror.with_name("my mirror"))
    monkeypatch.chdir(mirror.parent)
    monkeypatch.setenv("HOME", str(mirror.parent))
    written = {
        "absolute": str(mirror),
        "relative": "mirror",
        "tilde": "~/mirror",
        "file_url": mirror.as_uri(),
        "file_url_escaped": mirror.as_uri(),
    }[form]
    download.fetch("mnist", ROW, FILE, target, written)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [FILE]


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_http_mirror_is_asked_for_folder_and_file(slash, server, target):
    download.fetch("mnist", ROW, FILE, target, f"{server.url}/data{slash}")
    assert server.paths == [f"/data/mnist/{FILE}"]
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [FILE]


def test_a_fetched_file_is_readable_for_whom_the_umask_allows(server, target):
    download.fetch("mnist", ROW, FILE, target, server.url)
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_fetch_replaces_a_wrong_file_already_there(server, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an old, wrong file")
    download.fetch("mnist", ROW, FILE, target, server.url)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", [None, ""])
def test_without_a_mirror_the_public_addresses_are_tried_in_order(mirror, server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/first", f"{server.url}/second"))
    server.answers = [(404, b"", None), (200, CONTENT, None)]
    download.fetch("mnist", ROW, FILE, target, mirror)
    assert server.paths == ["/first", "/second"]
    assert target.read_bytes() == CONTENT


def test_the_sentence_is_the_last_address_s_when_all_fail(server, target, monkeypatch):
    use(monkeypatch, urls=(f"{server.url}/first", f"{server.url}/second"))
    server.answers = [(404, b"", None)]
    assert f"{server.url}/second does not exist" in sentence_of(target, None)


@pytest.mark.parametrize(
    "fault",
    [(503, b"", None), (200, CONTENT[:100], None), (200, CONTENT[:100], len(CONTENT)), (200, b"wrong", None)],
    ids=["server error", "truncated", "closed early", "wrong bytes"],
)
def test_one_passing_failure_is_followed_by_success(fault, server, target):
    server.answers = [fault, (200, CONTENT, None)]
    download.fetch("mnist", ROW, FILE, target, server.url)
    assert target.read_bytes() == CONTENT
    assert len(server.paths) == 2


def test_a_server_that_keeps_failing_is_tried_three_times(server, target):
    server.answers = [(503, b"", None)]
    assert "HTTP 503" in sentence_of(target, server.url)
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("status", "words"), [(404, "does not exist"), (403, "quota"), (429, "quota")], ids=["404", "403", "429"]
)
def test_a_refusal_is_not_repeated_and_says_what_to_write(status, words, server, target):
    server.answers = [(status, HTML, None)]
    sentence = sentence_of(target, server.url)
    assert f"HTTP {status}" in sentence
    assert words in sentence
    assert f"{server.url}/mnist/{FILE}" in sentence
    assert "DDGM_MIRROR" in sentence and "params.yaml" in sentence
    assert len(server.paths) == 1


def test_an_html_page_is_recognised_before_its_checksum(server, target):
    server.answers = [(200, HTML, None)]
    sentence = sentence_of(target, server.url)
    assert "HTML page" in sentence and FILE in sentence
    assert MD5 not in sentence


@pytest.mark.parametrize("claimed", [None, len(CONTENT)], ids=["shorter file", "connection closed early"])
@pytest.mark.parametrize("kept", [0, 100, len(CONTENT) - 4])
def test_a_truncated_archive_is_called_cut_short(claimed, kept, server, target):
    server.answers = [(200, CONTENT[:kept], claimed)]
    sentence = sentence_of(target, server.url)
    assert "cut short" in sentence and FILE in sentence
    assert MD5 not in sentence


def test_a_truncated_zip_is_called_cut_short(mirror, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", bytes(1000))
    use(monkeypatch, urls=(), file="a.zip", content=buffer.getvalue())
    (mirror / "mnist" / "a.zip").write_bytes(buffer.getvalue()[:-10])
    assert "cut short" in sentence_of(tmp_path / "raw" / "a.zip", str(mirror), file="a.zip")


@pytest.mark.parametrize("kind", ["other bytes", "another gzip", "damaged gzip"])
def test_wrong_bytes_are_named_with_both_checksums(kind, server, target):
    other = {
        "other bytes": b"something else entirely",
        "another gzip": gzip.compress(b"something else", mtime=0),
        "damaged gzip": CONTENT[:60] + bytes(20) + CONTENT[80:],
    }[kind]
    server.answers = [(200, other, None)]
    sentence = sentence_of(target, server.url)
    assert MD5 in sentence and hashlib.md5(other).hexdigest() in sentence
    assert f"{server.url}/mnist/{FILE}" in sentence


def test_wrong_bytes_in_a_mirror_directory_are_refused_too(mirror, target):
    (mirror / "mnist" / FILE).write_bytes(b"wrong")
    sentence = sentence_of(target, str(mirror))
    assert MD5 in sentence and hashlib.md5(b"wrong").hexdigest() in sentence
    assert str(mirror / "mnist" / FILE) in sentence


def test_a_file_missing_in_the_mirror_is_named_with_its_full_path(mirror, target):
    (mirror / "mnist" / FILE).unlink()
    sentence = sentence_of(target, str(mirror))
    assert str(mirror / "mnist" / FILE) in sentence
    assert "DDGM_MIRROR" in sentence and f"mnist/{FILE}" in sentence


def test_an_unknown_scheme_is_refused_with_the_allowed_ones(target):
    sentence = sentence_of(target, "ftp://example.org/data")
    assert "ftp://example.org/data" in sentence and "file:///" in sentence and "https://" in sentence


def test_no_connection_says_how_to_set_a_mirror(server, target):
    url = server.url
    server.server_close()
    sentence = sentence_of(target, url)
    assert "no connection" in sentence and url.removeprefix("http://") in sentence
    assert "DDGM_MIRROR" in sentence and "`mirror:` in params.yaml" in sentence


def test_a_server_that_says_nothing_is_given_up(target, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sentence = sentence_of(target, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no connection" in sentence


@pytest.mark.parametrize("source", ["directory", "server", "drawn"])
@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
    ids=["full", "not allowed", "read-only"],
)
def test_a_disk_that_refuses_is_named_with_the_target(code, words, source, mirror, server, target, monkeypatch):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    # The last step of writing a file whole: everything has been written to the temporary file by then.
    monkeypatch.setattr(os, "fsync", refuse)
    row = {**ROW, "draw": {"images": 20, "seed": 0}} if source == "drawn" else ROW
    sentence = sentence_of(target, str(mirror) if source == "directory" else server.url, row=row)
    assert words in sentence and str(target) in sentence


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("source", ["directory", "server"])
def test_a_truly_full_disk_is_reported_and_left_clean(source, mirror, server, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        content = os.urandom(1_000_000)
        use(monkeypatch, urls=(), content=content)
        (mirror / "mnist" / FILE).write_bytes(content)
        server.answers = [(200, content, None)]
        sentence = sentence_of(disk / FILE, str(mirror) if source == "directory" else server.url)
        assert "disk is full" in sentence
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(mirror, target):
    target.parent.mkdir(parents=True)
    target.parent.chmod(0o500)
    try:
        assert "no permission" in sentence_of(target, str(mirror))
    finally:
        target.parent.chmod(0o700)


def test_a_file_the_data_set_does_not_have_is_refused_with_those_it_has(target, monkeypatch):
    monkeypatch.undo()
    sentence = sentence_of(target, None, file="train.gz")
    assert "'train.gz'" in sentence
    assert all(name in sentence for name in registry.raw_files(ROW, "train") + registry.raw_files(ROW, "test"))


@pytest.mark.parametrize(
    ("row", "file"),
    [
        ({"kind": "celeba", "draw": None}, "img_align_celeba.zip"),
        ({"kind": "lsun", "draw": None}, "bedroom_val_lmdb.zip"),
    ],
)
def test_official_celeba_and_lsun_say_that_they_are_not_built_yet(row, file, tmp_path, monkeypatch):
    monkeypatch.undo()
    target = tmp_path / "raw" / file
    sentence = sentence_of(target, "/a/mirror", file=file, row=row)
    assert "not built yet" in sentence and str(target) in sentence


def test_the_registry_knows_the_files_of_each_split():
    names = {(entry.kind, split): [] for entry in PUBLISHED for split in entry.splits}
    for entry in PUBLISHED:
        for split in entry.splits:
            names[entry.kind, split].append(entry.file)
        assert entry.urls and all(url.startswith("http") for url in entry.urls)
        assert entry.md5 is None or (len(entry.md5) == 32 and int(entry.md5, 16) >= 0)
        assert entry.licence and entry.citation and entry.mirror_folder
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
        assert registry.module(row) == "ddgm.datasets.two_d"
        with pytest.raises(UserError, match="no raw files"):
            download.fetch(kind, row, "x.npy", target, None)


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'val'.*train, test"):
        registry.raw_files(ROW, "val")


def test_the_registry_imports_nothing_heavy():
    code = (
        "import sys, ddgm.datasets.registry; print(*{'torch', 'numpy', 'PIL', 'lmdb', 'requests'} & set(sys.modules))"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy == []
