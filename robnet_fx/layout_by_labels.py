"""What labels add to what is known of a layout: under the right one the network is right more often."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from robnet_fx.chance import LEVEL, by_guessing, by_luck
from robnet_fx.graphs import LAYOUT
from robnet_fx.images import batches, to_float
from robnet_fx.layout import Layout, UnsettledLayout, arrange, channels_first
from robnet_fx.passes.insert_normalisation import Constants, Normalisation, per_channel
from robnet_fx.passes.base import input_of
from robnet_fx.errors import UsageError

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
    right, predicted = {}, {}
    for layout in unsettled.layouts:
        answers = _predicted(canonical, images[:_MOST], layout, mean, std)
        if answers is not None:
            predicted[layout], right[layout] = answers, answers == labels[:_MOST].cpu()
    ranked = sorted(right, key=lambda layout: -int(right[layout].sum()))
    best, *others = ranked or unsettled.layouts
    told = bool(ranked) and by_guessing(predicted[best], labels[:_MOST].cpu()) < LEVEL
    if not told or any(by_luck(right[best], right[other]) >= LEVEL for other in others):
        raise unsettled
    image.meta[LAYOUT] = best
    shares = [f"{float(right[layout].double().mean()):.1%}" for layout in ranked]
    return f"{best.axes}, {best.way}: {shares[0]} right, otherwise {' or '.join(shares[1:]) or 'impossible'}"


@torch.no_grad()
def _predicted(
    canonical: fx.GraphModule, images: Tensor, layout: Layout, mean: Constants, std: Constants
) -> Tensor | None:
    """The answers `[N]` where the images are understood so; None where the normalisation has other channels."""
    try:
        constants = [per_channel(name, value, layout.image) for name, value in (("mean", mean), ("std", std))]
    except UsageError:
        return None
    dtype = input_of(canonical).meta["dtype"]
    normalise = Normalisation(*(value.to(dtype) for value in constants))
    like = torch.zeros((), dtype=dtype)
    answers = []
    for part in batches(len(images), 128):
        pictures = normalise(channels_first(to_float(images[part], like), layout.axes))
        answers.append(canonical(arrange(pictures, layout.way, layout.taken)).argmax(1).cpu())
    return torch.cat(answers)
