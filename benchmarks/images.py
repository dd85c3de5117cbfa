"""How fast the convolutional pair of Figure 4 trains, beside the plain loop a PyTorch user would write.

python benchmarks/images.py [--repeats 5] [--steps 2] [--batch 16] [--threads 2]

The row is `celeba_lab` of params.yaml, at its full width. The plain loop has the shape of PyTorch's DCGAN example with
these nets: float32, torch's own layers, a DataLoader, two separate updates by `backward()` and one optimiser a net, the
backends as PyTorch starts with them, on a GPU with cuDNN's search for the fastest algorithm. All train in one process,
in turn, `repeats` times; rates are medians of image pairs (a datum and a sample) a second, and ratios those of
neighbouring runs. Before anything is timed, the plain nets must compute what ours do. The share is that of the
multiply-adds which the update needs, times the rate, in what the device reaches at multiplying large matrices in the
same precision. On a GPU (use --steps 50 --batch 64 256 there) a second table says what its time goes into.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result import write
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn.functional import softplus
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from ddgm import parameters
from ddgm.pair import Pair
from ddgm.provenance import code_version, device_name
from ddgm.training import choose_arithmetic
from ddgm.variant import changed

SHAPE = (3, 64, 64)
PLAIN = "plain PyTorch"
# Forward passes' worth of work that a pair of images needs, of the generator and of the energy: 9 in place of 12. The
# plain loop does 13: it differentiates the energy by its weights in the generator's update too.
WORK = {"alternating": (4, 8), "simultaneous": (3, 6)}
KINDS: dict[str, dict[str, Any]] = {
    "ddgm": {},
    "ddgm, simultaneous": {"schedule.kind": "simultaneous"},
    "ddgm, tf32": {"precision": "tf32"},
    "ddgm, bfloat16": {"precision": "bfloat16"},
    "ddgm, bfloat16, simultaneous": {"precision": "bfloat16", "schedule.kind": "simultaneous"},
}
MATRIX = {"cpu": 2048, "cuda": 8192}
# So many that the DataLoader seldom starts again.
PICTURES = {"cpu": 1024, "cuda": 16384}
# What runs on a GPU, by parts of its kernels' names: the first that fits.
KERNELS = {
    "operations that the compiler has fused": r"^triton_",
    "optimiser, clipping, averages": r"multi_tensor|adam|adagrad|lerp",
    "reordering pictures for convolutions": r"nchwToNhwc|nhwcToNchw|transpose",
    "convolutions and matrix products": r"gemm|conv|cudnn|cutlass|xmma|sm90|wgrad|dgrad|fprop",
    "copies and conversions": r"[Mm]emcpy|Memset|copy|Cat",
    "everything between": r"",
}


class Faces(Dataset):
    """uint8 pictures as floats from -1 to 1, one at a time."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.pixels[index]).float() / 127.5 - 1


class PlainLoop:
    """The lab's nets and schedule, as anybody would write them."""

    def __init__(self, row: dict[str, Any], pixels: np.ndarray, device: torch.device) -> None:
        self.row, self.device = row, device
        wide, deep = row["generator"]["hidden"], row["energy"]["hidden"]
        layers: list[nn.Module] = [nn.Linear(row["generator"]["latent"], wide[0] * 16, bias=False)]
        layers.append(nn.Unflatten(1, (wide[0], 4, 4)))
        for inputs, outputs in zip(wide, [*wide[1:], 3], strict=True):
            layers += [nn.BatchNorm2d(inputs, eps=1e-8), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1, bias=outputs == 3))
        self.generator = nn.Sequential(*layers, nn.Tanh()).to(device)
        layers = []
        for inputs, outputs in zip([3, *deep[:-1]], deep, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 5, 2, 2), nn.Tanh() if outputs == deep[-1] else nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(deep[-1] * 16, row["energy"]["experts"])]
        self.experts = nn.Sequential(*layers).to(device)
        rates = row["optimiser"]
        self.of_energy = torch.optim.Adagrad(self.experts.parameters(), rates["energy_rate"], weight_decay=1e-5)
        self.of_generator = torch.optim.Adagrad(self.generator.parameters(), rates["generator_rate"])
        workers = 2 if device.type == "cuda" else 0
        batch = row["schedule"]["batch"]
        self.loader = DataLoader(
            Faces(pixels), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.batches = iter(self.loader)

    def energy(self, x: Tensor) -> Tensor:
        return -softplus(self.experts(x)).sum(1)

    def follow(self, pair: Pair) -> None:
        """Take the pair's weights, in the order that both have them."""
        for net, ensemble in (("experts", pair.energy), ("generator", pair.generator)):
            own = list(getattr(self, net).parameters())
            with torch.no_grad():
                for weight, value in zip(own, ensemble.parameters.values(), strict=True):
                    weight.copy_(value[0])

    @staticmethod
    def choose_arithmetic(device: torch.device) -> None:
        """The backends as PyTorch starts with them, which on a GPU is TF32 in convolutions alone."""
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
        torch.backends.cudnn.benchmark = device.type == "cuda"

    def examples(self) -> Tensor:
        try:
            return next(self.batches).to(self.device)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches).to(self.device)

    def round(self) -> None:
        z = 2 * torch.rand(self.row["schedule"]["batch"], self.row["generator"]["latent"], device=self.device) - 1
        self.of_generator.zero_grad()
        scales = [layer.weight for layer in self.generator if isinstance(layer, nn.BatchNorm2d)]
        entropy = sum(scale.abs().log().sum() for scale in scales)
        (self.energy(self.generator(z)).mean() - entropy).backward()
        self.of_generator.step()
        self.of_energy.zero_grad()
        data = self.examples()
        samples = self.generator(z).detach()
        (self.energy(data).mean() - self.energy(samples).mean()).backward()
        self.of_energy.step()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def check(pair: Pair, plain: PlainLoop) -> float:
    """The largest difference of samples, and of energies relative to their size."""
    plain.follow(pair)
    z = pair.draw_latent()
    with torch.no_grad():
        ours, theirs = pair.sampled(z)[0], plain.generator(z[0])
        energies, others = pair.energies(theirs[None])[0], plain.energy(theirs)
    return max(float((ours - theirs).abs().max()), float(((energies - others) / energies).abs().max()))


def multiply_adds(row: dict[str, Any]) -> tuple[float, float]:
    """Of one forward pass of the generator and of the energy, an image: by counting what the layers do."""
    counts = {nn.Linear: 0.0, nn.Conv2d: 0.0, nn.ConvTranspose2d: 0.0}

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        # A transposed convolution does for each pixel that comes in what a convolution does for each that goes out.
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        places = pixels[0, 0].numel() if pixels.dim() == 4 else 1
        counts[type(layer)] += layer.weight.numel() * places

    totals = []
    plain = PlainLoop(row, np.zeros((2, *SHAPE), np.uint8), torch.device("cpu"))
    for net, x in (
        (plain.generator, torch.rand(2, row["generator"]["latent"])),
        (plain.experts, torch.rand(2, *SHAPE)),
    ):
        for kind in counts:
            counts[kind] = 0.0
        handles = [layer.register_forward_hook(count) for layer in net if type(layer) in counts]
        net(x)
        for handle in handles:
            handle.remove()
        totals.append(sum(counts.values()))
    return totals[0], totals[1]


def matrix_rate(device: torch.device, precision: str) -> float:
    """Multiply-adds a second at the product of two large square matrices."""
    side = MATRIX[device.type]
    choose_arithmetic({"precision": precision, "deterministic": False})
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    rates = []
    for _ in range(5):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        rates.append(side**3 / (time.perf_counter() - start))
    return max(rates)


def rate(round_: Callable[[], Any], steps: int, batch: int, device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        round_()
    wait(device)
    return steps * batch / (time.perf_counter() - start)


def where_time_goes(round_: Callable[[], Any], steps: int) -> dict[str, float]:
    """Milliseconds a round by KERNELS on a GPU, and in which nothing ran there; empty where none is seen."""
    wait(torch.device("cuda"))
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            round_()
        wait(torch.device("cuda"))
    spent = dict.fromkeys(KERNELS, 0.0)
    kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    if not kernels:
        return {}
    for event in kernels:
        kind = next(kind for kind, pattern in KERNELS.items() if re.search(pattern, event.name))
        spent[kind] += event.time_range.elapsed_us() / 1000 / steps
    span = max(e.time_range.end for e in kernels) - min(e.time_range.start for e in kernels)
    return spent | {"nothing": max(0.0, span / 1000 / steps - sum(spent.values()))}


class Side:
    """All that train side by side with one batch size: the plain loop and ours of KINDS."""

    def __init__(self, row: dict[str, Any], batch: int, device: torch.device) -> None:
        row = changed(row, {"schedule.batch": batch})
        self.batch, self.device = batch, device
        pixels = np.random.default_rng(0).integers(0, 256, (PICTURES[device.type], *SHAPE), dtype=np.uint8)
        self.plain = PlainLoop(row, pixels, device)
        kinds = {name: of for name, of in KINDS.items() if device.type == "cuda" or of.get("precision") != "tf32"}
        self.pairs = {}
        for name, settings in kinds.items():
            # On a GPU a pair keeps the arithmetic that it is made with.
            choose_arithmetic(changed(row, settings))
            self.pairs[name] = Pair(changed(row, settings), pixels, device)
        choose_arithmetic(row)
        self.difference = check(self.pairs["ddgm"], self.plain)
        assert self.difference < 1e-4, f"the plain nets compute something else: {self.difference}"
        self.found: dict[str, list[float]] = {name: [] for name in (PLAIN, *self.pairs)}

    def round_of(self, name: str) -> Callable[[], Any]:
        """What makes one round of it, once the backends are as it wants them."""
        if name == PLAIN:
            PlainLoop.choose_arithmetic(self.device)
            return self.plain.round
        choose_arithmetic(self.pairs[name].row)
        return self.pairs[name].round

    def time(self, steps: int) -> None:
        """Each in turn, once."""
        for name, rates in self.found.items():
            rates.append(rate(self.round_of(name), steps, self.batch, self.device))

    def lines(self, work: tuple[float, float], products: dict[str, float]) -> list[dict[str, object]]:
        lines: list[dict[str, object]] = []
        for name, rates in self.found.items():
            settings = KINDS.get(name, {})
            # PyTorch starts with TF32 in convolutions.
            precision = settings.get("precision", "tf32" if name == PLAIN and "tf32" in products else "float32")
            passes = WORK[settings.get("schedule.kind", "alternating")]
            needed = sum(count * of_net for count, of_net in zip(passes, work, strict=True))
            middle = statistics.median(rates)
            ratios = [own / other for own, other in zip(rates, self.found[PLAIN], strict=True)]
            lines.append(
                {
                    "what": name,
                    "batch": self.batch,
                    "images_per_second": round(middle, 2),
                    "slowest": round(min(rates), 2),
                    "fastest": round(max(rates), 2),
                    "times_plain": round(statistics.median(ratios), 2),
                    "gflop_per_image": round(2 * needed / 1e9, 2),
                    "share_of_matrix_rate": round(needed * middle / products[precision], 3),
                }
            )
        return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("repeats", 5), ("steps", 2), ("threads", 2)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    arguments.add_argument("--batch", type=int, nargs="+", default=[16])
    asked = arguments.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    row = parameters.load(str(Path(__file__).parents[1] / "params.yaml"))["experiments"]["celeba_lab"]
    precisions = ["float32", "bfloat16"] + ["tf32"] * (device.type == "cuda")
    products = {precision: matrix_rate(device, precision) for precision in precisions}
    work = multiply_adds(row)
    about = {
        "code": code_version(), "torch": torch.__version__, "threads": asked.threads, "device": device_name(device),
        "largest_difference": 0.0,
        **{f"matrix_gflop_per_second_{kind}": round(2 * value / 1e9) for kind, value in products.items()},
    }  # fmt: skip
    lines: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for batch in asked.batch:
        side = Side(row, batch, device)
        about["largest_difference"] = max(about["largest_difference"], side.difference)
        for name in side.found:
            side.round_of(name)()
        for _ in range(asked.repeats):
            side.time(asked.steps)
        lines += side.lines(work, products)
        # After each batch size: a machine that is lent may be gone before the last.
        write(f"image_speed_{device.type}", lines, about)
        for name in side.found if device.type == "cuda" else ():
            spent = where_time_goes(side.round_of(name), asked.steps)
            parts += [{"what": name, "batch": batch, "kernels": of, "ms": round(ms, 3)} for of, ms in spent.items()]
        if parts:
            write(f"image_time_{device.type}", parts, about)
    for line in lines + parts:
        print(*line.values(), sep="\t")


if __name__ == "__main__":
    main()
