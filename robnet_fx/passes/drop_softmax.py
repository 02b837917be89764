"""Take the softmax off the network's end: it keeps the order of the classes, and what is bounded are the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from robnet_fx.graphs import prune, shape_of
from robnet_fx.passes.base import graph_pass, is_canonical

aten = torch.ops.aten

_SOFTMAX = (aten.softmax.int, aten._softmax.default)
_LOG_SOFTMAX = (aten.log_softmax.int, aten._log_softmax.default)


def last_softmax(module: fx.GraphModule) -> str | None:
    """ "softmax" or "log_softmax" where the network ends in one over its classes, else None."""
    last = _last(module)
    if last.target not in (*_SOFTMAX, *_LOG_SOFTMAX) or last.args[1] not in (1, -len(shape_of(last))):
        return None
    return "softmax" if last.target in _SOFTMAX else "log_softmax"


def _ends_in_logits(module: fx.GraphModule) -> bool:
    """The network does not end in a softmax over its classes."""
    return last_softmax(module) is None


@graph_pass(requires=is_canonical, ensures=_ends_in_logits)
def drop_softmax(module: fx.GraphModule) -> None:
    """A softmax or log-softmax over the classes at the very end goes; margins of what is left have the same signs."""
    while last_softmax(module):
        last = _last(module)
        last.replace_all_uses_with(last.args[0])
    prune(module.graph)


def _last(module: fx.GraphModule) -> Any:
    """What makes the logits; where they are `[classes, 1, 1]` first, what makes these."""
    last = module.graph.find_nodes(op="output")[0].args[0]
    source = last.args[0] if last.target is aten.reshape.default else last
    return source if shape_of(source)[:1] == shape_of(last) else last
