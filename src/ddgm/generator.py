"""The generator G(z): z ~ U(-1, 1) in, a sample x out, fully connected or convolutional (section 3.2).

Batch normalisation stands in the generator only, and its scales are what Eq. 15 reads the entropy from. It uses
the statistics of the batch also when sampling, as the lab did.
"""

import math

import torch
from torch import Tensor, nn

from ddgm.energy import ACTIVATIONS, Noise, start_weights, widened


class BatchNorm(nn.Module):
    """Batch normalisation by the batch's own mean and variance, in training and in sampling alike.

    (N, C) or (N, C, H, W) in and out. `scale` is σ_a of Eq. 15 and starts at 1; `shift` is μ_a; the lab starts
    it at 0.1 for convolutions. No running averages: the generator has one behaviour. Of activations in bfloat16
    the statistics are float32.
    """

    def __init__(self, channels: int, shift: float = 0.0, eps: float = 1e-8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.full((channels,), shift))
        self.eps = eps

    def forward(self, a: Tensor) -> Tensor:
        a = widened(a)
        variance, mean = torch.var_mean(a, dim=(0, *range(2, a.dim())), correction=0, keepdim=True)
        per_channel = (1, -1) + (1,) * (a.dim() - 2)
        gain = self.scale.view(per_channel) * torch.rsqrt(variance + self.eps)
        return (a - mean) * gain + self.shift.view(per_channel)


def dense_generator(latent: int, widths: list[int], shape: tuple[int, ...], row: dict) -> nn.Sequential:
    """Fully connected: (N, latent) -> (N, *shape), batch norm before each hidden activation."""
    layers: list[nn.Module] = []
    inputs = latent
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=False), Noise(row["noise"]), BatchNorm(width, row["shift"])]
        layers.append(ACTIVATIONS[row["activation"]]())
        inputs = width
    layers += [nn.Linear(inputs, math.prod(shape)), ACTIVATIONS[row["output"]](), nn.Unflatten(1, shape)]
    return nn.Sequential(*layers)


def convolutional_generator(latent: int, widths: list[int], shape: tuple[int, ...], row: dict) -> nn.Sequential:
    """Linear to widths[0] maps, then 5x5 transposed convolutions of stride 2: (N, latent) -> (N, C, H, W).

    Each transposed convolution doubles height and width, and the last one gives the image: with the lab's widths
    1024-512-256-128 and 64x64 pixels, 4x4 maps come first.
    """
    channels, height, width = shape
    small = 2 ** len(widths)
    start = (widths[0], height // small, width // small)
    layers: list[nn.Module] = [nn.Linear(latent, math.prod(start), bias=False), nn.Unflatten(1, start)]
    for layer, (maps, next_maps) in enumerate(zip(widths, [*widths[1:], channels], strict=True), start=1):
        layers += [Noise(row["noise"]), BatchNorm(maps, row["shift"]), ACTIVATIONS[row["activation"]]()]
        # A bias that batch norm would take away again is left out.
        last = layer == len(widths)
        layers.append(nn.ConvTranspose2d(maps, next_maps, 5, stride=2, padding=2, output_padding=1, bias=last))
    layers.append(ACTIVATIONS[row["output"]]())
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """x = G(z), deterministic in z given the batch: (N, latent) -> (N, *shape)."""

    def __init__(self, net: nn.Module, latent: int) -> None:
        super().__init__()
        self.net = net
        self.latent = latent

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


def prior(n: int, latent: int, stream: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """z ~ P(z) = U(-1, 1) of section 3.2, (n, latent), drawn from `stream`, which lives on `device`."""
    return torch.empty(n, latent, device=device).uniform_(-1, 1, generator=stream)


def build_generator(row: dict, shape: tuple[int, ...]) -> Generator:
    """The generator that an experiment's `generator` row describes, for samples of `shape`, with fresh weights."""
    build = {"dense": dense_generator, "convolutional": convolutional_generator}[row["kind"]]
    generator = Generator(build(row["latent"], row["hidden"], shape, row), row["latent"])
    start_weights(generator, row["start"])
    return generator
