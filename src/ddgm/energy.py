"""The energy function E(x): the deep energy model of Eq. 11 and the shallow experts of Eqs. 3, 4 and 5.

Every energy maps a batch x of shape (N, *shape) to N energies, one number a row, which depends on that row
alone: no batch normalisation here (section 4 uses it in the generator only).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


def widened(a: Tensor) -> Tensor:
    """What was computed in bfloat16 as float32, all else as it is."""
    return a.float() if a.dtype == torch.bfloat16 else a


class Noise(nn.Module):
    """Add N(0, sd²) to its input while training; nothing when evaluating (and nothing ever at sd = 0)."""

    def __init__(self, sd: float) -> None:
        super().__init__()
        self.sd = sd

    def forward(self, a: Tensor) -> Tensor:
        return a + self.sd * torch.randn_like(a) if self.training and self.sd > 0 else a


class ChannelsLast(nn.Module):
    """The same images, on a GPU with the channels of a pixel beside each other in memory.

    Convolutions are faster so on a GPU; on a CPU weights would be reordered at each call, a fifth of a step.
    """

    def forward(self, a: Tensor) -> Tensor:
        return a.contiguous(memory_format=torch.channels_last) if a.is_cuda else a


def dense_features(inputs: int, widths: list[int], activation: str, bound: str, noise: float) -> nn.Sequential:
    """f(x) of fully connected layers: (N, *shape) -> (N, widths[-1]); `bound` acts on the last layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for layer, width in enumerate(widths):
        last = layer == len(widths) - 1
        layers += [nn.Linear(inputs, width), ACTIVATIONS[bound if last else activation]()]
        if noise and not last:
            layers.append(Noise(noise))
        inputs = width
    return nn.Sequential(*layers)


def convolutional_features(
    shape: tuple[int, int, int], widths: list[int], activation: str, bound: str, noise: float
) -> nn.Sequential:
    """f(x) of 5x5 convolutions of stride 2, no batch norm, flattened: (N, C, H, W) -> (N, features).

    Each layer halves height and width; the lab's nets have widths 128-256-512-1024 on 64x64 pixels.
    """
    channels = shape[0]
    layers: list[nn.Module] = [ChannelsLast()]
    for layer, maps in enumerate(widths):
        last = layer == len(widths) - 1
        layers += [
            nn.Conv2d(channels, maps, 5, stride=2, padding=2),
            ACTIVATIONS[bound if last else activation](),
        ]
        if noise and not last:
            layers.append(Noise(noise))
        channels = maps
    return nn.Sequential(*layers, nn.Flatten())


class DeepEnergy(nn.Module):
    """Eq. 11: E(x) = x'x/σ² - b'x - Σ_i log(1 + exp(W_i'f(x) + b_i)).

    `quadratic` decides the first two terms:
      none     neither of them: the form of the lab's last image experiments; integrable on a bounded x only
      fixed    σ as given and b = 0
      learned  log σ² (from `sigma`) and b (from 0) are parameters

    With bounded features (a tanh last) the experts are bounded, and x'x/σ² makes exp(-E) integrable.
    """

    def __init__(
        self, features: nn.Module, feature_count: int, experts: int, inputs: int, quadratic: str, sigma: float
    ) -> None:
        super().__init__()
        self.features = features
        self.experts = nn.Linear(feature_count, experts)
        self.quadratic = quadratic
        log_variance, mean = torch.tensor(2 * math.log(sigma)), torch.zeros(inputs)
        if quadratic == "learned":
            self.log_variance, self.b = nn.Parameter(log_variance), nn.Parameter(mean)
        elif quadratic == "fixed":
            self.register_buffer("log_variance", log_variance)
            self.register_buffer("b", mean)

    def global_term(self, x: Tensor) -> Tensor:
        """x'x/σ² - b'x, the mean and global variance of Eq. 11: (N, inputs) -> (N,)."""
        # No matrix product, which autocast would round.
        return x.square().sum(1) * torch.exp(-self.log_variance) - (x * self.b).sum(1)

    def expert_term(self, x: Tensor) -> Tensor:
        """-Σ_i log(1 + exp(W_i'f(x) + b_i)), the experts of Eq. 11: (N, *shape) -> (N,)."""
        # A sum over experts is hundreds of nats, and too long for bfloat16.
        return -softplus(widened(self.experts(self.features(x)))).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.expert_term(x)
        return energy if self.quadratic == "none" else energy + self.global_term(x.flatten(1))


class StudentT(nn.Module):
    """Eq. 3, a product of Student-t: E(x) = Σ_i α_i log(1 + (W_i'x)²/2), α_i > 0.

    The paper's two lines of Eq. 3 differ by the factor 1/2, which W absorbs; the first line is used.
    """

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.experts = nn.Linear(inputs, experts, bias=False)
        self.log_alpha = nn.Parameter(torch.zeros(experts))

    def forward(self, x: Tensor) -> Tensor:
        # No matrix product, which autocast would round.
        return (torch.log1p(widened(self.experts(x.flatten(1))).square() / 2) * self.log_alpha.exp()).sum(1)


class Logistic(nn.Module):
    """Eq. 4, a product of weak classifiers: E(x) = Σ_i log(1 + exp(-(W_i'x + b_i)))."""

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.experts = nn.Linear(inputs, experts)

    def forward(self, x: Tensor) -> Tensor:
        return softplus(-widened(self.experts(x.flatten(1)))).sum(1)


class RestrictedBoltzmann(DeepEnergy):
    """Eq. 5, the free energy of an RBM with Gaussian visible units: Eq. 11 with x itself as the features."""

    def __init__(self, inputs: int, experts: int, quadratic: str, sigma: float) -> None:
        super().__init__(nn.Flatten(), inputs, experts, inputs, quadratic, sigma)


def build_energy(row: dict, shape: tuple[int, ...]) -> nn.Module:
    """The energy that an experiment's `energy` row describes, for inputs of `shape`, with fresh weights."""
    inputs = math.prod(shape)
    if row["kind"] == "student_t":
        energy: nn.Module = StudentT(inputs, row["experts"])
    elif row["kind"] == "logistic":
        energy = Logistic(inputs, row["experts"])
    elif row["kind"] == "rbm":
        energy = RestrictedBoltzmann(inputs, row["experts"], row["quadratic"], row["sigma"])
    else:
        build = {"dense": dense_features, "convolutional": convolutional_features}[row["features"]]
        features = build(
            shape if row["features"] == "convolutional" else inputs,
            row["hidden"], row["activation"], row["bound"], row["noise"],
        )  # fmt: skip
        with torch.no_grad():
            feature_count = features(torch.zeros(1, *shape)).shape[1]
        energy = DeepEnergy(features, feature_count, row["experts"], inputs, row["quadratic"], row["sigma"])
    start_weights(energy, row["start"])
    if row.get("weight_norm"):
        normalise_weights(energy)
    return energy


class WeightNorm(nn.Module):
    """w = g v / ‖v‖, a length g and a direction v for each unit (Salimans and Kingma 2016).

    torch's own of this name has no rule for several nets at once, and computes one after the other.
    """

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        return length * direction / self.lengths(direction)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self.lengths(weight), weight

    @staticmethod
    def lengths(weight: Tensor) -> Tensor:
        """(units, ...) -> (units, 1, ...)."""
        return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)


def normalise_weights(net: nn.Module) -> None:
    """Make the weights of each unit a length and a direction, as they are now."""
    for layer in list(net.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", WeightNorm())


def start_weights(net: nn.Module, sd: float | None) -> None:
    """Draw every weight matrix from N(0, sd²) and set its bias to 0; with sd None leave torch's own start."""
    if sd is None:
        return
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=sd)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
