"""RSIP for the units of an intermediate layer: rows in chunks that fit into memory, and only those that can help."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, fx, nn

from robnet_fx import kernels
from robnet_fx.domains import Interval, Symbolic, intersect

_BUDGET = 2**25  # numbers a chunk may hold in its widest layer: 128 MiB in float32


class Rows(nn.Module):
    """A loop over rows of RSIP through `graph`, a module `(image, rows, *pre) -> bounds of the rows from above`.

    A row is one unit of the layer, both its signs. `widest` is the size of the widest layer that a row meets.
    """

    def __init__(self, graph: fx.GraphModule, widest: int) -> None:
        super().__init__()
        self.graph = graph
        self.widest = widest

    def rows(self, units: Tensor, like: Tensor) -> Iterator[Tensor]:
        """`[B, 2 n, *S]`: the units and their negatives in parts of n, for a value like this one, `[B, *S]`."""
        batch, shape = len(like), like.shape[1:]
        for part in units.split(max(1, _BUDGET // max(1, 2 * batch * self.widest))):
            rows = like.new_zeros(len(part), math.prod(shape))
            rows[torch.arange(len(part), device=part.device), part] = 1
            rows = torch.cat([rows, -rows]).reshape(1, 2 * len(part), *shape)
            yield rows.expand(batch, *rows.shape[1:])


class Tightened(Rows):
    """`(image, pre, *earlier pre) -> pre` tightened.

    A unit that `unstable` leaves out keeps its `pre`, for the relaxation is exact there already; it does so whatever
    its neighbours in the batch need.
    """

    def __init__(self, graph: fx.GraphModule, widest: int, unstable: Callable[[Interval], Tensor]) -> None:
        super().__init__(graph, widest)
        self.unstable = unstable

    def forward(self, image: Tensor, pre: Interval, *earlier: Interval) -> Interval:
        unstable = self.unstable(pre)
        units = unstable.flatten(1).any(0).nonzero().flatten()
        if not len(units):
            return pre
        lowers, uppers = [], []
        for rows in self.rows(units, pre.lower):
            upper, negated = self.graph(image, rows, *earlier).chunk(2, 1)
            lowers.append(-negated)
            uppers.append(upper)
        index = units.expand(len(image), -1)
        lower = pre.lower.flatten(1).scatter(1, index, torch.cat(lowers, 1)).reshape_as(pre.lower)
        upper = pre.upper.flatten(1).scatter(1, index, torch.cat(uppers, 1)).reshape_as(pre.upper)
        tight = intersect(pre, Interval(lower, upper))
        return Interval(*(torch.where(unstable, new, old) for new, old in zip(tight, pre, strict=True)))


class Anchored(Rows):
    """`(image, ssip, *earlier pre) -> ssip` with the units' own lines of RSIP where these are tighter.

    A unit without slack is exact already.
    """

    def forward(self, image: Tensor, ssip: Symbolic, *earlier: Interval) -> Symbolic:
        shape = ssip.const.shape[1:]
        old = Symbolic(*(part.flatten(part.dim() - len(shape)) for part in ssip))
        units = (old.slack != 0).any(0).nonzero().flatten()
        if not len(units):
            return ssip
        parts = [parallel(self.graph(image, rows, *earlier)) for rows in self.rows(units, ssip.const)]
        new = Symbolic(*(torch.cat(pieces, -1) for pieces in zip(*parts, strict=True)))
        kept = Symbolic(*(part[..., units] for part in old))
        better = ~(_radius(new) >= _radius(kept)) & (kept.slack != 0)  # also where what is kept is NaN
        chosen = [
            torch.where(better if n.dim() == 2 else better.unsqueeze(1), n, k) for n, k in zip(new, kept, strict=True)
        ]
        return Symbolic(*(o.index_copy(-1, units, c).unflatten(-1, shape) for o, c in zip(old, chosen, strict=True)))


def parallel(upper: Symbolic) -> Symbolic:
    """Upper lines of rows and of their negatives, `[B, 2 n]`, as parallel lines about the rows' values, `[B, n]`.

    The middle slope is kept; over the unit box the others lie no further from it than half their difference.
    """
    (up, down), (high, low), slacks = (part.chunk(2, -1) for part in upper)
    gap = (high + low).clamp(min=0) + kernels.reach(up + down)
    return Symbolic((up - down) / 2, (high - low) / 2, gap / 2 + torch.maximum(*slacks))


def _radius(x: Symbolic) -> Tensor:
    return kernels.reach(x.coef) + x.slack
