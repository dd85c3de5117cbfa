"""The generator's entropy H(G), the second term of Eq. 13: one function an estimator, all in nats.

Each takes what the generator has just drawn and gives S entropies, one a seed. `ENTROPIES` holds them by the name
params.yaml uses.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from scipy.special import digamma
from torch import Tensor

from ddgm.neighbours import log_distances
from ddgm.row import neighbour_numbers


class Draw(NamedTuple):
    """Samples x = G(z) on the graph of the generator's weights, and what an estimator may ask beside them."""

    scales: Tensor  # (S, A), every batch-norm scale
    samples: Tensor  # x, of the batch and the references, (S, N, *shape)
    latent: Tensor  # z, (S, N, latent)
    generate: Callable[[Tensor], Tensor]  # G, (S, n, latent) -> (S, n, *shape)


def gaussian_entropy(scales: Tensor) -> Tensor:
    """½ log(2πe σ_a²), the entropy of N(µ_a, σ_a) for each activation a: the summand of Eq. 15."""
    return 0.5 * math.log(2 * math.pi * math.e) + scales.abs().log()


def batch_norm_sum(draw: Draw, row: dict[str, Any]) -> Tensor:
    """Eq. 15 as printed: the sum over all batch-norm scales of the generator, of a convolution one a map."""
    return gaussian_entropy(draw.scales).sum(1)


def batch_norm_mean(draw: Draw, row: dict[str, Any]) -> Tensor:
    """Eq. 15 with the mean in place of the sum, as in several of the lab's own experiments."""
    return gaussian_entropy(draw.scales).mean(1)


def nearest_neighbour(draw: Draw, row: dict[str, Any]) -> Tensor:
    """Kozachenko and Leonenko (1987): d E[log r_k] + log V_d + ψ(N) - ψ(k).

    r_k is the distance to the k-th neighbour (`neighbours`) among the batch and the `references`, N in all, all of
    them measured and with a gradient: the more there are, the less a neighbour's distance smooths the density. d is the
    dimension of the set the samples fill (`dimensions`: that of x in 2D, at most that of z for images), V_d the
    volume of its unit ball. Where `neighbours` are several, the mean over them: one neighbour alone pushes a sample
    in one direction, which the next draw turns.
    """
    d, numbers = row["dimensions"], neighbour_numbers(row)
    flat = draw.samples.flatten(2)
    log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return (
        d * log_distances(flat, flat, numbers).mean((1, 2))
        + log_ball
        + float(digamma(flat.shape[1]) - digamma(numbers).mean())
    )


def variational(draw: Draw, row: dict[str, Any]) -> Tensor:
    """The entropy of x + N(0, sd²) by importance sampling of the latents behind each x (VERA, Grathwohl et al. 2021).

    The score of the blurred samples is ∇ log q(x) = E[(G(z') - x)/sd²] over z' ~ q(z'|x). `proposals` z' are drawn
    from N(z, width²) about the z that x was made with, and weighted by p(z') q(x|z') over the proposal's density. The
    value is that of the same weights' estimate of log q, the gradient -E[∇ log q(x) · ∂x/∂φ].
    """
    sd, width, proposals = row["sd"], row["width"], row["proposals"]
    noise = torch.randn_like(draw.samples)
    x = draw.samples + sd * noise
    seeds, n, latent = draw.latent.shape
    d = noise[0, 0].numel()
    with torch.no_grad():
        step = torch.randn(seeds, n, proposals, latent, device=x.device)
        near = draw.latent.unsqueeze(2) + width * step
        made = draw.generate(near.flatten(1, 2)).view(seeds, n, proposals, d)
        away = (made - x.flatten(2).unsqueeze(2)) / sd
        inside = (near.abs() <= 1).all(3)
        # log p(z') = -latent · log 2 inside the prior's box; the proposal's density is N(step; 0, 1) / width^latent.
        log_weight = 0.5 * (step.square().sum(3) - away.square().sum(3)) + torch.where(inside, 0.0, -torch.inf)
        # The z that made x is there too: without it every proposal may lie outside the box.
        own = -0.5 * noise.flatten(2).square().sum(2, keepdim=True)
        log_weight, away = torch.cat([log_weight, own], 2), torch.cat([away, -noise.view(seeds, n, 1, d)], 2)
        score = (torch.softmax(log_weight, 2).unsqueeze(3) * away).sum(2).view_as(x) / sd
        constant = latent * math.log(width * math.sqrt(math.pi / 2)) - d * math.log(sd * math.sqrt(2 * math.pi))
        value = -(torch.logsumexp(log_weight, 2) - math.log(proposals + 1) + constant).mean(1)
    through = -(score * x).flatten(2).sum(2).mean(1)
    return value + through - through.detach()


def none(draw: Draw, row: dict[str, Any]) -> Tensor:
    """No entropy term: the generator follows the energy downhill alone (the ablation of section 3.2)."""
    return draw.samples.new_zeros(draw.samples.shape[0])


ENTROPIES = {f.__name__: f for f in (batch_norm_sum, batch_norm_mean, nearest_neighbour, variational, none)}
