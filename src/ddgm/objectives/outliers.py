"""Outliers that the energy is shown, and how far above the data it is to hold them. Not in the paper; ours.

A generator that draws whole figures shows the energy nothing else, and what it has never seen it does not tell from
data. Two samples spliced, one of them turned, are strokes as the data's and wrong as a whole: outliers near the data
that need no other data set (as outlier exposure does, Hendrycks et al. 2019); samples with noise on them are outliers
that are rougher than the data, where samples alone are smoother. Past the margin they no longer pull.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

EDGE = 0.7  # pixels: how fast a splice goes from one sample to the other, about as a stroke ends


def outliers(row: dict[str, Any], samples: int) -> int:
    """How many outliers a `negative` of params.yaml adds to so many samples of the generator."""
    return round(row.get("share", 0.0) * samples)


def outlier_loss(energy_outliers: Tensor, energy_data: Tensor, margin: float) -> Tensor:
    """E[softplus(margin - (E(x_o) - E[E(x+)]))], near 0 where outliers lie far enough: (S, M), (S, N) -> (S,)."""
    return softplus(margin - (energy_outliers - energy_data.mean(1, keepdim=True))).mean(1)


def spliced(x: Tensor, others: Tensor, chance: Tensor, offset: float) -> Tensor:
    """x on one side of a line and `others`, turned or mirrored, on the other: (S, M, C, side, side) both -> the same.

    `chance` (S, M, 3) from 0 to 1 says the line's direction, how far from the picture's middle it lies, -`offset` to
    `offset` pixels, and which of the square's eight symmetries `others` go through.
    """
    direction, place, turn = chance.unbind(2)
    mask = half_planes(2 * torch.pi * direction, offset * (2 * place - 1), x.shape[-2:])
    return torch.lerp(turned(others, (8 * turn).long().clamp(max=7)), x, mask.unsqueeze(2))


def noised(x: Tensor, noise: Tensor, strength: Tensor, limits: tuple[float, float]) -> Tensor:
    """x + strength * noise within the limits of a pixel: x and N(0, 1) (S, M, C, H, W), strength (S, M) -> as x."""
    return (x + strength[..., None, None, None] * noise).clamp(*limits)


def turned(x: Tensor, symmetry: Tensor) -> Tensor:
    """Square pictures (S, M, C, side, side) each by a symmetry of the square, 0 to 7 (S, M): 0 leaves it."""
    for bit, turn in enumerate((lambda y: y.mT, lambda y: y.flip(-1), lambda y: y.flip(-2))):
        x = torch.where((symmetry >> bit & 1).bool()[..., None, None, None], turn(x), x)
    return x


def half_planes(direction: Tensor, offset: Tensor, shape: tuple[int, ...]) -> Tensor:
    """1 on one side of a line and 0 on the other, over the pixels of `shape`: (S, M), (S, M) -> (S, M, H, W).

    The line crosses `direction` (radians; 0 is to the right) at `offset` pixels from the picture's middle.
    """
    y, x = (torch.arange(side, device=direction.device) - (side - 1) / 2 for side in shape)
    direction, offset = direction[..., None, None], offset[..., None, None]
    return torch.sigmoid((direction.sin() * y[:, None] + direction.cos() * x - offset) / EDGE)
