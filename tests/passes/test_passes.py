"""Graph passes: each on its own, their order, and the conditions they name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField, UsageError, WhiteNoise
from robnet_fx.graphs import copied, derive, prune
from robnet_fx.passes import insert_clip, insert_layout, insert_normalisation, insert_perturbation, simplify
from robnet_fx.passes.lower import lower
from robnet_fx.passes.pipeline import stages, to_clean, to_perturbed
from robnet_fx.problem import Problem
from tests.soundness import Drawing, draws

aten = torch.ops.aten


def drawn() -> fx.GraphModule:
    r = draws(0)
    drawing = Drawing(2, 3)
    return drawing.logits(drawing(aten.relu.default, drawing.x), r)


def names(module: fx.GraphModule) -> list[str]:
    return [node.name for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(("clip", "inserted"), [("relu", 4), ("clamp", 1), (None, 0)])
def test_the_clip_keeps_pixels_in_the_unit_interval(clip: str | None, inserted: int):
    source = drawn()
    clipped = insert_clip(source, clip)
    x = draws(1)(4, 2, 3) * 2
    torch.testing.assert_close(clipped(x), source(x if clip is None else x.clamp(0, 1)))
    assert len(names(clipped)) == len(names(source)) + inserted
    if clip:
        assert names(clipped)[inserted - 1] == "clip"
        assert all(node.meta["shape"] == (2, 3) for node in clipped.graph.nodes if node.name.startswith("clip"))


def test_the_clip_stands_before_the_normalisation_and_the_field_before_the_clip():
    source = insert_normalisation(drawn(), 0.5, 0.25)
    perturbed = insert_perturbation(insert_clip(source, "clamp"), BiasField(1, 0.2))
    assert names(perturbed)[:4] == ["field", "clip", "normalise_mean", "normalise_std"]
    assert [n.name for n in perturbed.graph.find_nodes(op="placeholder")] == ["coefficients", "image"]


@pytest.mark.parametrize(
    ("mean", "std"), [((0.4, 0.6), (0.2, 0.5)), (0.5, 0.25), (None, 0.5), (0.3, None), ([0.5], (0.1, 0.2))]
)
def test_normalisation_is_by_channel(mean, std):
    source = drawn()
    made = insert_normalisation(source, mean, std)
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    shift = torch.as_tensor(0.0 if mean is None else mean, dtype=torch.float64).reshape(-1, 1)
    scale = torch.as_tensor(1.0 if std is None else std, dtype=torch.float64).reshape(-1, 1)
    torch.testing.assert_close(made(x), source((x - shift) / scale))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.1, 0.2, 0.3), None, "mean needs 1 or 2"),
        (None, (0.1, 0.2, 0.3), "std needs 1 or 2"),
        (None, 0.0, "std must be positive"),
        (None, (0.5, -0.5), "std must be positive"),
        (float("nan"), None, "finite"),
        (None, float("inf"), "finite"),
    ],
)
def test_normalisation_that_does_not_fit_is_refused(mean, std, message: str):
    with pytest.raises(UsageError, match=message):
        insert_normalisation(drawn(), mean, std)


@pytest.mark.parametrize("perturbation", [BiasField(1, 0.2, True, True), WhiteNoise(0.2)])
def test_the_field_is_applied_to_the_image(perturbation):
    source = drawn()
    perturbed = insert_perturbation(source, perturbation)
    transform = perturbed.field
    x = torch.rand(3, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(perturbed(transform.center.expand(3, -1), x), source(x))
    a = transform.center + draws(2)(3, transform.dimensions)
    parts = [getattr(transform, name) for name in transform.part_names]
    torch.testing.assert_close(perturbed(a, x), source(transform.rules.apply(a, x, *parts)))
    assert {buffer.dtype for buffer in transform.buffers()} == {torch.float64}


def test_passes_leave_their_input_alone():
    source = drawn()
    code, meta = source.code, [dict(node.meta) for node in source.graph.nodes]
    for run in (
        lambda g: insert_clip(g, "relu"),
        lambda g: insert_normalisation(g, 0.5, 0.5),
        lambda g: insert_perturbation(g, BiasField(0, 0.1)),
        simplify,
    ):
        made = run(source)
        assert made is not source
        assert made.model is source.model
        made.graph.lint()
        assert source.code == code
        assert [dict(node.meta) for node in source.graph.nodes] == meta


def test_simplify_merges_reshapes_and_drops_what_nobody_reads():
    r = draws(0)
    drawing = Drawing(2, 3)
    value = drawing(aten.reshape.default, drawing.x, [-1, 2, 3])
    drawing(aten.relu.default, value)  # nobody reads it
    value = drawing(aten.reshape.default, value, [-1, 6])
    value = drawing(aten.reshape.default, value, [-1, 3, 2])
    value = drawing(aten.reshape.default, value, [-1, 6])
    both = drawing(
        aten.add.Tensor, value, drawing(aten.reshape.default, drawing(aten.reshape.default, value, [-1, 2, 3]), [-1, 6])
    )
    source = drawing.finish(drawing(aten.linear.default, both, r(3, 6), r(3)))
    made = simplify(source)
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(made(x), source(x))
    targets = [node.target for node in made.graph.nodes if node.op == "call_function"]
    assert targets.count(aten.reshape.default) <= 2
    assert aten.relu.default not in targets
    assert simplify(made).code == made.code


def test_a_flatten_between_nothing_disappears():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x.flatten(1)).flatten(1).view(-1, 4))

    net = robnet_fx.bound(Net(), BiasField(0, 0.1), "ibp", clip=None, example=torch.rand(2, 1, 4))
    assert names(net.perturbed) == ["field", "reshape", "linear", "linear_1"]


def test_each_stage_can_be_seen_with_what_made_it():
    source = robnet_fx.trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1)), torch.rand(2, 1, 4))
    seen = [*stages(source, to_clean(0.5, 0.5))]
    seen += stages(seen[-1], to_perturbed(BiasField(0, 0.1), "clamp"))
    made = ["drop_softmax", "lower", "simplify", "insert_layout", "insert_normalisation"]
    made += ["insert_clip", "insert_perturbation", "simplify"]
    assert [graph.meta["passes"][-1] for graph in seen] == made
    assert seen[-1].meta["passes"] == ("trace", *made)
    assert [names(graph)[:2] for graph in seen[3:7:3]] == [["reshape", "linear"], ["field", "clip"]]


def test_what_is_lowered_behind_an_insertion_finds_its_metadata():
    """Passes may be run in another order: what they insert says all that the next one asks for."""
    r = draws(0)
    drawing = Drawing(2, 3)
    source = drawing.logits(drawing(aten.layer_norm.default, drawing.x, [3], r(3), r(3)), r)
    made = lower(insert_normalisation(insert_clip(insert_layout(source), "relu"), 0.3, 0.5))
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(made(x), source(((x - 0.3) / 0.5).clamp(0, 1)))
    assert all("val" in node.meta for node in made.graph.nodes if node.op != "output")


def test_an_unknown_clip_is_refused():
    with pytest.raises(UsageError, match="clip must be one of"):
        Problem(BiasField(0, 0.1), "tanh")


def test_graph_tools_keep_sub_modules_and_prune_dead_nodes():
    source = drawn()
    graph = copied(source).graph
    assert [node.name for node in graph.nodes] == [node.name for node in source.graph.nodes]
    with graph.inserting_before(next(iter(graph.find_nodes(op="output")))):
        graph.call_function(aten.relu.default, (graph.find_nodes(op="placeholder")[0],))
    prune(graph)
    made = derive(source, graph, "Copy")
    assert type(made).__name__ == "Copy"
    assert len(made.graph.nodes) == len(source.graph.nodes)
    assert made.model is source.model
