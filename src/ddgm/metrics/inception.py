"""Fréchet and kernel distance, precision and recall in Inception's feature space, by pytorch-fid and torch-fidelity.

The net and its weights are pytorch-fid's, which the published distances are computed with. The weights are fetched like
a data set; where they cannot be had, what needs them is left out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytorch_fid.inception
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from ddgm.device import choose_device
from ddgm.errors import UserError
from ddgm.progress import Progress

FEATURES = 2048
FEWEST = FEATURES  # images below which a covariance of the features has no full rank
KEPT = 10_000  # features that kernel distance, precision and recall are computed on
SUBSET, SUBSETS = 1000, 100  # of the kernel distance, as torch-fidelity has them
BATCH = 50


class Statistics(NamedTuple):
    """The features of a set of images, as its distances need them."""

    mean: np.ndarray  # (2048,)
    covariance: np.ndarray  # (2048, 2048)
    some: Tensor  # (at most KEPT, 2048)
    count: int


def require_enough(count: int, what: str, advice: str) -> None:
    """UserError where a set of images is too small for its distances."""
    if count < FEWEST:
        raise UserError(
            f"{count} {what} are too few for a Fréchet distance, for the covariance of {FEATURES} features needs at "
            f"least as many: {advice}"
        )


class Inception:
    """pytorch-fid's net, with weights from a file that has been verified."""

    def __init__(self, weights: Path, device: torch.device | None = None) -> None:
        self.device = device or choose_device("auto")
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # pytorch-fid has no argument for its weights: it asks torch.hub, and that the network.
        with patch.object(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state):
            self.net = pytorch_fid.inception.InceptionV3().to(self.device).eval()

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, H, W) -> (n, 2048), on a GPU too in float32 and not in TF32."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = [self.net(part.to(self.device).float() / 255)[0] for part in pixels.split(BATCH)]
        return torch.cat([values.squeeze(3).squeeze(2).cpu() for values in found])

    def statistics(self, parts: Iterable[Tensor], images: int, what: str) -> Statistics:
        """Of uint8 `images` that come in parts (n, 3, H, W): sums run in double precision, not all images are held.

        Says now and then how far it is with `what`, for a CPU takes hours.
        """
        count, total, product = 0, np.zeros(FEATURES), np.zeros((FEATURES, FEATURES))
        some: list[Tensor] = []
        with Progress("Inception's features", images, unit="image") as progress:
            for pixels in parts:
                found = self.features(pixels)
                values = found.double().numpy()
                count, total, product = count + len(values), total + values.sum(0), product + values.T @ values
                if sum(map(len, some)) < KEPT:
                    some.append(found)
                progress.show(count, what)
        mean = total / count
        covariance = (product - count * np.outer(mean, mean)) / (count - 1)
        return Statistics(mean, covariance, torch.cat(some)[:KEPT], count)


def merged(a: Statistics, b: Statistics) -> Statistics:
    """Of two sets of images taken together, from those of each: no image is looked at again."""
    count, apart = a.count + b.count, a.mean - b.mean
    squares = (a.count - 1) * a.covariance + (b.count - 1) * b.covariance
    squares = squares + a.count * b.count / count * np.outer(apart, apart)
    mean = (a.count * a.mean + b.count * b.mean) / count
    some = torch.cat([part.some[: KEPT // 2] for part in (a, b)])
    return Statistics(mean, squares / (count - 1), some, count)


def frechet(a: Statistics, b: Statistics) -> float:
    """FID: ‖µ - µ'‖² + tr(Σ + Σ' - 2 (ΣΣ')^½)."""
    return float(calculate_frechet_distance(a.mean, a.covariance, b.mean, b.covariance))


def distances(samples: Statistics, data: Statistics, neighbours: int, seed: int) -> dict[str, float]:
    """`fid`, `kid` (the mean over subsets), `inception_precision` and `inception_recall` by the k-th neighbours."""
    size = min(SUBSET, len(samples.some), len(data.some))
    kernel = kid_features_to_metric(
        samples.some, data.some, kid_subsets=SUBSETS, kid_subset_size=size, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, kid_kernel_rbf_sigma=10.0, mmd_est="unbiased",
        rng_seed=seed, verbose=False,
    )  # fmt: skip
    overlap = prc_features_to_metric(
        samples.some, data.some, prc_neighborhood=neighbours, prc_batch_size=KEPT, save_cpu_ram=True, verbose=False
    )
    return {
        "fid": frechet(samples, data),
        "kid": float(kernel[KEY_METRIC_KID_MEAN]),
        "inception_precision": overlap[KEY_METRIC_PRECISION],
        "inception_recall": overlap[KEY_METRIC_RECALL],
    }


def as_arrays(statistics: Statistics) -> dict[str, Any]:
    """For an npz."""
    return statistics._asdict() | {"some": statistics.some.numpy()}


def from_arrays(arrays: Any) -> Statistics:
    """As `as_arrays` wrote them."""
    return Statistics(arrays["mean"], arrays["covariance"], torch.from_numpy(arrays["some"]), int(arrays["count"]))
