"""What labels and a normalisation add to what is known of a layout, and images brought to channels first."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from robnet_fx.errors import UsageError
from robnet_fx.graphs import LAYOUT, input_of
from robnet_fx.images.layout import Layout, UnsettledLayout, arrange, channels_first
from robnet_fx.images.pixels import batches, to_float
from robnet_fx.opening.chance import LEVEL, by_guessing, by_luck
from robnet_fx.passes.drop_softmax import drop_softmax
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.passes.insert_normalisation import Normalisation, channels_of, per_channel
from robnet_fx.problem import Constants

_MOST = 512  # images: enough to tell, and soon done


def settle_by_labels(
    canonical: fx.GraphModule, images: Tensor, labels: Tensor, mean: Constants = None, std: Constants = None
) -> str:
    """Settle the layout of a canonical graph in place, where `trace` could not, and say how.

    images `[N, *given]` uint8 or float in [0, 1], labels `[N]`. A layout is told where its accuracy is above chance and
    clearly above that of every other one, both by exact tests. Where it is settled already the answer is empty.
    Raises `UnsettledLayout` where labels cannot tell either: two layouts may feed the network the same numbers.
    """
    image = input_of(canonical)
    unsettled = image.meta.get(LAYOUT)
    if not isinstance(unsettled, UnsettledLayout):
        return ""
    if (only := unsettled.with_channels(channels_of(mean, std))) is not None:
        image.meta[LAYOUT] = only
        return ""
    network, wanted = drop_softmax(canonical), labels[:_MOST].cpu()
    predicted: dict[Layout, Tensor] = {}
    for layout in unsettled.layouts:
        answers = _predicted(network, images[:_MOST], layout, mean, std)
        if answers is not None:
            predicted[layout] = answers
    right = {layout: answers == wanted for layout, answers in predicted.items()}
    best, *others = sorted(right, key=lambda layout: -int(right[layout].sum())) or unsettled.layouts
    told = best in right and by_guessing(predicted[best], wanted) < LEVEL
    if not told or any(by_luck(right[best], right[other]) >= LEVEL for other in others):
        raise unsettled
    image.meta[LAYOUT] = best
    shares = [f"{float(right[layout].double().mean()):.1%}" for layout in (best, *others)]
    return f"{best}: so {shares[0]} of the images are right, and otherwise {' or '.join(shares[1:])}"


def with_channels_first(canonical: fx.GraphModule, mean: Constants = None, std: Constants = None) -> tuple[str, Layout]:
    """Have a canonical graph take its images channels first, in place: (the axes they had, the layout from now on).

    Raises `UnsettledLayout` where its layout is not known.
    """
    layout = layout_of(canonical, channels_of(mean, std))
    now = replace(layout, axes="nchw")
    input_of(canonical).meta[LAYOUT] = now
    return layout.axes, now


@torch.no_grad()
def _predicted(
    network: fx.GraphModule, images: Tensor, layout: Layout, mean: Constants, std: Constants
) -> Tensor | None:
    """The answers `[N]` where the images are understood so; None where the normalisation has other channels."""
    try:
        constants = [per_channel(name, value, layout.image) for name, value in (("mean", mean), ("std", std))]
    except UsageError:
        return None
    like = torch.zeros((), dtype=input_of(network).meta["dtype"])
    normalise = Normalisation(*(value.to(like) for value in constants))
    answers = []
    for part in batches(len(images), 128):
        pictures = normalise(channels_first(to_float(images[part], like), layout.axes))
        answers.append(network(arrange(pictures, layout.way, layout.taken)).argmax(1).cpu())
    return torch.cat(answers)
