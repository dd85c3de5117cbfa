"""A function of tensors on a GPU as one CUDA graph: one launch in place of one for each operation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddgm.progress import log

WARM_UP = 3  # calls before the capture, in which libraries choose their algorithms and take their memory


def replayed(
    function: Callable[..., Any], plain: Callable[..., Any], weights: Sequence[Tensor], *example: Tensor
) -> Callable[..., Any]:
    """`function(*weights, *others)` as a graph, which reads `weights` where they lie and copies the others in.

    `example` are others of the shapes to come, the only ones that `function` has to know: with others it is `plain`,
    the same as operations, that is called. With other weights it is `function`, and always where it cannot be captured.
    What it draws at random it draws anew at each call. What it gives holds until the next.
    """
    held = [tensor.clone() for tensor in example]
    try:
        graph, result = captured(function, *weights, *held)
    except torch.OutOfMemoryError:
        # For its user to answer, with a smaller batch: operations alone may meet it as well, and later.
        raise
    except RuntimeError as error:
        log.warning(" ".join(["training is not replayed, and slower:", *str(error).splitlines()[:1]]))
        return function
    places = [tensor.data_ptr() for tensor in weights]

    def replay(*tensors: Tensor) -> Any:
        given, others = tensors[: len(weights)], tensors[len(weights) :]
        if [tensor.shape for tensor in others] != [tensor.shape for tensor in held]:
            return plain(*tensors)
        if [tensor.data_ptr() for tensor in given] != places:
            return function(*tensors)
        for own, other in zip(held, others, strict=True):
            own.copy_(other)
        graph.replay()
        return result

    return replay


def captured(function: Callable[..., Any], *tensors: Tensor) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The graph of `function` on these very tensors, and what it leaves there when replayed."""
    device = tensors[0].device
    aside = torch.cuda.Stream(device)
    with torch.random.fork_rng([device]):
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function(*tensors)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer stream comes back also where the inner one's end raises.
            with torch.cuda.stream(torch.cuda.current_stream(device)), torch.cuda.graph(graph):
                result = function(*tensors)
        except RuntimeError:
            # A generator that a failed capture has left in it refuses to draw: a copy of it is in none.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
    return graph, result
