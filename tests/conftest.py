"""Rows and data that several test modules start from."""

import copy
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from ddgm import provenance
from ddgm.parameters import LOADER
from ddgm.progress import log

ROOT = Path(__file__).parents[1]
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # several times as fast as the other
PARAMETERS = yaml.load((ROOT / "params.yaml").read_text(), LOADER)
WHOLE = torch.tensor(1.0)  # the power of weights that do not rise
# Tests compare numbers to the last bit: one thread, whatever machine they run on.
torch.set_num_threads(1)
# A shell starts its background jobs deaf to Ctrl-C, and whatever the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 300) -> None:
    """Return once the condition holds; fail at once where the process that is to fulfil it has ended."""
    end = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        if condition():
            return
        assert not ended, "the process ended before that"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def imported(script: str) -> ModuleType:
    """A Python file outside the package, named from the project's root, as a module of its own."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    """The toy branch first: one worker makes it while the others run the rest, and all end together."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


@pytest.fixture
def parameters():
    """params.yaml as committed; a test may change its copy."""
    return copy.deepcopy(PARAMETERS)


@pytest.fixture
def planar_row(parameters):
    """A two-dimensional experiment that trains in a second: two seeds, small nets, every feature switched on."""
    row = copy.deepcopy(parameters["experiments"]["four_spin_neighbour"])
    row["seeds"] = [0, 1]
    row["energy"]["hidden"] = row["generator"]["hidden"] = [16, 16]
    row["schedule"].update(steps=30, batch=32)
    return row


@pytest.fixture
def digit_row(parameters):
    """A digit experiment that trains in a second: one seed, noise in the features."""
    row = copy.deepcopy(parameters["experiments"]["toy_digits"])
    row["seeds"] = [3]
    row["energy"].update(hidden=[24, 12], experts=8)
    row["generator"]["hidden"] = [16]
    row["schedule"].update(steps=20, batch=16)
    return row


@pytest.fixture
def image_row(parameters):
    """A convolutional experiment on 16x16 colour images."""
    row = copy.deepcopy(parameters["experiments"]["toy_faces"])
    row["energy"].update(hidden=[4, 8], experts=8)
    row["generator"].update(hidden=[8, 4], latent=5)
    row["schedule"].update(steps=10, batch=8)
    return row


@pytest.fixture
def planar_data():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32))


@pytest.fixture
def digit_data():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8))


@pytest.fixture
def image_data():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), np.uint8))


@pytest.fixture
def new_process(monkeypatch):
    """Begins, as provenance sees it, another process, in a tree of the code version that it is given."""

    def begin(code):
        monkeypatch.setattr(provenance, "version_in_tree", lambda: code)
        provenance.code_version.cache_clear()

    yield begin
    provenance.code_version.cache_clear()


@pytest.fixture(autouse=True)
def as_loud_as_before():
    """A process that is to say nothing silences its log, and here the next test speaks in it."""
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(scope="session")
def mirror():
    """The folder with real data files, where this machine has one."""
    folder = Path(os.environ.get("DDGM_MIRROR") or ROOT.parent / "shared" / "mirror")
    if not folder.is_dir():
        pytest.skip(f"no data mirror at {folder}: set DDGM_MIRROR to a folder with mnist/, celeba/, lsun/")
    return folder
