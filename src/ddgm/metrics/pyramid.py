"""Sliced Wasserstein distance between Laplacian pyramids: how alike two sets of images are, scale by scale.

After Karras et al. (2018): an image is split into bands, each half as wide as the one before, patches of a band are
points, and sets of points are compared along random directions. No trained weights are needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 7  # pixels a side
COARSEST = 16  # pixels a side of the last band, where halving leads there
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
AT_ONCE = 64  # directions that are sorted at once


def blurred(x: Tensor, gain: float = 1.0) -> Tensor:
    """x (n, C, H, W) with each channel blurred by the 5x5 binomial kernel, times `gain`."""
    line = torch.tensor(BINOMIAL) / sum(BINOMIAL)
    kernel = gain * torch.outer(line, line).expand(x.shape[1], 1, 5, 5).contiguous()
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def smaller(x: Tensor) -> Tensor:
    """Half the height and width, blurred first."""
    return blurred(x)[:, :, ::2, ::2]


def larger(x: Tensor) -> Tensor:
    """Twice the height and width: pixels set apart and blurred, which fills the gaps."""
    apart = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    apart[:, :, ::2, ::2] = x
    return blurred(apart, 4.0)


def bands(x: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of images (n, C, H, W): what each halving loses, and the smallest image itself."""
    result = []
    while x.shape[-1] > COARSEST and x.shape[-1] % 2 == 0:
        small = smaller(x)
        result.append(x - larger(small))
        x = small
    return [*result, x]


def patches(band: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """`count` patches of each image (n, C, H, W) at random places, (n * count, C * 49), each channel standardised."""
    n, _, height, width = band.shape
    top = torch.randint(height - PATCH + 1, (n * count, 1, 1), generator=stream)
    left = torch.randint(width - PATCH + 1, (n * count, 1, 1), generator=stream)
    image = torch.arange(n).repeat_interleave(count).view(-1, 1, 1)
    rows, columns = top + torch.arange(PATCH).view(1, -1, 1), left + torch.arange(PATCH).view(1, 1, -1)
    # An index for each of image, row and column puts the channels last.
    cut = band.permute(0, 2, 3, 1)[image, rows, columns]
    centred = cut - cut.mean((0, 1, 2))
    return (centred / centred.square().mean((0, 1, 2)).sqrt().clamp_min(1e-8)).flatten(1)


def colours(x: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """`count` pixels of each image (n, C, H, W) at random places, as they are: (n * count, C)."""
    places = torch.randint(x[0, 0].numel(), (len(x), 1, count), generator=stream)
    return x.flatten(2).gather(2, places.expand(-1, x.shape[1], -1)).mT.flatten(0, 1)


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int, stream: torch.Generator) -> float:
    """Mean over random directions of the 1-Wasserstein distance of two sets of as many points (n, d)."""
    directions = F.normalize(torch.randn(projections, a.shape[1], generator=stream), dim=1)
    total = 0.0
    for some in directions.split(AT_ONCE):
        along = [(some @ points.T).sort(1).values for points in (a, b)]
        total += float((along[0] - along[1]).abs().mean(1).sum())
    return total / projections


def distances(a: Tensor, b: Tensor, settings: dict, seed: int) -> dict[str, float]:
    """`swd_64`, `swd_32`, ...: the distance of each band, times 1,000 as in the literature, and `swd`, their mean.

    These have each channel standardised, and do not see brightness, contrast or a cast. `swd_colours` does: the same
    distance of single pixels of the smallest images.

    a, b: as many uint8 images (n, C, H, W). settings: `patches` an image and `projections`. Both sets are cut at the
    same places, so that a set is at distance 0 from itself and what is left is in the images.
    """
    stream = torch.Generator().manual_seed(seed)
    pairs = list(zip(*(bands(x.float() / 127.5 - 1) for x in (a, b)), strict=True))

    def distance(cut: Callable[[Tensor, int, torch.Generator], Tensor], pair: tuple[Tensor, Tensor]) -> float:
        points = [cut(band, settings["patches"], torch.Generator().manual_seed(seed)) for band in pair]
        return 1000 * sliced_wasserstein(*points, settings["projections"], stream)

    values = {f"swd_{pair[0].shape[-1]}": distance(patches, pair) for pair in pairs}
    return values | {"swd": sum(values.values()) / len(values), "swd_colours": distance(colours, pairs[-1])}
