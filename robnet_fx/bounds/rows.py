"""RSIP for the units of an intermediate layer: rows in chunks that fit into memory, and only those that can help."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Interval, Symbolic, intersect
from robnet_fx.algebra.kernels import flat
from robnet_fx.rules import rule_for

_BUDGET = 2**25  # numbers a chunk may hold in its widest layer: 128 MiB in float32


@dataclass(frozen=True)
class Unstable:
    """Which units of `pre` are worth tightening for an operation: a rule's `unstable`, as a value that can be saved."""

    target: Any
    relaxer: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, pre: Interval) -> Tensor:
        rule = rule_for(self.target, self.relaxer)
        assert rule is not None
        return rule.unstable(pre, *self.args, **self.kwargs)


class Rows(nn.Module):
    """A loop over rows of RSIP through `graph`, a module `(image, rows, center, radius, *pre) -> bounds of the rows
    from above`.

    A row is one unit of the layer, both its signs. `widest` is the size of the widest layer that a row meets.
    """

    def __init__(self, graph: fx.GraphModule, widest: int) -> None:
        super().__init__()
        self.graph = graph
        self.widest = widest

    def rows(self, units: Tensor, like: Tensor) -> Iterator[Tensor]:
        """`[B, 2 n, *S]`: the units and their negatives in parts of n, for a value like this one, `[B, *S]`."""
        batch, shape = len(like), like.shape[1:]
        for part in units.split(max(1, _BUDGET // (2 * batch * self.widest))):
            rows = like.new_zeros(len(part), math.prod(shape))
            rows[torch.arange(len(part), device=part.device), part] = 1
            rows = torch.cat([rows, -rows]).reshape(1, 2 * len(part), *shape)
            yield rows.expand(batch, *rows.shape[1:])


class Tightened(Rows):
    """`(image, pre, center, radius, *earlier pre) -> pre` tightened over the box.

    A unit that `unstable` leaves out keeps its `pre`, for the relaxation is exact there already; it does so whatever
    its neighbours in the batch need.
    """

    def __init__(self, graph: fx.GraphModule, widest: int, unstable: Callable[[Interval], Tensor]) -> None:
        super().__init__(graph, widest)
        self.unstable = unstable

    def forward(self, image: Tensor, pre: Interval, center: Tensor, radius: Tensor, *earlier: Interval) -> Interval:
        unstable = flat(self.unstable(pre), 1)
        units = unstable.any(0).nonzero().flatten()
        if not len(units):
            return pre
        box = center, radius
        sides = [self.graph(image, rows, *box, *earlier).chunk(2, 1) for rows in self.rows(units, pre.lower)]
        uppers, negated = (torch.cat(side, 1) for side in zip(*sides, strict=True))
        old = Interval(*(flat(side, 1)[:, units] for side in pre))
        tight = intersect(old, Interval(-negated, uppers))
        return Interval(*_replaced(pre, units, old, tight, unstable[:, units]))


class Anchored(Rows):
    """`(image, ssip, center, radius, *earlier pre) -> ssip` with the units' own lines of RSIP where these are tighter.

    A unit without slack is exact already.
    """

    def forward(self, image: Tensor, ssip: Symbolic, center: Tensor, radius: Tensor, *earlier: Interval) -> Symbolic:
        slack = flat(ssip.slack, 1)
        units = (slack != 0).any(0).nonzero().flatten()
        if not len(units):
            return ssip
        box = center, radius
        lines = [parallel(self.graph(image, rows, *box, *earlier)) for rows in self.rows(units, ssip.const)]
        new = Symbolic(*(torch.cat(pieces, -1) for pieces in zip(*lines, strict=True)))
        old = Symbolic(flat(ssip.coef, 2)[..., units], *(flat(part, 1)[:, units] for part in ssip[1:]))
        better = ~(_radius(new) >= _radius(old)) & (old.slack != 0)  # also where the old ones are NaN
        return Symbolic(*_replaced(ssip, units, old, new, better))


def parallel(upper: Symbolic) -> Symbolic:
    """Upper lines of rows and of their negatives, `[B, 2 n]`, as parallel lines about the rows' values, `[B, n]`.

    The middle slope is kept; over the unit box the others lie no further from it than half their difference.
    """
    (up, down), (high, low), slacks = (part.chunk(2, -1) for part in upper)
    gap = (high + low).clamp(min=0) + kernels.reach(up + down)
    return Symbolic((up - down) / 2, (high - low) / 2, gap / 2 + torch.maximum(*slacks))


def _radius(x: Symbolic) -> Tensor:
    return kernels.reach(x.coef) + x.slack


def _replaced(
    value: tuple[Tensor, ...], units: Tensor, old: tuple[Tensor, ...], new: tuple[Tensor, ...], where: Tensor
) -> list[Tensor]:
    """The parts of a value with some of its units replaced, where `[B, n]` says so."""
    made = []
    for part, before, after in zip(value, old, new, strict=True):
        chosen = torch.where(where if after.dim() == 2 else where.unsqueeze(1), after, before)
        made.append(flat(part, after.dim() - 1).index_copy(-1, units, chosen).reshape(part.shape))
    return made
