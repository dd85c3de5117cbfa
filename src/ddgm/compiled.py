"""A function of tensors as one program for the device, where there is a compiler; the function as it is elsewhere."""

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from ddgm.progress import log

NARROW = 8  # columns of a product, at most, of which the CPU computes the transposed one faster


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
                graph = widen_products(graph)
            # Without Dynamo, which would check at every call that shapes are still the same: a tenth of a small step.
            program = torch._inductor.compile(graph, list(example), options)
            program(*example)
    except Exception as error:
        reason = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        log.warning(f"training is not compiled, and slower: {reason}")
        return function
    return program


def widen_products(traced: GraphModule) -> GraphModule:
    """A B with B narrow as (B' A')': a product whose rows are 2 or 4 long takes up to five times longer."""
    graph, product = traced.graph, torch.ops.aten.bmm.default
    contiguous = {"memory_format": torch.contiguous_format}
    for node in graph.find_nodes(op="call_function", target=product):
        left, right = node.args
        if right.meta["val"].shape[2] <= NARROW:
            with graph.inserting_before(node):
                wide = graph.call_function(product, (transposed(graph, right), transposed(graph, left)))
                # With the strides that the rest of the graph was traced with.
                result = graph.call_function(torch.ops.aten.clone.default, (transposed(graph, wide),), contiguous)
                node.replace_all_uses_with(result)
            graph.erase_node(node)
    traced.recompile()
    return traced


def transposed(graph: Graph, matrices: Node) -> Node:
    """(S, rows, columns) -> (S, columns, rows)."""
    return graph.call_function(torch.ops.aten.transpose.int, (matrices, 1, 2))
