"""Which GPU a process takes, on a machine that has several: PyTorch's answers about GPUs are made up here."""

import fcntl
from types import SimpleNamespace

import pytest
import torch

from ddgm import device
from ddgm.device import choose_device
from ddgm.errors import UserError


@pytest.fixture
def in_use():
    """What PyTorch was told to compute on, where nothing else is said."""
    return []


@pytest.fixture
def gpus(monkeypatch, tmp_path, in_use):
    """So many GPUs, and a folder of locks for this test; gives the place of a GPU's lock."""

    def there_are(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"GPU-{number}"))
        monkeypatch.setattr(torch.cuda, "set_device", in_use.append)
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
        return lambda number: next(tmp_path.glob(f"ddgm_*_GPU-{number}.lock"))

    device.unused_gpu.cache_clear()
    yield there_are
    device.unused_gpu.cache_clear()
    while device.HELD:
        device.HELD.pop().close()


def chosen_by_another_process():
    device.unused_gpu.cache_clear()
    return choose_device("auto").index


def test_of_three_jobs_on_two_gpus_each_has_one_and_the_third_the_first(gpus, in_use):
    gpus(2)
    assert choose_device("auto").index == choose_device("cuda").index == 0, "a process keeps its own"
    assert [chosen_by_another_process() for _ in range(2)] == [1, 0]
    assert [each.index for each in in_use] == [0, 0, 1, 0], "what names no device, as a record does, means the job's"


def test_a_gpu_is_free_again_when_its_process_has_ended(gpus):
    gpus(2)
    assert choose_device("auto").index == 0
    device.HELD.pop().close()  # as the kernel does, however a process ends
    assert chosen_by_another_process() == 0


def test_a_job_leaves_the_gpus_of_processes_that_train_together_alone(gpus, monkeypatch):
    lock_of = gpus(3)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ddgm")
    for number in (0, 1):
        assert chosen_by_another_process() == number
        with lock_of(number).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert chosen_by_another_process() == 2


def test_processes_that_train_together_leave_the_gpu_of_a_job_alone_and_share_none(gpus, monkeypatch):
    gpus(3)
    assert choose_device("auto").index == 0
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ddgm")
    assert [chosen_by_another_process() for _ in range(2)] == [1, 2]
    with pytest.raises(UserError, match="each of the 3 GPUs here is held by another process of yours: wait"):
        chosen_by_another_process()


def test_one_gpu_is_shared_without_locks(gpus, tmp_path):
    gpus(1)
    assert [chosen_by_another_process() for _ in range(2)] == [0, 0] and not list(tmp_path.glob("*.lock"))


def test_asking_whether_there_is_a_gpu_holds_none(gpus, tmp_path):
    """As what starts several processes does."""
    gpus(2)
    assert device.wants_gpu("auto") and not device.wants_gpu("cpu") and not list(tmp_path.glob("*.lock"))


def test_more_processes_than_gpus_are_refused_by_all_of_them_so_that_one_can_say_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^2 processes want a GPU each, and PyTorch sees 1 here: write as"):
        choose_device("auto")
    assert choose_device("cpu").type == "cpu"
