"""Put the layout that the network takes in front of it: images stay `[B, C, *spatial]` up to there."""

from __future__ import annotations

import torch
from torch import fx

from robnet_fx.errors import UsageError
from robnet_fx.graphs import IMAGE_SHAPE, shape_of
from robnet_fx.layout import CHANNELS_FIRST, CHANNELS_LAST, layout
from robnet_fx.passes.base import graph_pass, input_of, is_canonical, like, put_behind

aten = torch.ops.aten


@graph_pass(requires=is_canonical, ensures=is_canonical)
def insert_layout(module: fx.GraphModule) -> None:
    """Images `[B, C, *spatial]` go in; the network sees them channels last or flat, if that is what it takes."""
    image = input_of(module)
    taken = shape_of(image)
    shape = image.meta.get(IMAGE_SHAPE, taken)
    way = layout(shape, taken)
    if way is None:
        raise UsageError(f"images {list(shape)} do not fit a network that takes {list(taken)}")
    if way == CHANNELS_FIRST:
        return
    target, sizes = aten.reshape.default, [-1, *taken]
    if way == CHANNELS_LAST:
        target, sizes = aten.permute.default, [0, *range(2, len(taken) + 1), 1]
    with module.graph.inserting_before(image.next):
        arranged = module.graph.create_node("call_function", target, (image, sizes), name="layout")
    put_behind(image, like(arranged, image, "layout"))
    image.meta = {"shape": tuple(shape), "dtype": image.meta["dtype"]}
