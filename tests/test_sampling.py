"""What is drawn from a trained pair, and what is measured on image experiments."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import ddgm
from ddgm.datasets import two_d
from ddgm.experiment import scale_pixels
from ddgm.metrics import energies as evidence
from ddgm.metrics.table import tabulate, write
from ddgm.sampling import (
    BOX,
    draw_in_parts,
    draw_samples,
    energies,
    energies_and_slopes,
    histogram,
    interpolate,
    sample,
    to_pixels,
)
from ddgm.training import train


@pytest.fixture
def digit_model(digit_row, digit_data, tmp_path):
    np.save(tmp_path / "train.npy", digit_data.numpy())
    train("digits", digit_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "digits.pt")
    return tmp_path / "model"


SAMPLING = {"seed": 0, "samples": 40, "images": 25, "rows": 3, "steps": 5, "grid": 12, "histogram": 900}


def test_pixels_come_back_from_their_scaling_as_they_were():
    pixels = torch.arange(256, dtype=torch.uint8)
    for limits in ((0.0, 1.0), (-1.0, 1.0)):
        scaled = scale_pixels(pixels, limits)
        assert (scaled.min().item(), scaled.max().item()) == pytest.approx(limits)
        assert (to_pixels(scaled, limits) == pixels.numpy()).all()


def test_image_samples_are_pixels_seeds_first(digit_model, tmp_path):
    sample(digit_model, SAMPLING, {}, tmp_path / "s.npz")
    arrays = np.load(tmp_path / "s.npz")
    assert arrays["samples"].shape == (1, 25, 1, 8, 8) and arrays["samples"].dtype == np.uint8
    assert arrays["interpolations"].shape == (1, 3, 5, 1, 8, 8)
    before = (tmp_path / "s.npz").read_bytes()
    sample(digit_model, SAMPLING, {}, tmp_path / "s.npz")
    assert (tmp_path / "s.npz").read_bytes() == before, "the same stream gives the same samples"


@torch.no_grad()
def test_energies_come_with_their_slopes_part_by_part_and_leave_no_graph():
    class Quartic(torch.nn.Module):
        def forward(self, x):
            return x.pow(4).flatten(1).sum(1)

    x = torch.randn(7, 2, 3)
    values, slopes = energies_and_slopes(Quartic(), x, batch=3)
    torch.testing.assert_close(values, energies(Quartic(), x))
    torch.testing.assert_close(slopes, 4 * x**3)
    assert not (values.requires_grad or slopes.requires_grad or x.requires_grad)


def test_planar_samples_come_with_the_energy_and_the_data_on_one_grid(planar_row, planar_data, parameters, tmp_path):
    np.save(tmp_path / "train.npy", planar_data.numpy())
    train("points", planar_row, tmp_path / "train.npy", tmp_path / "model", tmp_path / "points.pt")
    dataset = parameters["datasets"]["four_spin"]
    sample(tmp_path / "model", SAMPLING, dataset, tmp_path / "s.npz")
    arrays = np.load(tmp_path / "s.npz")
    assert arrays["samples"].shape == (2, 40, 2) and arrays["energy"].shape == (2, 12, 12)
    energy, _ = ddgm.load(tmp_path / "model", seed=1)
    x, y = arrays["axis"][7], arrays["axis"][2]
    with torch.no_grad():
        at = energy(torch.tensor([[x, y]])).item()
    assert arrays["energy"][1, 2, 7] == pytest.approx(at, rel=1e-4), "indexed [y, x]"
    due = two_d.density(dataset, np.array([[x, y]], np.float64))[0]
    assert due != pytest.approx(two_d.density(dataset, np.array([[y, x]], np.float64))[0], rel=0.1)
    assert arrays["data_density"][2, 7] == pytest.approx(due, rel=1e-3)
    assert arrays["generator_density"].shape == (2, 12, 12) and arrays["generator_density"].dtype == np.float32
    mass = arrays["generator_density"].sum((1, 2)) * (2 * BOX / 12) ** 2
    assert (mass <= 1 + 1e-5).all() and not (arrays["generator_density"][0] == arrays["generator_density"][1]).all()


def test_the_histogram_is_the_density_of_the_same_samples_y_before_x():
    """Samples of N((1, -1), 0.3²): mass 1, and the most of it in the row of y = -1 and the column of x = 1."""

    class Drawn(torch.nn.Module):
        latent = 2

        def forward(self, z):
            return torch.tensor([1.0, -1.0]) + 0.3 * torch.erfinv(0.999 * z) * 2**0.5

    n, side = 20_000, 12
    found = histogram(Drawn(), n, 64, torch.Generator().manual_seed(0), side)
    area = (2 * BOX / side) ** 2
    assert found.sum() * area == pytest.approx(1, abs=1e-6)
    y, x = np.unravel_index(found.argmax(), found.shape)
    centres = (np.arange(side) + 0.5) * 2 * BOX / side - BOX
    assert abs(centres[y] + 1) < 0.5 and abs(centres[x] - 1) < 0.5
    samples = draw_samples(Drawn(), n, 64, torch.Generator().manual_seed(0)).numpy()
    inside = (np.abs(samples - [centres[x], centres[y]]) < BOX / side).all(1)
    assert found[y, x] * area == pytest.approx(inside.mean(), abs=1e-6)


def test_interpolations_begin_and_end_at_the_end_points_samples(digit_model):
    _, generator = ddgm.load(digit_model)
    lines = interpolate(generator, 3, 5, 64, torch.Generator().manual_seed(0))
    z = ddgm.generator.prior(64, generator.latent, torch.Generator().manual_seed(0))
    with torch.no_grad():
        start, end = generator(torch.cat([z[:3], z[3:]])), generator(torch.cat([z[3:6], z[3:]]))
        middle = generator(torch.cat([(z[:3] + z[3:6]) / 2, z[3:]]))
    assert torch.equal(lines[:, 0], start[:3]) and torch.equal(lines[:, -1], end[:3])
    torch.testing.assert_close(lines[:, 2], middle[:3])


def test_samples_in_parts_are_the_same_samples(digit_model):
    _, generator = ddgm.load(digit_model)
    whole = draw_samples(generator, 100, 16, torch.Generator().manual_seed(0))
    parts = list(draw_in_parts(generator, 100, 16, torch.Generator().manual_seed(0), 40))
    assert [len(part) for part in parts] == [32, 32, 32, 4]
    assert (torch.cat(parts) == whole).all()


def test_samples_are_cut_from_whole_batches(digit_model):
    _, generator = ddgm.load(digit_model)
    few = draw_samples(generator, 20, 16, torch.Generator().manual_seed(0))
    many = draw_samples(generator, 32, 16, torch.Generator().manual_seed(0))
    assert few.shape[0] == 20 and torch.equal(few, many[:20])


def test_separation_is_one_apart_and_one_half_alike():
    low, high = np.arange(100.0), np.arange(100.0) + 1000
    assert evidence.separation(low, high) == 1
    assert evidence.separation(high, low) == 0
    assert evidence.separation(low, low) == 0.5


def test_spread_sees_a_collapse():
    data = torch.randn(500, 1, 4, 4)
    assert evidence.spread(data[:1].expand(500, -1, -1, -1), data) == 0
    assert evidence.spread(2 * torch.randn(500, 1, 4, 4), data) == pytest.approx(4, rel=0.1)


def test_inputs_of_other_kinds_keep_what_they_should():
    x = torch.rand(6, 1, 5, 5)
    other = evidence.other_kinds(x, (0.0, 1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(other["inverted"], 1 - x)
    torch.testing.assert_close(other["shuffled"].flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    assert not torch.equal(other["shuffled"], x)


def test_a_pixel_that_is_moved_keeps_its_colour():
    x = torch.rand(4, 3, 5, 5)
    shuffled = evidence.other_kinds(x, (0.0, 1.0), torch.Generator().manual_seed(0))["shuffled"]
    for before, after in zip(x.flatten(2), shuffled.flatten(2), strict=True):
        assert sorted(before.T.tolist()) == sorted(after.T.tolist()) and not torch.equal(before, after)


def test_noise_stays_within_the_range_of_pixels():
    x = torch.rand(6, 1, 5, 5)
    other = evidence.other_kinds(x, (0.0, 1.0), torch.Generator().manual_seed(0))
    assert other["noise"].min() >= 0 and other["noise"].max() <= 1


def test_the_summary_has_mean_and_sd_over_seeds_and_no_sd_for_one(tmp_path):
    write([("a", 0, "kl", 1.0), ("a", 1, "kl", 3.0)], tmp_path / "a.csv")
    write([("b", 0, "kl", 5.0)], tmp_path / "b.csv")
    tabulate([tmp_path / "a.csv", tmp_path / "b.csv"], {"a": "A", "b": "B"}, tmp_path / "all.csv")
    summary = pd.read_csv(tmp_path / "all.csv").set_index("experiment")
    assert summary.loc["a", ["title", "seeds", "mean"]].tolist() == ["A", 2, 2.0]
    assert summary.loc["a", "sd"] == pytest.approx(2**0.5, rel=1e-3)
    assert np.isnan(summary.loc["b", "sd"])
    assert json.loads((tmp_path / "all.json").read_text()) == {"a": {"kl": 2.0}, "b": {"kl": 5.0}}
