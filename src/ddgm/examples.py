"""Training examples x+ ~ P_D, a batch at a time: from the device's memory where they fit, else from the array file."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddgm.distributed import any_says, part
from ddgm.errors import UserError
from ddgm.memory import free_bytes

SHARE = 0.5  # of the device's free memory that data may take
PART = 2**26  # bytes that are copied to the device at a time
AHEAD = 2  # batches that are read before they are asked for


class Examples(Protocol):
    """What is asked of either; `held` says in a word which of them it is."""

    held: str

    def batch(self) -> Tensor: ...
    def state(self) -> list[Tensor] | None: ...
    def restore(self, state: list[Tensor] | None) -> None: ...


def open_examples(
    data: NDArray[Any],
    n: int,
    seeds: list[int],
    streams: list[torch.Generator],
    device: torch.device,
    streamed: bool | None = None,
) -> Examples:
    """The array (points, *shape), usually a memory map, as batches of n for each seed, on the device or streamed.

    The two draw from different random streams, so that a training goes on with what it began with, which `streamed`
    says. Raises UserError where that was memory and there is no longer enough.
    """
    free = free_bytes(device)
    if streamed is None:
        # Of several processes, all do what the one with the least memory has to.
        streamed = any_says(data.nbytes > SHARE * free, device)
    elif not streamed and data.nbytes > free:
        raise UserError(
            f"the state was saved by a training that held its data in memory, {data.nbytes / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free now: free some, or write --restart to begin again"
        )
    return Streamed(data, n, seeds, device) if streamed else Resident(data, n, streams, device)


def row_numbers(count: int, n: int, streams: list[torch.Generator], device: torch.device | str) -> Tensor:
    """n random row numbers below `count` of each stream, this process's part of them: (S, n)."""
    return part(torch.stack([torch.randint(count, (n,), generator=s, device=device) for s in streams]))


class Resident:
    """All data on the device; the row numbers come from the streams that training draws everything from."""

    held = "resident"

    def __init__(self, data: NDArray[Any], n: int, streams: list[torch.Generator], device: torch.device) -> None:
        kind = torch.from_numpy(np.empty(0, data.dtype)).dtype
        self.data = torch.empty(data.shape, dtype=kind, device=device)
        # In parts, which are copies: PyTorch takes no memory map, and a GPU's data may exceed the memory beside it.
        rows = max(1, PART * len(data) // max(1, data.nbytes))
        for start in range(0, len(data), rows):
            self.data[start : start + rows] = torch.from_numpy(np.array(data[start : start + rows]))
        self.n, self.streams = n, streams
        self.shape = tuple(data.shape[1:])

    def batch(self) -> Tensor:
        """As stored, (S, N, *shape)."""
        index = row_numbers(len(self.data), self.n, self.streams, self.data.device)
        # One call for all seeds, and faster than indexing.
        return self.data.index_select(0, index.flatten()).view(*index.shape, *self.shape)

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


class Streamed:
    """Data in the file; a thread reads the next batches while the device computes.

    The row numbers come from streams of their own, a seed each, on the CPU: a device's would have to be waited for.
    """

    held = "streamed"

    def __init__(self, data: NDArray[Any], n: int, seeds: list[int], device: torch.device) -> None:
        self.data, self.n, self.device = data, n, device
        self.shape = tuple(data.shape[1:])
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.reader = ThreadPoolExecutor(1)
        self.coming: list[tuple[list[Tensor], Future[Tensor]]] = []

    def read(self, index: Tensor) -> Tensor:
        """Rows of the file, (S, N, *shape), in memory that a GPU can fetch by itself."""
        order = index.flatten().argsort()
        # In the file's order, which a disk is faster in.
        rows = np.empty((len(order), *self.shape), self.data.dtype)
        rows[order.numpy()] = self.data[index.flatten()[order].numpy()]
        batch = torch.from_numpy(rows).view(*index.shape, *self.shape)
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def batch(self) -> Tensor:
        """As stored, (S, N, *shape), on the device."""
        while len(self.coming) <= AHEAD:
            before = [stream.get_state() for stream in self.streams]
            index = row_numbers(len(self.data), self.n, self.streams, "cpu")
            self.coming.append((before, self.reader.submit(self.read, index)))
        _, batch = self.coming.pop(0)
        return batch.result().to(self.device, non_blocking=True)

    def state(self) -> list[Tensor]:
        """The streams as they were before the batches that nobody has asked for yet."""
        return self.coming[0][0] if self.coming else [stream.get_state() for stream in self.streams]

    def restore(self, state: list[Tensor]) -> None:
        self.coming = []
        for stream, saved in zip(self.streams, state, strict=True):
            stream.set_state(saved)
