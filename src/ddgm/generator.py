"""The generator G(z): z ~ U(-1, 1) in, a sample x out, fully connected or convolutional (section 3.2).

Batch normalisation stands in the generator only, and its scales are what Eq. 15 reads the entropy from. It uses
the statistics of the batch, when sampling too, as the lab did, unless `statistics` is "fixed".
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddgm.distributed import mean_over_processes
from ddgm.energy import ACTIVATIONS, ChannelsLast, Noise, start_weights, widened

FIXED_OVER = 100  # batches whose mean statistics are the fixed ones


class BatchNorm(nn.Module):
    """Batch normalisation by the batch's own mean and variance, in training and, unless fixed, in sampling too.

    (N, C) or (N, C, H, W) in and out. `scale` is σ_a of Eq. 15 and starts at 1; `shift` is μ_a; the lab starts
    it at 0.1 for convolutions. With `fixed`, evaluation uses the statistics that `fix_statistics` has left in `mean`
    and `variance`. Of activations in bfloat16 the statistics are float32; they are those of all processes' batch.
    """

    def __init__(self, channels: int, shift: float = 0.0, fixed: bool = False, eps: float = 1e-8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.full((channels,), shift))
        self.fixed, self.eps = fixed, eps
        if fixed:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    def statistics(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of a batch, (C,) each."""
        axes = (0, *range(2, a.dim()))
        # Not var_mean, which on a CPU takes ten times as long.
        mean = mean_over_processes(a.mean(axes))
        return mean, mean_over_processes((a - spread_out(mean, a)).square().mean(axes))

    def forward(self, a: Tensor) -> Tensor:
        a = widened(a)
        mean, variance = (self.mean, self.variance) if self.fixed and not self.training else self.statistics(a)
        gain = self.scale * torch.rsqrt(variance + self.eps)
        return (a - spread_out(mean, a)) * spread_out(gain, a) + spread_out(self.shift, a)


def spread_out(value: Tensor, like: Tensor) -> Tensor:
    """A value a channel, (C,), in the shape that broadcasts over (N, C) or (N, C, H, W)."""
    return value.view(1, -1, *[1] * (like.dim() - 2))


@torch.no_grad()
def fix_statistics(generator: "Generator", batch: int, stream: torch.Generator) -> None:
    """Leave in every fixed BatchNorm the mean of its statistics over FIXED_OVER batches of the prior.

    After training, with the weights that are sampled from: running averages would lag behind them, and be those of
    other weights where weights are averaged.
    """
    layers = [layer for layer in generator.modules() if isinstance(layer, BatchNorm) and layer.fixed]
    sums = [(torch.zeros_like(layer.mean), torch.zeros_like(layer.variance)) for layer in layers]

    def add(number: int) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            for total, value in zip(sums[number], layer.statistics(widened(inputs[0])), strict=True):
                total += value

        return hook

    handles = [layer.register_forward_pre_hook(add(number)) for number, layer in enumerate(layers)]
    before = generator.training
    generator.train()
    for _ in range(FIXED_OVER if layers else 0):
        generator(prior(batch, generator.latent, stream, stream.device))
    generator.train(before)
    for handle, layer, (mean, variance) in zip(handles, layers, sums, strict=True):
        handle.remove()
        layer.mean.copy_(mean / FIXED_OVER)
        layer.variance.copy_(variance / FIXED_OVER)


def batch_norm(channels: int, row: dict) -> BatchNorm:
    """The batch norm that a `generator` row asks for."""
    return BatchNorm(channels, row["shift"], row["statistics"] == "fixed")


def output_layer(channels: int, row: dict) -> nn.Module:
    """What the last layer's values go through: an activation, or batch norm.

    With batch norm x = shift + scale · x̂ where x̂ has mean 0 and variance 1, and log scale in Eq. 15 is exactly what the
    scale of x adds to the entropy H(P_φ(x)) itself.
    """
    return batch_norm(channels, row) if row["output"] == "batch_norm" else ACTIVATIONS[row["output"]]()


def has_bias(row: dict) -> bool:
    """Whether the last layer has a bias: one that batch norm would take away again is left out."""
    return row["output"] != "batch_norm"


def dense_generator(latent: int, widths: list[int], shape: tuple[int, ...], row: dict) -> nn.Sequential:
    """Fully connected: (N, latent) -> (N, *shape), batch norm before each hidden activation."""
    layers: list[nn.Module] = []
    inputs = latent
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=False), Noise(row["noise"]), batch_norm(width, row)]
        layers.append(ACTIVATIONS[row["activation"]]())
        inputs = width
    outputs = math.prod(shape)
    layers += [nn.Linear(inputs, outputs, bias=has_bias(row)), output_layer(outputs, row), nn.Unflatten(1, shape)]
    return nn.Sequential(*layers)


def convolutional_generator(latent: int, widths: list[int], shape: tuple[int, ...], row: dict) -> nn.Sequential:
    """Linear to widths[0] maps, then 5x5 transposed convolutions of stride 2: (N, latent) -> (N, C, H, W).

    Each transposed convolution doubles height and width, and the last one gives the image: with the lab's widths
    1024-512-256-128 and 64x64 pixels, 4x4 maps come first.
    """
    channels, height, width = shape
    small = 2 ** len(widths)
    start = (widths[0], height // small, width // small)
    layers: list[nn.Module] = [nn.Linear(latent, math.prod(start), bias=False), nn.Unflatten(1, start), ChannelsLast()]
    for layer, (maps, next_maps) in enumerate(zip(widths, [*widths[1:], channels], strict=True), start=1):
        layers += [Noise(row["noise"]), batch_norm(maps, row), ACTIVATIONS[row["activation"]]()]
        bias = layer == len(widths) and has_bias(row)
        layers.append(nn.ConvTranspose2d(maps, next_maps, 5, stride=2, padding=2, output_padding=1, bias=bias))
    layers.append(output_layer(channels, row))
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
