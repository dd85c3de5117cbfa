"""Distances by Inception: pytorch-fid's net on weights that were planted, and distances that are known."""

import pickle
import re

import numpy as np
import pytest
import torch
from pytorch_fid import inception as pytorch_fid

from ddgm import progress
from ddgm.errors import UserError
from ddgm.metrics import inception
from ddgm.metrics.inception import FEATURES, Inception, Statistics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file like pytorch-fid's, of a net with random weights: made by its own code, which is kept from the network."""
    made = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, *_, **__: made.update(self.state_dict()))
        pytorch_fid.fid_inception_v3()
    path = tmp_path_factory.mktemp("inception") / "planted.pth"
    torch.save(made, path)
    return path


def pictures(n, seed=0):
    return torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_features_are_pytorch_fids_on_the_weights_that_lie_here(weights):
    net = Inception(weights, CPU)
    found = net.features(pictures(3))
    assert found.shape == (3, FEATURES) and found.dtype == torch.float32
    state = torch.load(weights, weights_only=True)
    torch.testing.assert_close(net.net.state_dict()["blocks.0.0.conv.weight"], state["Conv2d_1a_3x3.conv.weight"])
    with torch.no_grad():
        expected = net.net(pictures(3).float() / 255)[0].flatten(1)
    torch.testing.assert_close(found, expected)
    # A picture's features do not depend on the others'.
    torch.testing.assert_close(net.features(pictures(3)[1:2]), found[1:2], rtol=1e-4, atol=1e-5)


def test_features_are_not_rounded_to_tf32(weights):
    net, seen = Inception(weights, CPU), []
    net.net.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    net.features(pictures(2))
    assert seen == [False] and torch.backends.cudnn.allow_tf32 == before


def test_nothing_is_fetched_from_the_network(weights, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    asked = pytorch_fid.load_state_dict_from_url
    for module, name in ((torch.hub, "download_url_to_file"), (torch.hub, "load_state_dict_from_url")):
        monkeypatch.setattr(module, name, refuse)
    Inception(weights, CPU)
    assert pytorch_fid.load_state_dict_from_url is asked, "pytorch-fid is left as it was"
    with pytest.raises(FileNotFoundError):
        Inception(weights.with_name("missing.pth"), CPU)


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code in the file of weights was run",))


def test_a_file_of_weights_runs_no_code(tmp_path):
    torch.save(Code(), tmp_path / "planted.pth")
    with pytest.raises(pickle.UnpicklingError):
        Inception(tmp_path / "planted.pth", CPU)


def test_too_few_images_are_refused_in_one_sentence():
    inception.require_enough(2048, "samples", "write more")
    with pytest.raises(UserError, match=r"^2047 samples are too few for a Fréchet distance, .* as many: write more$"):
        inception.require_enough(2047, "samples", "write more")


def test_statistics_in_parts_are_those_of_all_and_say_how_far_they_are(monkeypatch, caplog):
    """With a net whose features are known, and as few of them."""
    caplog.set_level("INFO", "ddgm")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    monkeypatch.setattr(inception, "FEATURES", 4)
    monkeypatch.setattr(inception, "KEPT", 25)
    net = Inception.__new__(Inception)
    net.features = lambda pixels: pixels[:, 0, 0, :4].float()
    images = pictures(40)
    found = net.statistics(images.split(15), len(images), "images")
    values = images[:, 0, 0, :4].double().numpy()
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(values, rowvar=False), rtol=1e-10)
    assert found.count == 40 and found.some.shape == (25, 4)
    steps = [re.sub(r"[0-9.]+/s", "fast", line) for line in caplog.messages]
    assert steps == [f"Inception's features: image {done}/40, fast, images" for done in (15, 30, 40)]
    again = inception.from_arrays(inception.as_arrays(found))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_statistics_of_two_halves_together_are_those_of_all(monkeypatch):
    monkeypatch.setattr(inception, "FEATURES", 4)
    monkeypatch.setattr(inception, "KEPT", 30)
    net = Inception.__new__(Inception)
    net.features = lambda pixels: pixels[:, 0, 0, :4].float()
    images = pictures(50)
    found = inception.merged(*(net.statistics([part], len(part), "part") for part in images.split(30)))
    values = images[:, 0, 0, :4].double().numpy()
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(values, rowvar=False), rtol=1e-10)
    assert found.count == 50
    # Half of what is kept comes from each.
    torch.testing.assert_close(found.some, images[[*range(15), *range(30, 45)], 0, 0, :4].float())


def gaussian(mean, scale, n=3000, d=16, seed=0):
    points = mean + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Statistics(np.full(d, float(mean)), np.eye(d) * scale**2, points, n)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (2.0, 1.0), (0.0, 3.0), (1.0, 0.5)])
def test_the_frechet_distance_of_gaussians_is_known(mean, scale):
    """‖µ - µ'‖² + d (s - s')²."""
    found = inception.frechet(gaussian(mean, scale), gaussian(0.0, 1.0))
    assert found == pytest.approx(16 * (mean**2 + (scale - 1) ** 2), abs=1e-6)


def test_samples_that_are_all_alike_have_a_frechet_distance():
    """A collapsed generator's covariance is singular: ‖µ - µ'‖² + tr(Σ)."""
    collapsed = Statistics(np.full(16, 2.0), np.zeros((16, 16)), torch.full((100, 16), 2.0), 100)
    for pair in ((collapsed, gaussian(0.0, 1.0)), (gaussian(0.0, 1.0), collapsed)):
        assert inception.frechet(*pair) == pytest.approx(16 * (2.0**2 + 1), abs=1e-3)


@pytest.fixture
def few_subsets(monkeypatch):
    """A fifth of the subsets that KID is the mean of: a tenth of a second each."""
    monkeypatch.setattr(inception, "SUBSETS", 20)


def test_distances_of_alike_and_of_distant_features(few_subsets):
    alike = inception.distances(gaussian(0.0, 1.0), gaussian(0.0, 1.0, seed=1), 3, 0)
    assert set(alike) == {"fid", "kid", "inception_precision", "inception_recall"}
    assert abs(alike["kid"]) < 0.01 and alike["inception_precision"] > 0.7 and alike["inception_recall"] > 0.7
    apart = inception.distances(gaussian(20.0, 1.0), gaussian(0.0, 1.0), 3, 0)
    assert apart["kid"] > 10 and apart["inception_precision"] == apart["inception_recall"] == 0


def test_a_narrow_set_is_precise_and_recalls_little(few_subsets):
    found = inception.distances(gaussian(0.0, 0.3), gaussian(0.0, 1.0, seed=1), 3, 0)
    assert found["inception_precision"] > 0.9 and found["inception_recall"] < 0.1
