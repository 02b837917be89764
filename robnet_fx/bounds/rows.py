"""RSIP for the units of an intermediate layer: rows in chunks that fit into memory, and only those that can help."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra import corners
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
    """`(image, pre, ssip, center, radius, *earlier pre) -> pre` tightened over the box; `ssip` is None without SSIP.

    A unit that `unstable` leaves out keeps its `pre`, for the relaxation is exact there already, and so does one whose
    symbolic form has no error yet, for RSIP is the same; whatever their neighbours in the batch need.
    """

    def __init__(self, graph: fx.GraphModule, widest: int, unstable: Callable[[Interval], Tensor]) -> None:
        super().__init__(graph, widest)
        self.unstable = unstable

    def forward(
        self, image: Tensor, pre: Interval, ssip: Symbolic | None, center: Tensor, radius: Tensor, *earlier: Interval
    ) -> Interval:
        unstable = flat(self.unstable(pre), 1)
        if ssip is not None:
            unstable = unstable & (flat(corners.error(ssip, center.shape[1]), 1) != 0)  # NaN is an error too
        units = unstable.any(0).nonzero().flatten()
        if not len(units):
            return pre
        box = center, radius
        pairs = [self.graph(image, rows, *box, *earlier).chunk(2, 1) for rows in self.rows(units, pre.lower)]
        uppers, negated = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
        old = Interval(*(flat(side, 1)[:, units] for side in pre))
        tight = intersect(old, Interval(-negated, uppers))
        sides = zip(pre, old, tight, strict=True)
        return Interval(*(_replaced(*side, units, unstable[:, units]) for side in sides))


def _replaced(end: Tensor, old: Tensor, tight: Tensor, units: Tensor, where: Tensor) -> Tensor:
    """An end of a value's interval with some of its units replaced, where `[B, n]` says so."""
    chosen = torch.where(where, tight, old)
    return flat(end, 1).index_copy(-1, units, chosen).reshape(end.shape)
