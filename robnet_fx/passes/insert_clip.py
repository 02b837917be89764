"""Put the pixel clip to [0, 1] in front of the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from robnet_fx.graphs import call
from robnet_fx.passes.base import arrived, graph_pass, inserted, put_behind
from robnet_fx.passes.conditions import CANONICAL

aten = torch.ops.aten


@graph_pass(requires=CANONICAL, ensures=CANONICAL)
def insert_clip(module: fx.GraphModule, clip: str | None) -> None:
    """Keep pixels in [0, 1]: "relu" is the paper's `-(ReLU(-ReLU(x) + 1) - 1)` (§5), "clamp" one node, None nothing."""
    if clip is None:
        return
    image = arrived(module)
    steps: list[tuple[Any, tuple[float, ...]]] = [(aten.clamp.default, (0.0, 1.0))]
    if clip == "relu":
        steps = [(aten.relu.default, ()), (aten.rsub.Scalar, (1.0,))] * 2
    value = image
    with module.graph.inserting_before(image.next):
        for position, (target, args) in enumerate(steps):
            name = "clip" if position == len(steps) - 1 else f"clip_{position}"
            value = call(module.graph, target, (value, *args), place=inserted("clip"), name=name)
    put_behind(image, value)
