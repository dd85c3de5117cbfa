"""A traced graph, rewritten into one that becomes a faster program on a CPU: the same numbers, up to rounding.

Products of matrices are three fifths of a small net's step. One pass makes some of them faster and saves copies after
them, the other saves arithmetic.
"""

import torch
from torch.fx import Graph, GraphModule, Node

NARROW = 8  # products of so many columns, or fewer, are faster computed transposed
SHARED = 16  # what so many elements read, or more, is kept in memory

aten = torch.ops.aten
VIEWS = {aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.expand.default, aten.alias.default}
COPIES = {*VIEWS, aten.clone.default, aten.detach.default}


def fit_for_cpu(traced: GraphModule) -> GraphModule:
    """All passes; what computes a tensor has `meta["val"]`, as make_fx leaves it."""
    turn_products(traced.graph)
    keep_what_many_read(traced.graph)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def turn_products(graph: Graph) -> None:
    """A B as (B' A')' where that is faster, for each product of matrices (S, rows, n) (S, n, columns).

    The gradient of a layer's weights is traced as a product and its transposition, which is copied element by element
    into the vector of all gradients: B' A' needs no such copy. (With a penalty two products are added up before, and
    stay as they are.) And a product whose rows are 2 or 4 long takes up to five times longer than its transposed.
    """
    for node in graph.find_nodes(op="call_function", target=aten.bmm.default):
        left, right = node.args
        _, rows, columns = node.meta["val"].shape
        # Few rows, turned, would be few columns.
        turned = transposition_into_vector(node) if rows > NARROW else None
        if turned is None and columns > NARROW:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(aten.bmm.default, (transposed(graph, right), transposed(graph, left)))
            if turned is not None:
                turned.replace_all_uses_with(product)
            else:
                # With the strides that the rest of the graph was traced with.
                contiguous = {"memory_format": torch.contiguous_format}
                result = graph.call_function(aten.clone.default, (transposed(graph, product),), contiguous)
                node.replace_all_uses_with(result)


def transposed(graph: Graph, matrices: Node) -> Node:
    """(S, rows, columns) -> (S, columns, rows)."""
    return graph.call_function(aten.transpose.int, (matrices, 1, 2))


def transposition_into_vector(product: Node) -> Node | None:
    """A product's transposition, if all that is made of the product is that, joined with others by `cat`; else None."""
    node, found = product, None
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is aten.cat.default:
            return found
        if found is None and user.target is aten.transpose.int and set(user.args[1:]) == {1, 2}:
            found = user
        elif user.target not in COPIES or not (found or user.meta["val"].shape == product.meta["val"].shape):
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
    """Whether it is elementwise, or a mean: what the compiler may compute again wherever it is read.

    A copy is none: it may be taken away, and the strides would be another tensor's.
    """
    if node.target is aten.clone.default or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return node.target is aten.mean.dim or torch.Tag.pointwise in node.target.tags


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
