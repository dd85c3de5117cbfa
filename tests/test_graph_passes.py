import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ddgm.graph_passes import fit_for_cpu

aten = torch.ops.aten
S, N = 3, 32


def passed(function, *example):
    """What `function` gives, what its graph gives after all passes, and that graph."""
    graph = fit_for_cpu(make_fx(function)(*example)).graph
    torch.manual_seed(1)
    others = [torch.randn_like(tensor) for tensor in example]
    return function(*others), torch.fx.GraphModule({}, graph)(*others), graph


def products(graph):
    """(rows, columns) of each product's factors, by the values that a second tracing gives them."""
    shapes = []
    for node in graph.find_nodes(op="call_function", target=aten.bmm.default):
        left, right = (argument.meta["val"].shape for argument in node.args)
        shapes.append((left[1], right[2]))
    return shapes


def weight_gradient(columns):
    """The gradient by (S, columns, 16) weights, joined with another to one vector, as a training has it."""

    def function(x, g, other):
        gradient = torch.bmm(x.transpose(1, 2), g).transpose(1, 2)
        return torch.cat([gradient.reshape(S, -1), other], 1)

    return function, (torch.zeros(S, N, 16), torch.zeros(S, N, columns), torch.zeros(S, 5))


@pytest.mark.parametrize("columns", [2, 16])
def test_a_gradient_by_weights_is_a_product_that_no_transposition_follows(columns):
    function, example = weight_gradient(columns)
    expected, found, graph = passed(function, *example)
    torch.testing.assert_close(found, expected)
    (product,) = graph.find_nodes(op="call_function", target=aten.bmm.default)
    after, seen = list(product.users), set()
    while after:
        node = after.pop()
        seen.add(node.target)
        after += node.users
    assert aten.cat.default in seen and aten.transpose.int not in seen


def test_a_product_that_is_used_as_it_is_too_stays_so():
    def function(x, g):
        product = torch.bmm(x.transpose(1, 2), g)
        return torch.cat([product.transpose(1, 2).reshape(S, -1), product.sum(1)], 1)

    expected, found, graph = passed(function, torch.zeros(S, N, 16), torch.zeros(S, N, 12))
    torch.testing.assert_close(found, expected)
    assert len(graph.find_nodes(op="call_function", target=aten.bmm.default)) == 1


@pytest.mark.parametrize(("columns", "turned"), [(2, True), (8, True), (9, False)])
def test_a_product_with_few_columns_is_computed_transposed(columns, turned):
    example = torch.zeros(S, N, 16), torch.zeros(S, 16, columns)
    expected, found, graph = passed(lambda x, w: torch.bmm(x, w).relu(), *example)
    torch.testing.assert_close(found, expected)
    assert found.stride() == expected.stride()
    graph = make_fx(torch.fx.GraphModule({}, graph))(*example).graph
    assert products(graph) == [(columns, N) if turned else (N, columns)]


def test_what_is_computed_once_a_channel_and_read_by_each_example_is_kept():
    def batch_norm(a, scale):
        mean = a.mean(1)
        variance = (a - mean.unsqueeze(1)).square().mean(1)
        return (a - mean.unsqueeze(1)) * (scale * torch.rsqrt(variance + 1e-8)).unsqueeze(1)

    expected, found, graph = passed(batch_norm, torch.zeros(S, N, 7), torch.zeros(S, 7))
    torch.testing.assert_close(found, expected)
    kept = [node.args[0] for node in graph.find_nodes(op="call_function", target=aten.as_strided.default)]
    assert [node.target for node in kept] == [aten.mean.dim, aten.mul.Tensor], "the mean, and scale over deviation"


@pytest.mark.parametrize(("examples", "kept"), [(15, 0), (16, 1)])
def test_what_fewer_than_sixteen_read_is_computed_where_it_is_read(examples, kept):
    _, _, graph = passed(lambda a, b: a * (b + 1).unsqueeze(1), torch.zeros(S, examples, 7), torch.zeros(S, 7))
    assert len(graph.find_nodes(op="call_function", target=aten.as_strided.default)) == kept
