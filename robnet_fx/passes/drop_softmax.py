"""Take a softmax or sigmoid off the network's end: it keeps the order of the classes, and what is bounded are the
logits. One number a sample becomes the logits of two classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from robnet_fx.errors import UnsupportedError
from robnet_fx.graphs import call, output_of, prune, shape_of
from robnet_fx.passes.base import graph_pass
from robnet_fx.passes.conditions import CANONICAL, Fault, logits
from robnet_fx.passes.head import head_of, last_function

aten = torch.ops.aten


def no_function_of_logits(module: fx.GraphModule) -> Iterator[Fault]:
    """The network does not end in a softmax or sigmoid of its logits."""
    if (found := last_function(module)) is not None:
        yield "the network ends in logits and not in a function that keeps their order", found[1]


@graph_pass(requires=CANONICAL, ensures=CANONICAL.and_also(logits, no_function_of_logits))
def drop_softmax(module: fx.GraphModule) -> None:
    """A softmax, log-softmax or sigmoid of the classes at the very end goes; margins of what is left have the same
    signs. One number z a sample becomes `[0, z]`, a probability p `[0, p - 1/2]`: class 1 where it is positive.

    Raises UnsupportedError for one number that can be neither."""
    head = head_of(module)
    if head.refusal:
        raise UnsupportedError(head.refusal)
    while (found := last_function(module)) is not None:
        _, node = found
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        if head.single:  # of another one in front of it the threshold is not 1/2
            break
    last = output_of(module)
    if len(shape_of(last)) != 1:
        last = _behind(module, last, aten.reshape.default, [-1, max(1, torch.Size(shape_of(last)).numel())])
    if head.single:
        if head.function == "probability":
            last = _behind(module, last, aten.add.Tensor, -0.5)
        _behind(module, last, aten.pad.default, [1, 0])
    prune(module.graph)


def _behind(module: fx.GraphModule, last: fx.Node, target: Any, *args: object) -> fx.Node:
    """A call on the output that becomes the output, in the name of the layer that made it."""
    output = module.graph.find_nodes(op="output")[0]
    with module.graph.inserting_before(output):
        made = call(module.graph, target, (last, *args), place=last.meta, name="logits")
    output.args = (made,)
    return made
