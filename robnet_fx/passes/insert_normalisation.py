"""Put the user's `(image - mean) / std` in front of the network, as nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from robnet_fx.errors import UsageError
from robnet_fx.graphs import call, noted, shape_of
from robnet_fx.passes.base import arrived, graph_pass, inserted, put_behind
from robnet_fx.passes.conditions import CANONICAL
from robnet_fx.problem import Constants

aten = torch.ops.aten

NORMALISATION = "normalisation"  # the sub-module that holds the constants


class Normalisation(nn.Module):
    """Holds `mean` and `std`, `[C, 1, ...]`; called on images it is what the inserted nodes compute."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        """`(images - mean) / std`."""
        return (images - self.mean) / self.std


@graph_pass(requires=CANONICAL, ensures=CANONICAL)
def insert_normalisation(module: fx.GraphModule, mean: Constants, std: Constants) -> None:
    """Images in [0, 1] go in; the network sees `(image - mean) / std`, one number a channel or one for all. Nothing is
    inserted where neither is given. Raises `UsageError` for constants that do not fit."""
    if mean is None and std is None:
        return
    image = arrived(module)
    shape, dtype = shape_of(image), image.meta["dtype"]
    shift = per_channel("mean", mean, shape).to(dtype)
    scale = per_channel("std", std, shape).to(dtype)
    if bool((scale <= 0).any()):
        raise UsageError("std must be positive")
    module.add_module(NORMALISATION, Normalisation(shift, scale))
    graph, place = module.graph, inserted("normalisation")
    value = image
    with graph.inserting_before(image.next):
        for name, target, constant in (("mean", aten.sub.Tensor, shift), ("std", aten.div.Tensor, scale)):
            held = noted(graph.get_attr(f"{NORMALISATION}.{name}"), image.meta["val"].new_empty(constant.shape), place)
            value = call(graph, target, (value, held), place=place, name=f"normalise_{name}")
    put_behind(image, value)


def channels_of(mean: Constants, std: Constants) -> int | None:
    """How many channels a normalisation speaks of; None where it has one number for all."""
    counts = {len(given) for given in (mean, std) if isinstance(given, Sequence) and len(given) > 1}
    return counts.pop() if len(counts) == 1 else None


def per_channel(name: str, values: Constants, shape: tuple[int, ...]) -> Tensor:
    """`[C, 1, ...]` in float64: the "mean" (0 if not given) or "std" (1) of images `(C, *spatial)`. Raises `UsageError`
    for another number of them."""
    values = {"mean": 0.0, "std": 1.0}[name] if values is None else values
    tensor = torch.as_tensor(values, dtype=torch.float64).flatten()
    channels = shape[0] if len(shape) > 1 else 1
    if len(tensor) not in (1, channels) or not bool(tensor.isfinite().all()):
        raise UsageError(f"{name} needs 1 or {channels} finite numbers, one a channel, not {tensor.tolist()}")
    return tensor.expand(channels).reshape(channels, *[1] * (len(shape) - 1)).clone()
