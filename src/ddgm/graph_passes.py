"""A traced graph, rewritten into one that becomes a faster program on a CPU: the same numbers, up to rounding.

A step of a small net is products of matrices for three fifths of its time, and each pass spares memory or arithmetic
beside them.
"""

import torch
from torch.fx import Graph, GraphModule, Node

NARROW = 8  # columns of a product, at most, of which the CPU computes the transposed one faster
SHARED = 16  # times, at least, that a result is read by each element of what it is broadcast to, for it to be kept

aten = torch.ops.aten
VIEWS = {aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.expand.default, aten.alias.default}


def fit_for_cpu(traced: GraphModule) -> GraphModule:
    """All passes; the graph's nodes want `meta["val"]`, as make_fx leaves it."""
    turn_products(traced.graph)
    keep_what_many_read(traced.graph)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def turn_products(graph: Graph) -> None:
    """A B as (B' A')' where that is faster, for each product of matrices (S, rows, n) (S, n, columns).

    A gradient by a layer's weights is traced as such a product and a transposition, which is a copy, element by
    element, into the vector of all gradients: (B' A') is it at once. And a product whose rows are 2 or 4 long takes up
    to five times longer than its transposed.
    """
    for node in graph.find_nodes(op="call_function", target=aten.bmm.default):
        left, right = node.args
        rows, columns = left.meta["val"].shape[1], right.meta["val"].shape[2]
        turned = transposition_into_a_gradient(node)
        if (turned is None or rows <= NARROW) and columns > NARROW:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(aten.bmm.default, (transposed(graph, right), transposed(graph, left)))
            if turned is not None and rows > NARROW:
                turned.replace_all_uses_with(product)
            else:
                # With the strides that the rest of the graph was traced with.
                contiguous = {"memory_format": torch.contiguous_format}
                result = graph.call_function(aten.clone.default, (transposed(graph, product),), contiguous)
                node.replace_all_uses_with(result)


def transposed(graph: Graph, matrices: Node) -> Node:
    """(S, rows, columns) -> (S, columns, rows)."""
    return graph.call_function(aten.transpose.int, (matrices, 1, 2))


def transposition_into_a_gradient(product: Node) -> Node | None:
    """The transposition of a product, where nothing else is made of it, and it is only joined with others to one."""
    node, found = product, None
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is aten.cat.default:
            return found
        same = user.meta["val"].shape == product.meta["val"].shape
        if found is None and user.target is aten.transpose.int and set(user.args[1:]) == {1, 2}:
            found = user
        elif user.target not in {*VIEWS, aten.clone.default, aten.detach.default} or not (found or same):
            return None
        node = user
    return None


def keep_what_many_read(graph: Graph) -> None:
    """What is computed once a channel, and read by each example of a batch, lies in memory.

    The compiler would compute it again for each example, in batch norm a root and two quotients for every activation.
    A view by strides is of memory, and therefore makes it keep what is viewed.
    """
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and is_arithmetic(node) and is_read_by_many(node, value.numel()):
            with graph.inserting_after(node):
                kept = graph.call_function(aten.as_strided.default, (node, value.shape, value.stride(), 0))
            node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)


def is_arithmetic(node: Node) -> bool:
    """Whether it computes numbers, one from one or a mean, which the compiler does where they are read."""
    return node.target is aten.mean.dim or torch.Tag.pointwise in getattr(node.target, "tags", ())


def is_read_by_many(node: Node, size: int) -> bool:
    """Whether `size` numbers, seen through views, are broadcast to SHARED times as many or more."""
    for user in node.users:
        value = user.meta.get("val")
        many = isinstance(value, torch.Tensor) and value.numel() >= SHARED * size
        if many and (user.target is aten.expand.default or is_arithmetic(user)):
            return True
        if user.target in VIEWS and is_read_by_many(user, size):
            return True
    return False
