"""Whether batch norm makes a generator's activations normal, as section 3.2 says and Eq. 15 takes for granted."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import differential_entropy
from torch import Tensor, nn

from ddgm.generator import BatchNorm, Generator, prior

Array = NDArray[np.float64]
COUNT = 20_000  # z, or a few more


def negentropy(values: Array) -> Array:
    """½ log(2πe var a) - H(a) in nats, (n, A) -> (A,): 0 for a normal a, ½ log(πe/6) = 0.18 for a uniform one.

    How far the summand of Eq. 15 lies above an activation's own entropy, whatever its mean and variance. The entropy
    is Vasicek's (1976), by spacings, which is at most a hundredth too low for 10,000 values or more. Infinite where one
    value comes again and again, which has no density; of a constant there is no number, and NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = (values - values.mean(0)) / values.std(0)
        return 0.5 * math.log(2 * math.pi * math.e) - differential_entropy(standard, method="vasicek")


@torch.no_grad()
def batch_norm_activations(generator: Generator, batch: int, stream: torch.Generator) -> Array:
    """The values a_i that every batch norm of a dense generator gives, of COUNT z: (n, A)."""
    given: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        given.append(output)

    handles = [layer.register_forward_hook(keep) for layer in generator.modules() if isinstance(layer, BatchNorm)]
    values = []
    for _ in range(-(-COUNT // batch)):
        generator(prior(batch, generator.latent, stream))
        values.append(torch.cat(given, 1))
        given.clear()
    for handle in handles:
        handle.remove()
    return torch.cat(values).double().numpy()


def normality(generator: Generator, batch: int, stream: torch.Generator) -> dict[str, float]:
    """`negentropy`, the mean over a generator's batch-norm activations, and `negentropy_largest` among them.

    Those that are constant are left out.
    """
    found = negentropy(batch_norm_activations(generator, batch, stream))
    return {"negentropy": float(np.nanmean(found)), "negentropy_largest": float(np.nanmax(found))}
