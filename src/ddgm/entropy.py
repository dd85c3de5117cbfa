"""The generator's entropy H(G), the second term of Eq. 13: one function an estimator, all in nats.

Each takes the generator's batch-norm scales (S, A) and its samples (S, N, *shape) and gives S entropies, one a
seed; what an estimator does not need it ignores. `ENTROPIES` holds them by the name params.yaml uses.
"""

import math

import torch
from scipy.special import digamma
from torch import Tensor


def gaussian_entropy(scales: Tensor) -> Tensor:
    """½ log(2πe σ_a²), the entropy of N(µ_a, σ_a) for each activation a: the summand of Eq. 15."""
    return 0.5 * math.log(2 * math.pi * math.e) + scales.abs().log()


def batch_norm_sum(scales: Tensor, samples: Tensor, row: dict) -> Tensor:
    """Eq. 15 as printed: the sum over all batch-norm activations of the generator."""
    return gaussian_entropy(scales).sum(1)


def batch_norm_mean(scales: Tensor, samples: Tensor, row: dict) -> Tensor:
    """Eq. 15 with the mean in place of the sum, as in several of the lab's own experiments."""
    return gaussian_entropy(scales).mean(1)


def nearest_neighbour(scales: Tensor, samples: Tensor, row: dict) -> Tensor:
    """Kozachenko and Leonenko (1987): d E[log r_k] + log V_d + ψ(N) - ψ(k), from the batch alone.

    r_k is the distance to the k-th neighbour (`neighbours`), d the dimension of the set the samples fill
    (`dimensions`: that of x in 2D, at most that of z for images), V_d the volume of its unit ball.
    """
    d, k = row["dimensions"], row["neighbours"]
    flat = samples.flatten(2)
    with torch.no_grad():
        neighbour = torch.cdist(flat, flat).topk(k + 1, dim=2, largest=False).indices[:, :, k]
    index = neighbour.unsqueeze(2).expand(-1, -1, flat.shape[2])
    # Differentiated through the k-th neighbour only: the same gradient as through all N² distances, at N.
    log_distance = 0.5 * (flat - flat.gather(1, index)).square().sum(2).clamp_min(1e-12).log()
    log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return d * log_distance.mean(1) + log_ball + float(digamma(flat.shape[1]) - digamma(k))


def none(scales: Tensor, samples: Tensor, row: dict) -> Tensor:
    """No entropy term: the generator follows the energy downhill alone (the ablation of section 3.2)."""
    return samples.new_zeros(samples.shape[0])


ENTROPIES = {f.__name__: f for f in (batch_norm_sum, batch_norm_mean, nearest_neighbour, none)}
