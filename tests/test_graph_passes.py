import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ddgm.graph_passes import fit_for_cpu
from ddgm.pair import Pair
from ddgm.variant import changed

aten, CPU = torch.ops.aten, torch.device("cpu")
S, N = 3, 32


def passed(function, *example):
    """What `function` gives, what its graph gives after all passes, and that graph."""
    graph = fit_for_cpu(make_fx(function)(*example)).graph
    torch.manual_seed(1)
    others = [torch.randn_like(tensor) for tensor in example]
    return function(*others), torch.fx.GraphModule({}, graph)(*others), graph


def products(graph):
    """(rows, columns) of each product."""
    return [tuple(node.meta["val"].shape[1:]) for node in graph.find_nodes(op="call_function", target=aten.bmm.default)]


def weight_gradient(columns, inputs=16):
    """The gradient by (S, columns, inputs) weights, joined with another to one vector, as a training has it."""

    def function(x, g, other):
        gradient = torch.bmm(x.transpose(1, 2), g).transpose(1, 2)
        return torch.cat([gradient.reshape(S, -1), other], 1)

    return function, (torch.zeros(S, N, inputs), torch.zeros(S, N, columns), torch.zeros(S, 5))


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


def test_a_gradient_by_weights_of_few_inputs_stays_as_it_is():
    function, example = weight_gradient(16, inputs=2)
    expected, found, graph = passed(function, *example)
    torch.testing.assert_close(found, expected)
    assert products(graph) == [(2, 16)]


def test_a_product_that_is_given_back_stays_as_it_is():
    def function(a, b):
        return torch.bmm(a, b).reshape(S, -1)

    expected, found, graph = passed(function, torch.zeros(S, N, 16), torch.zeros(S, 16, 12))
    torch.testing.assert_close(found, expected)
    assert products(graph) == [(N, 12)]


def test_a_product_that_is_used_as_it_is_too_stays_so():
    def function(x, g):
        product = torch.bmm(x.transpose(1, 2), g)
        return torch.cat([product.transpose(1, 2).reshape(S, -1), product.sum(1)], 1)

    expected, found, graph = passed(function, torch.zeros(S, N, 16), torch.zeros(S, N, 12))
    torch.testing.assert_close(found, expected)
    assert products(graph) == [(16, 12)]


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


# Each kind of energy, objective, entropy and x- that dense nets have, and what changes the step's graph beside them.
GRAPHS = {
    "four_spin": {},
    "four_spin_outputs_penalty": {"schedule.kind": "simultaneous"},
    "four_spin_neighbour": {},
    "four_spin_variational": {"precision": "bfloat16"},
    "four_spin_gan": {"energy.weight_norm": True},
    "four_spin_classifier": {},
    "four_spin_langevin": {"energy.quadratic": "none"},
    "four_spin_student_t": {},
    "four_spin_logistic": {},
    "four_spin_rbm": {},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_rewritten_graphs_of_each_kind_of_row_give_what_its_functions_give(
    name, parameters, planar_data, monkeypatch
):
    row = changed(parameters["experiments"][name], {"seeds": [0, 1], "schedule.batch": 32, **GRAPHS[name]})
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if row["precision"] == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
    compared = []

    def traced(function, *example):
        graph = fit_for_cpu(make_fx(lambda *tensors: function(*tensors))(*example))

        def both(*tensors):
            with torch.random.fork_rng():
                expected = function(*tensors)
            found = graph(*tensors)
            torch.testing.assert_close(found, expected, **tolerance)
            compared.append(function.__name__)
            return found

        return both

    pair = Pair(row, planar_data, CPU)
    monkeypatch.setattr("ddgm.pair.compiled", traced)
    pair.hasten(programs=True, graphs=False)
    for _ in range(2):
        pair.round()
    wanted = (
        {"both_gradients"} if row["schedule"]["kind"] == "simultaneous" else {"generator_gradient", "energy_gradient"}
    )
    assert wanted <= set(compared)
