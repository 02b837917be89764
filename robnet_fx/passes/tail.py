"""The tail of a perturbation, ordinary operations on what its affine entry gives, as nodes of the perturbed graph."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, fx, nn

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.running import undisturbed
from robnet_fx.graphs import MODEL, call, noted, output_of
from robnet_fx.passes.lower import lower
from robnet_fx.perturbations.base import Transform

aten = torch.ops.aten


class _Tail(nn.Module):
    """A tail as a network of its own, whose logits are the numbers of its value."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, value: Tensor) -> Tensor:
        return self.transform.tail(value).flatten(1)


def append_tail(module: fx.GraphModule, entry: fx.Node, transform: Transform, name: str) -> fx.Node:
    """Write the tail behind `entry`, the node of the perturbation's affine map, and return its value `[B, *S]`.

    `transform` is the sub-module `entry.name` of the graph; `name` says whose it is in messages. Nodes are called
    `tail_exp`; a tail that is the identity leaves none. Raises `UsageError` for a tail that is no function `[B, *S] ->
    [B, *S]` of the entry's value alone, and `UnsupportedError` for one that cannot be traced.
    """
    if "tail" in vars(transform) or "tail" in dict(transform.named_children()):
        raise UsageError(f"the tail of {name} is an attribute; define it as a method, tail(self, value)")
    if type(transform).tail is Transform.tail:
        return entry
    tail = lower(_traced(transform, _example(transform, entry), name))
    graph, like = module.graph, entry.meta["val"]
    made: dict[fx.Node, fx.Node] = {}
    for node in tail.graph.nodes:
        place = {"layer": ("tail", name), "source": node.meta.get("source", "")}
        if node.op == "placeholder":
            made[node] = entry
        elif node.op == "get_attr":
            own = graph.create_node("get_attr", _moved(node.target, entry.name), name=f"tail_{node.name}")
            made[node] = noted(own, like.new_empty(node.meta["shape"], dtype=node.meta["dtype"]), place)
        elif node.op == "call_function":
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), made.__getitem__)
            made[node] = call(graph, node.target, args, kwargs, place=place, name=f"tail_{node.name}")
    if "constants" in dict(tail.named_children()):
        transform.add_module("constants", tail.get_submodule("constants"))
    args = made[output_of(tail)], [-1, *entry.meta["shape"]]
    place = {"layer": ("tail", name), "source": ""}
    return call(graph, aten.reshape.default, args, place=place, name="tail", value=like)


def _moved(target: str, entry: str) -> str:
    """The name in the perturbed graph of a tensor of the tail's own, or of a constant that it makes."""
    own = f"{MODEL}.transform."
    return f"{entry}.{target.removeprefix(own)}"


def _example(transform: Transform, entry: fx.Node) -> Tensor:
    """Two values of the entry: those of the box's middle on random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, *entry.meta["shape"], generator=generator, dtype=torch.float64).to(entry.meta["dtype"])
    parts = (getattr(transform, part) for part in transform.part_names)
    return transform.rules.apply(transform.center.expand(2, -1), images, *parts)


def _traced(transform: Transform, example: Tensor, name: str) -> fx.GraphModule:
    needed = [p for p in inspect.signature(transform.tail).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise UsageError(
            f"the tail of {name} takes {', '.join(p.name for p in needed) or 'nothing'}, and gets the value of its "
            "entry alone\n  remedy  what depends on the image belongs into apply, and into the rules beside it"
        )
    made = transform.tail(example)
    if not isinstance(made, Tensor) or made.shape != example.shape:
        given = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UsageError(f"the tail of {name} must give a value of the shape {list(example.shape)}, not {given}")
    try:
        with undisturbed(_Tail(transform)) as guest:
            return trace_module(guest, example)
    except UnsupportedError as error:
        raise UnsupportedError(f"the tail of {name} cannot be bounded: {error}") from error
