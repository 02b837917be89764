"""Put the user's `(image - mean) / std` in front of the network, as nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from robnet_fx.errors import UsageError
from robnet_fx.graphs import shape_of
from robnet_fx.passes.base import graph_pass, input_of, is_canonical, like, put_behind

aten = torch.ops.aten


@graph_pass(requires=is_canonical, ensures=is_canonical)
def insert_normalisation(module: fx.GraphModule, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Images in [0, 1] go in; the network sees `(image - mean) / std`, one number a channel or one for all."""
    image = input_of(module)
    shape = shape_of(image)
    holder = nn.Module()
    holder.register_buffer("mean", _per_channel("mean", 0.0 if mean is None else mean, shape, image.meta["dtype"]))
    holder.register_buffer("std", _per_channel("std", 1.0 if std is None else std, shape, image.meta["dtype"]))
    if bool((holder.std <= 0).any()):
        raise UsageError("std must be positive")
    module.add_module("normalisation", holder)
    graph = module.graph
    with graph.inserting_before(image.next):
        value = image
        for name, target in (("mean", aten.sub.Tensor), ("std", aten.div.Tensor)):
            constant = graph.get_attr(f"normalisation.{name}")
            value = graph.create_node("call_function", target, (value, constant), name=f"normalise_{name}")
            like(value, image, "normalisation")
    put_behind(image, value)


def _per_channel(name: str, values: float | Sequence[float] | Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float64).flatten()
    channels = shape[0] if len(shape) > 1 else 1
    if len(tensor) not in (1, channels) or not bool(tensor.isfinite().all()):
        raise UsageError(f"{name} needs 1 or {channels} finite numbers, one a channel, not {tensor.tolist()}")
    return tensor.expand(channels).reshape(channels, *[1] * (len(shape) - 1)).to(dtype).clone()
