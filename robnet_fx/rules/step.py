"""Functions of steps: the sign, and rounding down, up and to the nearest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import rounding
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Band, Relaxation, monotone

aten = torch.ops.aten


def _sign(x: Tensor) -> Tensor:
    """The sign; PyTorch's says 0 for NaN, which would be a verdict."""
    return torch.where(x.isnan(), x, torch.sign(x))


def stepped(name: str, f: Callable[[Tensor], Tensor], near: float | None = None) -> Rule:
    """The rule of a non-decreasing f of steps; `near` is the c for which x + c - 1/2 <= f(x) <= x + c + 1/2."""

    def unstable(pre: Interval) -> Tensor:
        return f(pre.lower) < f(pre.upper)

    def band(pre: Interval) -> Band:
        """Level, from the lower end's step to the upper end's; along x where these are two or more apart."""
        first, last = f(pre.lower), f(pre.upper)
        level = Band(torch.zeros_like(first), (first + last) / 2, (last - first) / 2)
        if near is None:
            return level
        size = torch.maximum(-pre.lower, pre.upper)
        along = Band(torch.ones_like(first), torch.full_like(first, near), 0.5 + rounding(1 + size))
        steep = last - first >= 2
        return Band(*(torch.where(steep, a, b) for a, b in zip(along, level, strict=True)))

    def offsets(pre: Interval, slope: Tensor) -> Interval:
        """Lines of a given slope touch at the ends, or at either value of the first or the last jump; in between the
        jumps lie on lines themselves."""
        first, last = f(pre.lower), f(pre.upper)
        if near is None:  # all of it jumps at 0
            jumps = [(torch.zeros_like(first), first), (torch.zeros_like(first), last)]
        else:
            begin, end = first + 0.5 - near, last - 0.5 - near
            jumps = [(begin, first), (begin, first + 1), (end, last - 1), (end, last)]
        leaps = first < last
        corners = [(torch.where(leaps, x, pre.lower), torch.where(leaps, y, first)) for x, y in jumps]
        gaps = torch.stack([y - slope * x for x, y in [(pre.lower, first), (pre.upper, last), *corners]])
        noise = rounding((1 + torch.maximum(-pre.lower, pre.upper)) * (1 + slope.abs()))
        return Interval(gaps.amin(0) - noise, gaps.amax(0) + noise)

    return elementwise(name, Relaxation(monotone(f), band, unstable=unstable, offsets=offsets), straight=True)


register(__name__, stepped("sign", _sign), aten.sign.default)
register(__name__, stepped("floor", torch.floor, -0.5), aten.floor.default)
register(__name__, stepped("ceil", torch.ceil, 0.5), aten.ceil.default)
register(__name__, stepped("round", torch.round, 0.0), aten.round.default)
