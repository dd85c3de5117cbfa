"""A function of tensors as one program for the device, where there is a compiler; the function as it is elsewhere."""

import shutil
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ddgm.graph_passes import fit_for_cpu
from ddgm.progress import log


def compiled(function: Callable[..., Any], *example: Tensor) -> Callable[..., Any]:
    """`function` as a program for arguments of the example's shapes: half a minute, once a machine and shape.

    What it draws at random the program draws as `function` does. Without a C++ compiler, or where compilation
    fails, `function` itself.
    """
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return function
    # Two seconds that only those pay who compile.
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    options = {"cpp.use_decompose_tanh": True, "fallback_random": True}
    device = example[0].device
    drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])
    try:
        with drawn:
            graph = make_fx(lambda *tensors: function(*tensors))(*example)
            if device.type == "cpu":
                graph = fit_for_cpu(graph)
            # Without Dynamo, which would check at every call that shapes are still the same: a tenth of a small step.
            program = torch._inductor.compile(graph, list(example), options)
            program(*example)
    except Exception as error:
        reason = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        log.warning(f"training is not compiled, and slower: {reason}")
        return function
    return program
