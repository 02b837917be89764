"""The conditions of passes: each invariant has a graph that breaks it, and the error says which pass, node and why."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import fx, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.graphs import ENTRY, LAYOUT, MODEL, PASSES, copied
from robnet_fx.passes import drop_softmax, insert_clip, insert_layout, insert_perturbation, simplify
from robnet_fx.passes.base import PassError, graph_pass
from robnet_fx.passes.conditions import ANY, CANONICAL, CLEAN, PERTURBED, Condition, logits
from robnet_fx.passes.drop_softmax import no_function_of_logits
from robnet_fx.passes.lower import lower, nothing_composite
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.passes.simplify import no_idle_reshape
from tests.soundness import Drawing

aten = torch.ops.aten


@cache
def stage(condition: Condition) -> fx.GraphModule:
    if condition == CLEAN:
        return clean(stage(CANONICAL), 0.5, 0.5)
    if condition == PERTURBED:
        return perturb(stage(CLEAN), BiasField(1, 0.1), "relu")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    return robnet_fx.trace(net, torch.rand(2, 1, 4, 4))


def traced() -> fx.GraphModule:
    """A copy, to be broken."""
    return copied(stage(CANONICAL))


def node(module: fx.GraphModule, name: str) -> fx.Node:
    return next(each for each in module.graph.nodes if each.name == name)


def meta(name: str, key: str, value: Callable[[Any], Any]) -> Callable[[fx.GraphModule], None]:
    """Change one entry of a node's meta; None takes it out."""

    def change(module: fx.GraphModule) -> None:
        entries = node(module, name).meta
        changed = value(entries.pop(key))
        if changed is not None:
            entries[key] = changed

    return change


def without(child: str) -> Callable[[fx.GraphModule], None]:
    return lambda module: delattr(module, child)


def target(name: str, other: Any) -> Callable[[fx.GraphModule], None]:
    def change(module: fx.GraphModule) -> None:
        node(module, name).target = other

    return change


def as_method(module: fx.GraphModule) -> None:
    relu = node(module, "relu")
    with module.graph.inserting_before(relu):
        made = module.graph.call_method("relu", relu.args)
    made.meta = dict(relu.meta)
    relu.replace_all_uses_with(made)


def two_outputs(module: fx.GraphModule) -> None:
    output = module.graph.find_nodes(op="output")[0]
    output.args = ((output.args[0], output.args[0]),)


def output(name: str) -> Callable[[fx.GraphModule], None]:
    def change(module: fx.GraphModule) -> None:
        module.graph.find_nodes(op="output")[0].args = (node(module, name),)

    return change


def one_more_input(module: fx.GraphModule) -> None:
    image = module.graph.find_nodes(op="placeholder")[0]
    with module.graph.inserting_before(image):
        module.graph.placeholder("more").meta = dict(image.meta)


def renamed(module: fx.GraphModule) -> None:
    node(module, ENTRY).name = "entry"


BREAKS = [
    (CANONICAL, one_more_input, "the only input is the image, and these are more, x"),
    (CLEAN, one_more_input, "the only input is the image"),
    (PERTURBED, one_more_input, "the inputs are coefficients, image, and these are more, coefficients, image"),
    (ANY, without(MODEL), "the user's module is the sub-module model"),
    (PERTURBED, without(ENTRY), "the box is held by the sub-module field"),
    (PERTURBED, renamed, "the coefficients enter at the node field"),
    (ANY, as_method, "no call_method"),
    (ANY, target("relu", torch.relu), "an ATen overload or a function"),
    (ANY, target("relu", operator.neg), "an ATen overload or a function"),
    (ANY, target("relu", aten.relu_.default), "no operation writes to its arguments, as aten.relu_.default does"),
    (ANY, two_outputs, "the output is one node"),
    (ANY, output("model_3_weight"), "the output has the batch as its first axis"),
    (ANY, meta("relu", "val", lambda value: None), "of what sizes and dtype"),
    (ANY, meta("relu", "val", lambda value: (value, value)), "is one tensor"),
    (ANY, meta("model_3_weight", "val", lambda value: None), "of what sizes and dtype"),
    *((ANY, meta("relu", key, lambda value: None), f"a node says its {key}") for key in ("shape", "dtype", "layer")),
    (ANY, meta("model_3_weight", "source", lambda value: None), "a node says its source"),
    (ANY, meta("relu", "dtype", lambda value: torch.float64), "torch.float64, is that of its value, torch.float32"),
    (ANY, meta("relu", "shape", lambda value: (3, 2, 2)), r"\[3, 2, 2\], is that of its value, \[s\d+, 2, 2, 2\]"),
    (ANY, meta("model_3_weight", "shape", lambda value: (8,)), r"\[8\], is that of its value, \[3, 8\]"),
    (ANY, meta("relu", "val", lambda value: value.movedim(0, 1)), "the batch is the first axis"),
    (ANY, meta("x", "shape", lambda value: None), "a node says its shape"),
    (CLEAN, output("relu"), "a logit for each of two classes or more"),
    (PERTURBED, output("relu"), "a logit for each of two classes or more"),
    (CLEAN, meta("x", LAYOUT, lambda value: None), "the layout of the images is settled"),
]


@pytest.mark.parametrize(("condition", "breaks", "message"), BREAKS)
def test_each_invariant_is_seen_where_it_breaks(condition: Condition, breaks, message: str):
    module = copied(stage(condition))
    assert condition.fault(module) == ""
    breaks(module)
    assert re.search(message, condition.fault(module)), condition.fault(module)


@pytest.mark.parametrize("shape", ["moved", "twice", "input"])
def test_the_batch_is_the_first_axis(shape: str):
    module = traced()
    relu, image = node(module, "relu"), node(module, "x")
    value = relu.meta["val"]
    if shape == "moved":
        relu.meta |= {"val": value.movedim(0, 1), "shape": value.movedim(0, 1).shape}
    elif shape == "twice":
        relu.meta |= {"val": (twice := value.new_empty((*value.shape[:1], *value.shape[:1]))), "shape": twice.shape[1:]}
    else:
        image.meta |= {"val": (fixed := value.new_empty((1, 4, 4))), "shape": fixed.shape}
    message = "an input has the batch" if shape == "input" else "the batch is the first axis of what depends"
    assert message in CANONICAL.fault(module)


def drawn(*targets: Any) -> fx.GraphModule:
    """Calls of one argument each, in a row."""
    drawing = Drawing(2, 3)
    value = drawing.flat(drawing.x)
    for target, *args in targets:
        value = drawing(target, value, *args)
    return drawing.finish(value)


@pytest.mark.parametrize(
    ("invariant", "module", "message"),
    [
        (no_idle_reshape, drawn((aten.reshape.default, [-1, 3, 2]), (aten.reshape.default, [-1, 6])), "no reshape"),
        (no_idle_reshape, drawn((aten.relu.default,), (aten.reshape.default, [-1, 6])), "no reshape reads"),
        (nothing_composite, drawn((aten.layer_norm.default, [6])), "aten.layer_norm.default of what depends"),
        (no_function_of_logits, drawn((aten.softmax.int, 1)), "the network ends in logits"),
        (logits, drawn((aten.reshape.default, [-1, 2, 3])), "a logit for each"),
        (logits, drawn((aten.slice.Tensor, 1, 0, 1)), "a logit for each"),
    ],
)
def test_what_a_pass_adds_is_seen_where_it_breaks(invariant, module: fx.GraphModule, message: str):
    assert CANONICAL.fault(module) == ""
    assert message in CANONICAL.and_also(invariant).fault(module)


def test_an_error_says_which_pass_and_node_and_what_was_run_before():
    perturbed = perturb(clean(traced()), BiasField(0, 0.1), "clamp")
    with pytest.raises(PassError) as caught:
        insert_clip(perturbed, "clamp")
    assert str(caught.value).splitlines() == [
        "pass insert_clip needs a graph that is canonical, and this one is not: the only input is the image, and these"
        " are coefficients, image",
        "  passes  trace, drop_softmax, lower, simplify, insert_layout, insert_normalisation, insert_clip,"
        " insert_perturbation, simplify",
    ]

    @graph_pass(requires=CANONICAL, ensures=CANONICAL)
    def breaks(module: fx.GraphModule) -> None:
        del node(module, "relu").meta["dtype"]

    with pytest.raises(PassError) as caught:
        breaks(simplify(traced()))
    first, where, layer, passes = str(caught.value).splitlines()
    assert first == "pass breaks leaves a graph that is canonical, and this one is not: a node says its dtype"
    assert where == "  node    relu         [B, 2, 2, 2]" and layer == "  layer   1 (torch.nn.ReLU)"
    assert passes == "  passes  trace, simplify"


@pytest.mark.parametrize(
    "run", [drop_softmax, lower, insert_layout, lambda g: insert_perturbation(g, BiasField(0, 0.1))]
)
def test_every_pass_checks_what_it_is_given(run):
    module = traced()
    del node(module, "relu").meta["val"]
    with pytest.raises(PassError, match="needs a graph that is canonical, and this one is not"):
        run(module)
    assert module.meta[PASSES] == ("trace",)
