"""Put what arranges images in front of the network: from the user's axes to channels first, and on to the network's."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from robnet_fx.graphs import LAYOUT, call, input_of, noted, shape_of
from robnet_fx.images.layout import CHANNELS_FIRST, CHANNELS_LAST, FLAT_PIXELS, Layout, UnsettledLayout
from robnet_fx.passes.base import ARRIVED, graph_pass, inserted, put_behind
from robnet_fx.passes.conditions import CANONICAL, settled

aten = torch.ops.aten


def layout_of(module: fx.GraphModule, channels: int | None = None) -> Layout:
    """The layout of a canonical graph's images, by their number of `channels` where it is open without. A graph that
    says nothing takes them as they are. Raises `UnsettledLayout`."""
    image = input_of(module)
    taken = shape_of(image)
    layout: Layout | UnsettledLayout = image.meta.get(LAYOUT, Layout("nchw", taken, CHANNELS_FIRST, taken))
    if not isinstance(layout, UnsettledLayout):
        return layout
    if (settled := layout.with_channels(channels)) is None:
        raise layout
    return settled


@graph_pass(requires=CANONICAL, ensures=CANONICAL.and_also(settled))
def insert_layout(module: fx.GraphModule, channels: int | None = None) -> None:
    """Images go in as the user has them (`layout.Layout`); what is put behind them later sees them channels first, and
    the network sees them channels last or flat, if that is what it takes. Raises `UnsettledLayout`."""
    image, layout = input_of(module), layout_of(module, channels)
    taken, value = shape_of(image), image.meta["val"]
    last = len(layout.image)
    steps: list[tuple[str, Any, list[int]]] = []
    if layout.axes == "nhwc":
        steps.append((ARRIVED, aten.permute.default, [0, last, *range(1, last)]))
    elif layout.axes == "nhw":
        steps.append((ARRIVED, aten.reshape.default, [-1, *layout.image]))
    if layout.way in (CHANNELS_LAST, FLAT_PIXELS):
        steps.append(("layout", aten.permute.default, [0, *range(2, last + 1), 1]))
    if layout.way not in (CHANNELS_FIRST, CHANNELS_LAST):
        steps.append(("layout", aten.reshape.default, [-1, *taken]))
    noted(image, value.new_empty((value.shape[0], *layout.given)), inserted("image"), batch=True)
    image.meta[LAYOUT] = layout
    made = image
    with module.graph.inserting_before(image.next):
        for name, target, sizes in steps:
            made = call(module.graph, target, (made, sizes), place=inserted("layout"), name=name)
    put_behind(image, made)
