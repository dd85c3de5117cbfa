"""Several processes that train one pair together, each on its part of every batch: what torchrun starts.

Every process holds all weights and draws the same random numbers, of which it computes its part. Gradients are averaged
over the processes, and what mixes the examples of a batch (batch norm, an entropy measured on samples) sees the whole
batch, so that many processes do what one does, up to rounding. Without torchrun there is one process, and nothing here
does anything.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ddgm.torchrun import started_by_torchrun


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def processes_here() -> int:
    """How many processes train together on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the other processes, if torchrun has started this one: over NCCL on GPUs, over Gloo on CPUs."""
    if not started_by_torchrun():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def part(batch: Tensor) -> Tensor:
    """This process's examples of a batch (S, N, ...): the N / processes that are numbered from rank * N / processes."""
    return batch if processes() == 1 else batch.chunk(processes(), 1)[rank()]


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of all processes' tensors, of one shape; differentiable."""
    return value if processes() == 1 else _Sum.apply(value) / processes()


def whole_batch(own: Tensor) -> Tensor:
    """All processes' parts (S, N / processes, ...) as one batch (S, N, ...); differentiable."""
    return own if processes() == 1 else _Gather.apply(own)


def average_gradient(gradient: Tensor) -> Tensor:
    """The gradient averaged over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(gradient)
        gradient /= processes()
    return gradient


def any_says(asked: bool, device: torch.device) -> bool:
    """Whether any process says yes: all get the same answer. Every process has to ask."""
    if processes() == 1:
        return asked
    answer = torch.tensor(float(asked), device=device)
    dist.all_reduce(answer, dist.ReduceOp.MAX)
    return bool(answer)


def by_the_first(act: Callable[[], None], device: torch.device) -> None:
    """The first process acts, and the others go on when it has. Every process has to come here."""
    if is_first():
        act()
    any_says(False, device)


class _Sum(torch.autograd.Function):
    """The sum over processes. Each process's loss depends on it, so that their gradients add up as well."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


class _Gather(torch.autograd.Function):
    """All parts of a batch beside each other along its second axis."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(processes())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return part(_Sum.apply(gradient.contiguous()))
