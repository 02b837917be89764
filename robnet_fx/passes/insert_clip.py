"""Put the pixel clip to [0, 1] in front of the network."""

from __future__ import annotations

import torch
from torch import fx

from robnet_fx.machine.torch_internals import Operator
from robnet_fx.passes.base import arrived, graph_pass, is_canonical, like, put_behind

aten = torch.ops.aten


@graph_pass(requires=is_canonical, ensures=is_canonical)
def insert_clip(module: fx.GraphModule, clip: str | None) -> None:
    """Keep pixels in [0, 1]: "relu" is the paper's `-(ReLU(-ReLU(x) + 1) - 1)` (§5), "clamp" one node, None nothing."""
    if clip is None:
        return
    image = arrived(module)
    graph = module.graph
    steps: list[tuple[Operator, tuple[float, ...]]] = [(aten.clamp.default, (0.0, 1.0))]
    if clip == "relu":
        steps = [(aten.relu.default, ()), (aten.rsub.Scalar, (1.0,))] * 2
    value = image
    with graph.inserting_before(image.next):
        for position, (target, args) in enumerate(steps):
            name = "clip" if position == len(steps) - 1 else f"clip_{position}"
            value = like(graph.create_node("call_function", target, (value, *args), name=name), image, "clip")
    put_behind(image, value)
