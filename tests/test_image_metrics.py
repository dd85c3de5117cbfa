"""Evidence on colour images, on a small pair, and where the answer is known."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ddgm import cli
from ddgm.datasets import registry
from ddgm.datasets.writing import write
from ddgm.errors import UserError
from ddgm.experiment import load
from ddgm.metrics import features, images, inception
from ddgm.sampling import draw_samples
from ddgm.training import train

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "seed": 1, "samples": 60, "compared": 40, "neighbours": 3, "patches": 4, "projections": 8, "grid": 12,
    "descent_steps": 14, "descent_rate": 0.02, "inception": False, "others": {},
}  # fmt: skip
ROW = {
    "kind": "celeba", "draw": {"images": 90, "seed": 0}, "folder": None, "subset": None, "side": 32, "crop": None,
    "draft": True, "max_images": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    made = {}
    for number, (split, n) in enumerate((("train", 90), ("test", 50), ("other", 20))):
        pixels = np.random.default_rng(number).integers(0, 256, (n, 3, 32, 32), np.uint8)
        made[split] = folder / f"{split}.npy"
        write(ROW, made[split], pixels)
    return made


@pytest.fixture
def measured(arrays, image_row, tmp_path):
    image_row["seeds"] = [0, 1]
    train("faces", image_row, arrays["train"], tmp_path / "model", tmp_path / "state" / "faces")
    images.reference(arrays["train"], SETTINGS, tmp_path / "known.npz", None, "not asked for")
    targets = {"metrics": tmp_path / "faces.csv", "evidence": tmp_path / "faces.npz"}
    images.evaluate(
        "faces", tmp_path / "model", SETTINGS, targets, tmp_path / "known.npz", None, "not asked for", arrays["train"],
        arrays["test"], arrays["other"],
    )  # fmt: skip
    return pd.read_csv(targets["metrics"]), dict(np.load(targets["evidence"]))


def test_a_table_has_every_number_of_every_seed_and_a_floor_beside_each_distance(measured):
    table, _ = measured
    assert list(table.columns) == ["experiment", "seed", "metric", "value"]
    by_metric = table.groupby("metric")["seed"].apply(list)
    assert {"swd_32", "swd_16", "swd", "spread", "sharpness", "memorised", "auroc_other_domain"} <= set(by_metric.index)
    floors = {"swd_32_floor", "swd_16_floor", "swd_floor", "swd_colours_floor", "spread_floor", "sharpness_floor"}
    assert floors <= set(by_metric.index)
    assert (by_metric.map(sorted).map(tuple) == (0, 1)).all()
    assert "fid" not in by_metric.index
    assert table["value"].notna().all()


def test_the_evidence_is_what_the_figures_read(measured):
    _, arrays = measured
    shapes = {name: array.shape for name, array in arrays.items()}
    kinds = ("train", "test", "samples", "inverted", "shuffled", "noise")
    assert all(shapes[f"energy_{kind}"] == (2, 40) for kind in kinds) and shapes["energy_other_domain"] == (2, 20)
    assert all(shapes[f"auroc_{kind}"] == (2,) for kind in (*kinds[2:], "other_domain"))
    assert shapes["samples"] == (2, 40, 3, 32, 32) and shapes["sample_energy"] == (2, 40)
    assert shapes["neighbours"] == (2, 30, 3, 32, 32) and shapes["neighbour_distance"] == (2, 40)
    assert shapes["heldout_distance"] == (40,)
    shown = [images.small(torch.from_numpy(arrays[name][0][:30])) for name in ("samples", "neighbours")]
    apart = (shown[0] - shown[1]).norm(dim=1)
    np.testing.assert_allclose(apart, arrays["neighbour_distance"][0][:30], rtol=1e-3, atol=1e-3)
    assert shapes["slice_energy"] == (12, 12) and shapes["slice_corners"] == (3, 3, 32, 32)
    assert shapes["descent"] == (6, 8, 3, 32, 32) and shapes["descent_energy"] == (6, 15)
    assert arrays["descent_kinds"].tolist() == ["test", "test", "samples", "samples", "noise", "noise"]
    np.testing.assert_array_equal(arrays["sample_energy"].astype(np.float32), arrays["energy_samples"])
    assert abs(arrays["energy_test"].mean(1)).max() < 1e-3, "energies are relative to the held-out images'"
    assert str(arrays["source"]) == "drawn by code: 90 pictures, seed 0"
    assert str(arrays["inception_absent"]) == "not asked for"


def test_images_of_another_size_than_was_trained_on_are_refused(arrays, image_row, tmp_path):
    small = tmp_path / "train.npy"
    write(ROW, small, np.zeros((20, 3, 16, 16), np.uint8))
    train("faces", image_row, small, tmp_path / "model", tmp_path / "state" / "faces", until=None)
    images.reference(arrays["train"], SETTINGS, tmp_path / "known.npz", None, "not asked for")
    with pytest.raises(UserError, match=r"model was trained on 3x16x16, and .*test\.npy holds 3x32x32: train it again"):
        images.evaluate(
            "faces", tmp_path / "model", SETTINGS, {}, tmp_path / "known.npz", None, "not asked for", arrays["train"],
            arrays["test"], None,
        )  # fmt: skip


@pytest.fixture
def small_net(monkeypatch):
    """In Inception's place a net of 4 features, the mean colour and its spread, for which 20 images are enough."""

    def features(self, pixels):
        flat = pixels.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.std(2).mean(1, keepdim=True)], 1)

    for name, value in (("FEATURES", 4), ("FEWEST", 20)):
        monkeypatch.setattr(inception, name, value)
    monkeypatch.setattr(inception.Inception, "__init__", lambda self, weights: None)
    monkeypatch.setattr(inception.Inception, "features", features)


def test_distances_by_inception_are_measured_of_every_seed_beside_their_floors(
    small_net, arrays, image_row, tmp_path, caplog
):
    image_row["seeds"] = [0, 1]
    train("faces", image_row, arrays["train"], tmp_path / "model", tmp_path / "state" / "faces")
    known, weights = tmp_path / "known.npz", tmp_path / "weights.pth"
    images.reference(arrays["train"], SETTINGS, known, weights, "")
    with np.load(known) as reference:
        assert int(reference["inception_count"]) == int(reference["count"]) == 90
        assert str(reference["inception_absent"]) == "" and str(reference["source"]).startswith("drawn by code")
        stored = torch.from_numpy(np.load(arrays["train"]))
        all_of_them = inception.Inception(weights).features(stored).double().numpy()
        np.testing.assert_allclose(reference["inception_mean"], all_of_them.mean(0), rtol=1e-5)

    def measure(weights, absent):
        targets = {"metrics": tmp_path / "faces.csv", "evidence": tmp_path / "faces.npz"}
        images.evaluate(
            "faces", tmp_path / "model", SETTINGS, targets, known, weights, absent, arrays["train"], arrays["test"],
            None,
        )  # fmt: skip
        table = pd.read_csv(targets["metrics"]).groupby("metric")["value"]
        return table.mean(), table.count(), str(np.load(targets["evidence"])["inception_absent"])

    mean, count, absent = measure(weights, "")
    wanted = {"fid", "kid", "inception_precision", "inception_recall"}
    assert wanted | {f"{name}_floor" for name in wanted} <= set(mean.index) and absent == ""
    assert (count == 2).all()
    assert mean["fid"] > 3 * mean["fid_floor"] > 0, "an untrained generator's colours are not the data's"
    # The weights are gone since the reference was made: that is said, and the rest goes on.
    mean, _, absent = measure(None, "the weights are missing")
    assert "fid" not in mean.index and "swd_32" in mean.index and absent == "the weights are missing"
    # They have come since.
    images.reference(arrays["train"], SETTINGS, known, None, "no connection")
    mean, _, absent = measure(weights, "")
    assert "fid" not in mean.index and absent.startswith(f"{known} was made without") and "delete it" in absent


def test_a_split_of_next_to_no_images_is_one_sentence(tmp_path):
    few = tmp_path / "train.npy"
    write(ROW, few, np.zeros((3, 3, 32, 32), np.uint8))
    sentence = rf"^{few} holds 3 images, and at least 4 are needed to measure by: write a larger datasets"
    with pytest.raises(UserError, match=sentence):
        images.reference(few, SETTINGS, tmp_path / "known.npz", None, "not asked for")
    assert not (tmp_path / "known.npz").exists()


def test_sets_too_small_for_inception_are_refused_before_anything_is_computed(arrays, tmp_path):
    with pytest.raises(UserError, match=r"45 images, a half of those in .*train.npy, are too few.*inception: false"):
        images.reference(arrays["train"], SETTINGS, tmp_path / "known.npz", tmp_path / "weights.pth", "")
    with pytest.raises(UserError, match=r"60 samples are too few.*write more at branches.*images.samples"):
        images.by_inception(None, {}, None, SETTINGS, 10, (-1.0, 1.0))
    assert not (tmp_path / "known.npz").exists()


@pytest.mark.parametrize("harmed", ["train", "test", "other", "known"])
def test_damaged_arrays_are_one_sentence(harmed, arrays, image_row, tmp_path):
    train("faces", image_row, arrays["train"], tmp_path / "model", tmp_path / "state" / "faces")
    files = arrays | {"known": tmp_path / "known.npz"}
    images.reference(arrays["train"], SETTINGS, files["known"], None, "not asked for")
    content = files[harmed].read_bytes()
    files[harmed] = tmp_path / f"harmed{files[harmed].suffix}"
    # Cut, and, of an npz, in the middle of a member's bytes.
    middle = len(content) // 2
    harms = [content[:middle], content[:middle] + bytes(8) + content[middle + 8 :] if harmed == "known" else b""]
    for harm in harms:
        files[harmed].write_bytes(harm)
        with pytest.raises(UserError, match=r"harmed\.np[yz] .*: delete it, and make it again with 'snakemake "):
            images.evaluate(
                "faces", tmp_path / "model", SETTINGS, {}, files["known"], None, "not asked for", files["train"],
                files["test"], files["other"],
            )  # fmt: skip


def test_floors_are_of_images_from_the_whole_file_and_not_of_its_beginning(tmp_path):
    """The first half of the file is dark, the second bright: halves drawn at random are alike all the same."""
    pixels = np.random.default_rng(0).integers(0, 64, (400, 3, 32, 32)).astype(np.uint8)
    pixels[200:] += 190
    write(ROW, tmp_path / "train.npy", pixels)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.pyramid, "distances", lambda a, b, *_: seen.append((a, b)) or {"swd": 0.0})
        images.reference(tmp_path / "train.npy", SETTINGS, tmp_path / "known.npz", None, "not asked for")
    for some in seen[0]:
        bright = float((some.float().mean((1, 2, 3)) > 128).double().mean())
        assert len(some) == 40 and 0.25 < bright < 0.75


@pytest.mark.parametrize(("samples", "counts"), [(60, [45, 45]), (30, [30, 60])])
def test_floors_are_of_as_many_images_as_there_will_be_samples(samples, counts, small_net, arrays, tmp_path):
    """A Fréchet distance is the larger the fewer there are."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "distances", lambda *sets, **_: seen.append([some.count for some in sets[:2]]) or {})
        images.reference(
            arrays["train"], SETTINGS | {"samples": samples}, tmp_path / "known.npz", tmp_path / "weights.pth", ""
        )
    assert seen == [counts]
    with np.load(tmp_path / "known.npz") as known:
        assert int(known["inception_count"]) == 90


def test_samples_are_said_to_vary_as_the_images_that_were_trained_on(arrays, image_row, tmp_path):
    """And not as those that are held out, which may vary less."""
    train("faces", image_row, arrays["train"], tmp_path / "model", tmp_path / "state" / "faces")
    images.reference(arrays["train"], SETTINGS, tmp_path / "known.npz", None, "not asked for")
    found = []
    for name in ("test", "flat"):
        held_out = tmp_path / f"{name}.npy"
        pixels = np.load(arrays["test"])
        write(ROW, held_out, pixels if name == "test" else pixels // 8)
        targets = {"metrics": tmp_path / f"{name}.csv", "evidence": tmp_path / f"{name}.npz"}
        images.evaluate(
            "faces", tmp_path / "model", SETTINGS, targets, tmp_path / "known.npz", None, "not asked for",
            arrays["train"], held_out, None,
        )  # fmt: skip
        found.append(pd.read_csv(targets["metrics"]).groupby("metric")["value"].mean()["spread"])
    assert found[0] == found[1]
    of_samples = []
    for seed in image_row["seeds"]:
        _, generator = load(tmp_path / "model", seed)
        batch = image_row["schedule"]["batch"]
        drawn = draw_samples(generator, 40, batch, torch.Generator().manual_seed(SETTINGS["seed"]))
        of_samples.append(float(drawn.flatten(1).var(0).sum()))
    stored = torch.from_numpy(np.load(arrays["train"]).astype(np.float32)) / 127.5 - 1
    # Of the 90 images there 40 are looked at; all vary alike.
    assert found[0] == pytest.approx(np.mean(of_samples) / float(stored.flatten(1).var(0).sum()), rel=0.02)


def test_the_nearest_image_is_found_among_all_parts_of_the_file(monkeypatch):
    stored = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), np.uint8)
    wanted = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (20, 3, 32, 32), np.uint8))
    wanted[0] = torch.from_numpy(stored[49])
    distance, rows = images.features.nearest(images.small(wanted), images.small(torch.from_numpy(stored)))
    monkeypatch.setattr(images, "PART", 7)
    in_parts, rows_in_parts = images.nearest(wanted, stored)
    torch.testing.assert_close(in_parts, distance)
    assert rows_in_parts.tolist() == rows.tolist() and rows[0] == 49 and in_parts[0] == 0


def test_weights_that_cannot_be_had_are_one_sentence_and_the_rest_goes_on(arrays, tmp_path, monkeypatch):
    """By the command line: the address answers nothing, and the reference is made all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDGM_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror" / "inception").mkdir(parents=True)
    (file,) = registry.files(registry.INCEPTION)
    (tmp_path / "mirror" / "inception" / file).write_bytes(b"something else")
    folder = tmp_path / "data" / "prepared" / "faces"
    folder.mkdir(parents=True)
    for suffix in (".npy", ".json"):
        (folder / f"train{suffix}").write_bytes(arrays["train"].with_suffix(suffix).read_bytes())
    given = {f"branches.toy.images.{key}": value for key, value in {**SETTINGS, "inception": True}.items()}
    assert cli.main(["reference", "faces", "--branch", "toy", "--params", json.dumps(given)]) == 0
    known = np.load(tmp_path / "results/toy/references/faces.npz")
    absent = str(known["inception_absent"])
    assert file in absent and absent.count("\n") == 0 and "inception_mean" not in known
    assert float(known["swd_floor"]) > 0
    assert not (tmp_path / "data/raw/inception" / file).exists(), "what is not the file is not kept"


def planted(tmp_path, monkeypatch, content):
    """The registry's line of the weights, with the checksum of `content`, which a mirror has."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    files = [
        replace(entry, bytes=len(content), checksum=checksum) if entry.kind == "inception" else entry
        for entry in registry.FILES
    ]
    monkeypatch.setattr(registry, "FILES", tuple(files))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDGM_MIRROR", str(tmp_path / "mirror"))
    (file,) = registry.files(registry.INCEPTION)
    (tmp_path / "mirror" / "inception").mkdir(parents=True)
    (tmp_path / "mirror" / "inception" / file).write_bytes(content)
    return tmp_path / "data/raw/inception" / file


def test_weights_are_fetched_by_the_reference_alone_and_verified_by_whoever_uses_them(tmp_path, monkeypatch):
    file = planted(tmp_path, monkeypatch, b"planted weights")
    relative = file.relative_to(tmp_path)
    assert cli.inception_weights({"inception": False}) == (None, "branches.*.images.inception is false")
    path, absent = cli.inception_weights({"inception": True})
    assert path is None and absent == f"{relative} is missing: get it with 'snakemake {relative}'"
    assert cli.inception_weights({"inception": True}, fetch_them=True) == (relative, "")
    assert cli.inception_weights({"inception": True}) == (relative, "")
    file.write_bytes(b"planted weighty")
    path, absent = cli.inception_weights({"inception": True})
    assert path is None and str(relative) in absent and "remove it" in absent and "\n" not in absent


def test_a_disk_that_fails_is_no_lack_of_weights(tmp_path, monkeypatch):
    file = planted(tmp_path, monkeypatch, b"planted weights")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(UserError, match=r"^the disk is full: .*inception.* could not be written"):
        cli.inception_weights({"inception": True}, fetch_them=True)
    assert not file.exists()


def test_weights_have_a_verb_of_their_own(tmp_path, monkeypatch):
    file = planted(tmp_path, monkeypatch, b"planted weights")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert cli.main(["fetch", "inception", file.name]) == 0
    assert file.read_bytes() == b"planted weights"
    assert cli.main(["fetch", "inception", "other.pth"]) == 1


def test_weights_that_cannot_be_had_can_be_put_in_their_place_by_hand(tmp_path, monkeypatch):
    """They have no row in params.yaml, and so no folder there that a person could name."""
    file = planted(tmp_path, monkeypatch, b"planted weights")
    (tmp_path / "mirror" / "inception" / file.name).unlink()
    relative = file.relative_to(tmp_path)
    _, absent = cli.inception_weights({"inception": True}, fetch_them=True)
    assert f"name the place that has it (DDGM_MIRROR with inception/{file.name} in it)" in absent
    assert "datasets.inception" not in absent
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"planted weights")
    assert cli.inception_weights({"inception": True}, fetch_them=True) == (relative, "")


class Bowl(nn.Module):
    """E(x) = ‖x - c‖²."""

    def __init__(self, centre):
        super().__init__()
        self.centre = centre

    def forward(self, x):
        return (x - self.centre).flatten(1).square().sum(1)


def test_a_descent_goes_down_by_known_steps_and_stays_within_the_range():
    x = torch.full((1, 3, 8, 8), -0.5)
    shown, energy, steps = images.descend(Bowl(torch.full((3, 8, 8), 0.5)), x, 14, 0.05, (-1.0, 1.0))
    assert steps == [0, 2, 4, 6, 8, 10, 12, 14] and shown.shape == (1, 8, 3, 8, 8)
    # Every pixel moves by the rate, straight to the centre.
    expected = [3 * 64 * (1 - 0.05 * step) ** 2 for step in range(15)]
    np.testing.assert_allclose(energy[0], expected, rtol=1e-4)
    torch.testing.assert_close(shown[0, -1], torch.full((3, 8, 8), 0.2))
    outside, _, _ = images.descend(Bowl(torch.full((3, 8, 8), 9.0)), x, 60, 0.05, (-1.0, 1.0))
    torch.testing.assert_close(outside[0, -1], torch.ones(3, 8, 8))


def test_the_plane_goes_through_the_three_images():
    corners = torch.rand(3, 3, 8, 8)
    centre = corners[1].clone()
    found = images.plane(Bowl(centre), corners, 41)
    places = found["slice_places"]
    distances = torch.pdist(corners.flatten(1)) / (3 * 64) ** 0.5
    np.testing.assert_allclose(torch.pdist(torch.from_numpy(places)), distances, rtol=1e-4)
    # In the plane the bowl is round about the image that it is centred on, whose energy is 0.
    a, b = np.meshgrid(found["slice_axis_a"], found["slice_axis_b"])
    expected = 3 * 64 * ((a - places[1, 0]) ** 2 + (b - places[1, 1]) ** 2)
    np.testing.assert_allclose(found["slice_energy"], expected, rtol=1e-3, atol=1e-3)


def test_copies_of_training_images_are_called_memorised():
    pool = torch.randint(0, 256, (200, 3, 32, 32), dtype=torch.uint8)
    held_out = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    known = images.small(pool)
    copied, _ = images.features.nearest(images.small(pool[:50]), known)
    fresh, _ = images.features.nearest(images.small(held_out), known)
    assert features.memorisation(copied, fresh)["memorised"] == 1
    assert features.memorisation(fresh, fresh)["memorised"] <= 0.02


def test_grain_is_sharper_and_a_flat_image_is_not():
    flat = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    grain = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert images.sharpness(grain, grain) == pytest.approx(1)
    assert images.sharpness(flat, grain) == 0
