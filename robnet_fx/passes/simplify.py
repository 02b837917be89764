"""Drop what changes nothing: reshapes of reshapes, reshapes to the same shape, and nodes nobody reads."""

from __future__ import annotations

import torch
from torch import fx

from robnet_fx.graphs import prune, shape_of
from robnet_fx.passes.base import graph_pass

aten = torch.ops.aten


def _any_graph(module: fx.GraphModule) -> bool:
    """Any graph."""
    return True


def _no_idle_reshape(module: fx.GraphModule) -> bool:
    """No reshape reads a reshape or keeps its input's shape."""
    return not any(_is_reshape(n) and (_is_reshape(_source(n)) or _keeps(n)) for n in module.graph.nodes)


@graph_pass(requires=_any_graph, ensures=_no_idle_reshape)
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
