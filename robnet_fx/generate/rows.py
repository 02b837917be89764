"""Full RSIP for one intermediate layer: rows in chunks that fit into memory, and only those that can help."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from robnet_fx.domains import Interval, intersect

_BUDGET = 2**25  # numbers a chunk may hold in its widest layer: 128 MiB in float32


class Rows(nn.Module):
    """`(image, pre, *earlier pre) -> pre` tightened by RSIP through `graph`, a module `(image, rows, *pre) -> upper`.

    A row is one unit of the layer, both its signs. A unit that `unstable` leaves out keeps its `pre`, for the
    relaxation is exact there already; it does so whatever its neighbours in the batch need.
    """

    def __init__(self, graph: fx.GraphModule, unstable: Callable[[Interval], Tensor], widest: int) -> None:
        super().__init__()
        self.graph = graph
        self.unstable = unstable
        self.widest = widest

    def forward(self, image: Tensor, pre: Interval, *earlier: Interval) -> Interval:
        batch, shape = len(pre.lower), pre.lower.shape[1:]
        unstable = self.unstable(pre)
        units = unstable.flatten(1).any(0).nonzero().flatten()
        if not len(units):
            return pre
        size = math.prod(shape)
        chunk = max(1, _BUDGET // max(1, 2 * batch * self.widest))
        lowers, uppers = [], []
        for part in units.split(chunk):
            rows = pre.lower.new_zeros(len(part), size)
            rows[torch.arange(len(part), device=part.device), part] = 1
            rows = torch.cat([rows, -rows]).reshape(1, 2 * len(part), *shape)
            upper, negated = self.graph(image, rows.expand(batch, *rows.shape[1:]), *earlier).chunk(2, 1)
            lowers.append(-negated)
            uppers.append(upper)
        index = units.expand(batch, -1)
        lower = pre.lower.flatten(1).scatter(1, index, torch.cat(lowers, 1)).reshape_as(pre.lower)
        upper = pre.upper.flatten(1).scatter(1, index, torch.cat(uppers, 1)).reshape_as(pre.upper)
        tight = intersect(pre, Interval(lower, upper))
        return Interval(*(torch.where(unstable, new, old) for new, old in zip(tight, pre, strict=True)))
