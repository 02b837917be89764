"""Two lines that meet at 0: leaky ReLU, PReLU with a slope for each channel, and the absolute value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Band, Lines, Relaxation, centred, chord, spread

aten = torch.ops.aten


def bent(name: str, left: Callable[..., Tensor]) -> Rule:
    """The rule of max(x, 0) + a min(x, 0), with `left(x, *the node's other arguments)` the slope a, of any sign."""

    def unstable(pre: Interval, *args: Any) -> Tensor:
        return (pre.lower < 0) & (pre.upper > 0)

    def apply(x: Tensor, a: Tensor) -> Tensor:
        return torch.where(x > 0, x, a * x)

    def reach(pre: Interval, *args: Any) -> Interval:
        first, last = (apply(end, left(end, *args)) for end in pre)
        kink = torch.where(unstable(pre), 0.0, last)
        lower, upper = torch.minimum(first, last), torch.maximum(first, last)
        return Interval(torch.minimum(lower, kink), torch.maximum(upper, kink))

    def branch(right: Tensor, a: Tensor) -> Tensor:
        return torch.where(right, torch.ones_like(a), a)

    def offsets(pre: Interval, slope: Tensor, *args: Any) -> Interval:
        """Lines of a given slope touch at the ends or at the kink."""
        a = left(pre.lower, *args)
        return spread(lambda x: apply(x, a), pre, slope, [torch.zeros_like(slope)])

    def band(pre: Interval, *args: Any) -> Band:
        """Between the chord and its parallel through the kink."""
        a = left(pre.lower, *args)
        slope = torch.where(unstable(pre), chord(lambda x: apply(x, a), pre), branch(pre.lower >= 0, a))
        return centred(slope, offsets(pre, slope, *args))

    def lines(pre: Interval, *args: Any) -> Lines:
        """One line is the chord, the other, on the far side of the kink, the branch that is longer."""
        a = left(pre.lower, *args)
        slope, offset, error = band(pre, *args)
        near = torch.where(unstable(pre), branch(pre.upper > -pre.lower, a), slope)
        zero, convex = torch.zeros_like(slope), a <= 1  # convex: the branches lie below
        return Lines(
            torch.where(convex, near, slope),
            torch.where(convex, zero, offset - error),
            torch.where(convex, slope, near),
            torch.where(convex, offset + error, zero),
        )

    return elementwise(name, Relaxation(reach, band, lines, unstable, offsets), straight=True)


def _per_channel(x: Tensor, weight: Tensor) -> Tensor:
    """The slope of each unit: one for all, or one for each of the axis behind the batch."""
    if weight.dim() == 1 and len(weight) > 1:
        weight = weight.reshape(1, -1, *[1] * (x.dim() - 2))
    return weight.to(x.dtype).expand_as(x)


register(__name__, bent("leaky_relu", lambda x, slope=0.01: torch.full_like(x, slope)), aten.leaky_relu.default)
register(__name__, bent("prelu", _per_channel), aten.prelu.default, aten._prelu_kernel.default)
register(__name__, bent("abs", lambda x: -torch.ones_like(x)), aten.abs.default)
