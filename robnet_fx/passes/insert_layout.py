"""Put what arranges images in front of the network: from the user's axes to channels first, and on to the network's."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from robnet_fx.graphs import LAYOUT, shape_of
from robnet_fx.images.layout import CHANNELS_FIRST, CHANNELS_LAST, FLAT_PIXELS, Layout, UnsettledLayout
from robnet_fx.passes.base import ARRIVED, graph_pass, input_of, is_canonical, like, put_behind

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


@graph_pass(requires=is_canonical, ensures=is_canonical)
def insert_layout(module: fx.GraphModule, channels: int | None = None) -> None:
    """Images go in as the user has them (`layout.Layout`); what is put behind them later sees them channels first, and
    the network sees them channels last or flat, if that is what it takes. Raises `UnsettledLayout`."""
    image, layout = input_of(module), layout_of(module, channels)
    taken = shape_of(image)
    last = len(layout.image)
    value = image
    steps: list[tuple[str, Any, list[int], tuple[int, ...]]] = []
    if layout.axes == "nhwc":
        steps.append((ARRIVED, aten.permute.default, [0, last, *range(1, last)], layout.image))
    elif layout.axes == "nhw":
        steps.append((ARRIVED, aten.reshape.default, [-1, *layout.image], layout.image))
    if layout.way in (CHANNELS_LAST, FLAT_PIXELS):
        behind = (*layout.image[1:], layout.image[0])
        steps.append(("layout", aten.permute.default, [0, *range(2, last + 1), 1], behind))
    if layout.way not in (CHANNELS_FIRST, CHANNELS_LAST):
        steps.append(("layout", aten.reshape.default, [-1, *taken], taken))
    with module.graph.inserting_before(image.next):
        for name, target, sizes, shape in steps:
            made = module.graph.create_node("call_function", target, (value, sizes), name=name)
            value = like(made, image, "layout")
            value.meta["shape"] = shape
    put_behind(image, value)
    image.meta = {"shape": layout.given, "dtype": image.meta["dtype"], LAYOUT: layout}
