"""Locks where a file system has none, and where another process has it."""

import errno
import fcntl
import os
import platform

import pytest

from ddgm.checkpoint import only_trainer
from ddgm.datasets import download, stream
from ddgm.errors import UserError
from ddgm.lock import lock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("place", ["training", "preparation", "fetch"])
def test_a_file_system_without_locks_is_one_sentence(number, place, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    holding = {
        "training": lambda: only_trainer(tmp_path / "x"),
        "preparation": lambda: stream.alone(tmp_path / "unpacked", tmp_path / "train.npy"),
        "fetch": lambda: download._alone(tmp_path / "x.gz"),
    }[place]()
    sentence = rf"{tmp_path} lies on a file system without locks \({os.strerror(number)}\): mount it with flock, or wor"
    with pytest.raises(UserError, match=sentence), holding:
        pass


def test_who_is_refused_leaves_the_folder_to_who_works_in_it(tmp_path):
    folder = tmp_path / "unpacked"
    with stream.alone(folder, tmp_path / "train.npy"):
        with pytest.raises(UserError, match="another process prepares"), stream.alone(folder, tmp_path / "train.npy"):
            pass
        assert folder.is_dir()
    assert not folder.exists(), "where nothing is in it"


@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        ("", "process {pid} is training x already: wait for it, or stop it with 'kill {pid}'"),
        ("far", "process {pid} on far is training x already: wait for it, or stop it with 'ssh far kill {pid}'"),
        ("far,17", "process {pid} on far is training x already: wait for it, or stop it with 'scancel 17'"),
    ],
)
def test_a_trainer_is_named_with_what_stops_it_where_it_runs(holder, sentence, tmp_path, monkeypatch):
    host, _, job = holder.partition(",")
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("SLURM_JOB_ID", raising=False)
        if host:
            elsewhere.setattr(platform, "node", lambda: host)
        if job:
            elsewhere.setenv("SLURM_JOB_ID", job)
        first = only_trainer(tmp_path / "x")
        first.__enter__()
    with pytest.raises(UserError) as refused, only_trainer(tmp_path / "x"):
        pass
    assert str(refused.value) == sentence.format(pid=os.getpid())
    first.__exit__(None, None, None)


def test_a_second_lock_is_refused_and_other_faults_stay_what_they_are(tmp_path):
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(2)]
    assert [lock(handle, tmp_path) for handle in handles] == [True, False]
    os.close(handles[0])
    assert lock(handles[1], tmp_path)
    os.close(handles[1])
    with pytest.raises(OSError, match="Bad file"):
        lock(handles[1], tmp_path)
