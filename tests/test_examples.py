"""Training examples: from memory, and from a file that a thread reads ahead."""

import copy
import json

import numpy as np
import pytest
import torch

from ddgm import examples
from ddgm.errors import UserError
from ddgm.examples import Resident, Streamed, open_examples
from ddgm.pair import Pair
from ddgm.training import train

CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path):
    """A file of 300 pictures of 3x4x4 pixels, each of which is its own number."""
    numbers = np.arange(300, dtype=np.int32).reshape(-1, 1, 1, 1)
    np.save(tmp_path / "train.npy", np.broadcast_to(numbers, (300, 3, 4, 4)))
    return np.load(tmp_path / "train.npy", mmap_mode="r")


def streams(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def numbers(batch):
    """Which rows of the file a batch (S, N, 3, 4, 4) holds, (S, N)."""
    assert (batch == batch[:, :, :1, :1, :1]).all(), "a picture is whole"
    return batch[:, :, 0, 0, 0]


def test_streamed_batches_are_rows_of_the_file_in_the_order_that_was_drawn(stored):
    batch = numbers(Streamed(stored, 8, [0, 1], CPU).batch())
    drawn = torch.stack([torch.randint(300, (8,), generator=stream) for stream in streams(0, 1)])
    assert batch.tolist() == drawn.tolist()


def test_every_row_is_drawn_about_as_often(stored):
    source = Streamed(stored, 100, [0], CPU)
    counts = torch.bincount(torch.cat([numbers(source.batch()).flatten() for _ in range(300)]), minlength=300)
    # Poisson with mean 100: six standard deviations.
    assert counts.min() > 40 and counts.max() < 160


def test_streamed_batches_go_on_where_they_were_whatever_was_read_ahead(stored):
    source = Streamed(stored, 8, [0, 1], CPU)
    for _ in range(5):
        source.batch()
    state = source.state()
    expected = [numbers(source.batch()).tolist() for _ in range(4)]
    again = Streamed(stored, 8, [0, 1], CPU)
    again.batch()
    again.restore(state)
    assert [numbers(again.batch()).tolist() for _ in range(4)] == expected


def test_resident_examples_are_what_the_training_streams_draw(stored):
    source = Resident(stored, 8, streams(3), CPU)
    drawn = torch.randint(300, (8,), generator=streams(3)[0])
    assert numbers(source.batch()).tolist() == [drawn.tolist()]


def test_data_live_in_memory_where_they_take_less_than_half_of_what_is_free(stored, monkeypatch):
    monkeypatch.setattr(examples, "free_bytes", lambda device: 2 * stored.nbytes)
    assert isinstance(open_examples(stored, 8, [0], streams(0), CPU), Resident)
    monkeypatch.setattr(examples, "free_bytes", lambda device: 2 * stored.nbytes - 1)
    assert isinstance(open_examples(stored, 8, [0], streams(0), CPU), Streamed)


def test_data_come_into_memory_in_parts(stored, monkeypatch):
    monkeypatch.setattr(examples, "PART", 1000)
    assert torch.equal(Resident(stored, 8, streams(0), CPU).data, torch.from_numpy(np.array(stored)))


@pytest.mark.parametrize("before", ["in memory", "streamed"])
def test_a_training_goes_on_as_it_began_however_much_memory_is_free_then(before, image_row, image_data, monkeypatch):
    first, then = (2**40, image_data.nbytes) if before == "in memory" else (0, 2**40)
    monkeypatch.setattr(examples, "free_bytes", lambda device: first)
    pair = Pair(image_row, image_data, CPU)
    pair.round()
    monkeypatch.setattr(examples, "free_bytes", lambda device: then)
    again = Pair(image_row, image_data, CPU)
    assert type(again.source) is not type(pair.source)
    again.restore(copy.deepcopy(pair.state()))
    assert type(again.source) is type(pair.source)
    for _ in range(2):
        torch.testing.assert_close(pair.round(), again.round(), rtol=0, atol=0)


@pytest.mark.parametrize(("free", "held"), [(2**40, "resident"), (0, "streamed")])
def test_the_log_and_the_model_say_how_the_data_were_held_which_decides_what_is_drawn(
    free, held, image_row, image_data, tmp_path, monkeypatch, caplog
):
    np.save(tmp_path / "train.npy", image_data.numpy())
    caplog.set_level("INFO", "ddgm")
    monkeypatch.setattr(examples, "free_bytes", lambda device: free)
    train("x", image_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "state" / "x", until=3)
    # What is free when it goes on changes nothing.
    monkeypatch.setattr(examples, "free_bytes", lambda device: 2**40 if held == "streamed" else image_data.nbytes)
    train("x", image_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "state" / "x")
    assert caplog.messages.count(f"data_held     {held}") == 2
    assert json.loads((tmp_path / "model/provenance.json").read_text())["data_held"] == held


def test_data_that_were_in_memory_and_no_longer_fit_are_one_sentence(image_row, image_data, monkeypatch):
    state = copy.deepcopy(Pair(image_row, image_data, CPU).state())
    monkeypatch.setattr(examples, "free_bytes", lambda device: image_data.nbytes - 1)
    pair = Pair(image_row, image_data, CPU)
    with pytest.raises(UserError, match=r"held its data in memory, 0\.0 GB, and 0\.0 GB are free now: free"):
        pair.restore(state)


def test_a_pair_trains_from_the_file_and_goes_on_to_the_bit(image_row, image_data, monkeypatch):
    monkeypatch.setattr(examples, "free_bytes", lambda device: 0)
    pair = Pair(image_row, image_data, CPU)
    for _ in range(3):
        pair.round()
    again = Pair(image_row, image_data, CPU)
    again.restore(copy.deepcopy(pair.state()))
    for _ in range(2):
        torch.testing.assert_close(pair.round(), again.round(), rtol=0, atol=0)


def test_flips_mirror_about_half_of_the_examples(image_row, image_data):
    image_row["schedule"]["batch"] = 400
    data = torch.zeros(1, *image_data.shape[1:], dtype=torch.uint8)
    data[..., 0] = 255
    image_row["range"] = [0.0, 1.0]
    batch = Pair({**image_row, "flips": True}, data, CPU).examples()
    left, right = batch[..., 0].mean((2, 3)), batch[..., -1].mean((2, 3))
    assert ((left == 1) ^ (right == 1)).all(), "either side is white, not both"
    assert 140 < (right == 1).sum() < 260
    assert (Pair(image_row, data, CPU).examples()[..., 0] == 1).all(), "and none without"
