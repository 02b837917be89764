"""Drop what changes nothing: reshapes of reshapes, reshapes to the same shape, and nodes nobody reads."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from robnet_fx.graphs import prune, shape_of
from robnet_fx.passes.base import graph_pass
from robnet_fx.passes.conditions import ANY, Fault

aten = torch.ops.aten


def no_idle_reshape(module: fx.GraphModule) -> Iterator[Fault]:
    """No reshape reads a reshape or keeps its input's shape."""
    for node in module.graph.nodes:
        if _is_reshape(node) and (_is_reshape(_source(node)) or _keeps(node)):
            yield "no reshape reads a reshape or keeps its input's shape", node


@graph_pass(requires=ANY, ensures=ANY.and_also(no_idle_reshape))
def simplify(module: fx.GraphModule) -> None:
    """Merge chains of reshapes, drop those that do nothing, and remove dead nodes."""
    for node in module.graph.nodes:
        if _is_reshape(node):
            while _is_reshape(_source(node)):
                node.args = (_source(node).args[0], *node.args[1:])
            if _keeps(node):
                node.replace_all_uses_with(_source(node))
    prune(module.graph)


def _is_reshape(node: fx.Node) -> bool:
    """A canonical reshape: `[-1, *S]`."""
    shape = node.args[1] if node.target is aten.reshape.default else None
    return isinstance(shape, (list, tuple)) and shape[0] == -1


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _keeps(node: fx.Node) -> bool:
    return shape_of(node) == shape_of(_source(node))
