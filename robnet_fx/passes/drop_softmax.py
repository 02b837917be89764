"""Take a softmax or sigmoid off the network's end: it keeps the order of the classes, and what is bounded are the
logits. One number a sample becomes the logits of two classes."""

from __future__ import annotations

import torch
from torch import fx

from robnet_fx.errors import UnsupportedError
from robnet_fx.graphs import prune, shape_of
from robnet_fx.machine.torch_internals import Operator
from robnet_fx.passes.base import graph_pass, is_canonical
from robnet_fx.passes.head import head_of, is_single, last_function, output_of

aten = torch.ops.aten


def _ends_in_logits(module: fx.GraphModule) -> bool:
    """The network gives at least two logits and does not end in a softmax or sigmoid of them."""
    return last_function(module) is None and len(shape_of(output_of(module))) == 1 and not is_single(module)


@graph_pass(requires=is_canonical, ensures=_ends_in_logits)
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


def _behind(module: fx.GraphModule, last: fx.Node, target: Operator, *args: object) -> fx.Node:
    """A call on the output that becomes the output, in the name of the layer that made it."""
    output = module.graph.find_nodes(op="output")[0]
    with module.graph.inserting_before(output):
        made = module.graph.create_node("call_function", target, (last, *args), name="logits")  # type: ignore[arg-type]
    made.meta = {key: value for key, value in last.meta.items() if key in ("layer", "source", "dtype")}
    made.meta["val"] = target(last.meta["val"], *args)
    made.meta["shape"] = tuple(made.meta["val"].shape[1:])
    output.args = (made,)
    return made
