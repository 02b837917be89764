"""Parts of a value whose batch axis was moved, taken where it still comes first.

Attention splits queries, keys and values as `qkv.permute(2, 0, 3, 1, 4)[0]`. Between the two steps the batch is not in
front, where bounds keep it; selecting before permuting gives the same value, and it is.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher

from robnet_fx.frontend.canonical import IDENTITIES
from robnet_fx.graphs import argument, prune

aten = torch.ops.aten


def select_before_moves(graph: fx.Graph) -> None:
    """Rewrite `x.permute(...)[i]` in a traced graph, and the same by `transpose` and `unbind`, as a permutation of a
    selection of x, where the permutation puts an axis before the batch. Other uses stay as they are."""
    for node in list(graph.nodes):
        taken = _taken(node)
        if taken is None:
            continue
        moved, axis, index = taken
        while moved.target in IDENTITIES:
            moved = moved.args[0]
        order = _order(moved)
        if order is None or not any(isinstance(size, torch.SymInt) for size in moved.meta["val"].shape[1:]):
            continue
        source: Any = moved.args[0]
        axis = order.pop(axis % len(order))
        if isinstance(source.meta["val"].shape[axis], torch.SymInt):
            continue
        with graph.inserting_before(node):
            part = call(node, aten.select.int, source, axis, index)
            if order != sorted(order):
                part = call(node, aten.permute.default, part, [other - (other > axis) for other in order])
        node.replace_all_uses_with(part)
    prune(graph)


def call(node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call on the way to what replaces a traced node, with its place in the model; worked out on fake values."""
    made = node.graph.call_function(target, args, kwargs)
    values, named = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
    with enable_python_dispatcher():  # some operations would fix the batch size in C++
        made.meta = node.meta | {"val": target(*values, **named)}
    return made


def _taken(node: fx.Node) -> tuple[Any, int, int] | None:
    """(x, axis, index) of a node that is `x.select(axis, index)`."""
    if node.target is aten.select.int:
        return node.args[0], argument(node, "dim", 0), argument(node, "index", 0)
    if node.target is operator.getitem and node.args[0].target is aten.unbind.int:  # type: ignore[union-attr]
        parts, index = node.args
        return parts.args[0], argument(parts, "dim", 0), index  # type: ignore[union-attr, arg-type, return-value]
    return None


def _order(node: fx.Node) -> list[int] | None:
    """Where each axis of a permutation comes from; None for anything else."""
    if node.target is aten.permute.default:
        dims: Any = node.args[1]
        return [dim % len(dims) for dim in dims]
    if node.target is aten.transpose.int:
        order = list(range(node.meta["val"].dim()))
        first, second = (order[dim] for dim in node.args[1:])  # type: ignore[index]
        order[first], order[second] = second, first
        return order
    return None
