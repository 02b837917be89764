"""What encloses an elementwise function over `pre`, as a value: its range, parallel lines, a pair of lines.

`pre` is the interval `[B, *S]` of the function's input; slopes and offsets have its shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Form, Interval

Function = Callable[[Tensor], Tensor]


class Band(NamedTuple):
    """f(x) = slope * x + offset ± error for every x in `pre`: parallel lines, what SSIP needs to keep one slope.
    All `[B, *S]`."""

    slope: Tensor
    offset: Tensor
    error: Tensor


class Lines(NamedTuple):
    """lower_slope * x + lower_offset <= f(x) <= upper_slope * x + upper_offset for every x in `pre`; None is 0.
    All `[B, *S]`."""

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor


class Slopes(NamedTuple):
    """Slopes from outside for the lower and the upper line, each `[B or 1, *S]`: any numbers give lines that hold."""

    lower: Tensor
    upper: Tensor


def every_unit(pre: Interval, *args: Any, **kwargs: Any) -> Tensor:
    """The units whose `pre` matters to a rule: by default all that can move."""
    return pre.upper > pre.lower


@dataclass(frozen=True)
class Relaxation:
    """How an elementwise f is enclosed. Each function takes `(pre, *the node's other arguments)`.

    `reach` is the interval of f over `pre`, `band` the parallel enclosure SSIP uses, `lines` the enclosure RSIP uses
    (default: the band's two edges), and `unstable` marks the units whose `pre` is worth tightening.
    `at(pre, point, *the other arguments)` are the lines, slopes `[B, 1 or K, *S]` and offsets `[B, 1, *S]`, that are
    tightest at the points of K rows, `[B, K, *S]`, for those whose lines can be chosen so.
    `offsets(pre, slope, *the other arguments)` is the interval of f(x) - slope * x for any slope: its ends are the
    offsets of the tightest lines of that slope (default: of lines that hold, from the band).
    """

    reach: Callable[..., Interval]
    band: Callable[..., Band]
    lines: Callable[..., Lines] | None = None
    unstable: Callable[..., Tensor] = every_unit
    offsets: Callable[..., Interval] | None = None
    at: Callable[..., Lines] | None = None

    def enclosure(self, pre: Interval, *args: Any, slopes: Slopes | None = None, **kwargs: Any) -> Lines:
        """The lines RSIP uses, or the tightest ones of slopes from outside."""
        if slopes is not None:
            lower, upper = (slope.expand_as(pre.lower) for slope in slopes)
            below, above = (self.leaves(pre, slope, *args, **kwargs) for slope in (lower, upper))
            return Lines(lower, below.lower, upper, above.upper)
        if self.lines is not None:
            return self.lines(pre, *args, **kwargs)
        slope, offset, error = self.band(pre, *args, **kwargs)
        return Lines(slope, offset - error, slope, offset + error)

    def leaves(self, pre: Interval, slope: Tensor, *args: Any, **kwargs: Any) -> Interval:
        """An interval of f(x) - slope * x over `pre`."""
        if self.offsets is not None:
            return self.offsets(pre, slope, *args, **kwargs)
        return tilted(self.band(pre, *args, **kwargs), pre, slope)


def through(form: Form, lines: Lines) -> Form:
    """A form over f(x) as a form over x: positive coefficients take the upper line, negative ones the lower."""
    coef, const = kernels.choose(form.coef, *lines)
    return Form(coef, form.const + const)


def through_rows(form: Form, lines: Lines) -> Form:
    """`through`, with lines of each row, of slopes `[B, 1 or K, *S]` and offsets `[B, 1, *S]`."""
    up = form.coef.relu()
    down = form.coef - up
    const = form.const + kernels.contract(up, lines.upper_offset.squeeze(1))
    if lines.lower_offset is not None:
        const = const + kernels.contract(down, lines.lower_offset.squeeze(1))
    return Form(torch.addcmul(up * lines.upper_slope, down, lines.lower_slope), const)


def monotone(f: Callable[..., Tensor]) -> Callable[..., Interval]:
    """`reach` of a non-decreasing function."""

    def reach(pre: Interval, *args: Any, **kwargs: Any) -> Interval:
        return Interval(f(pre.lower, *args, **kwargs), f(pre.upper, *args, **kwargs))

    return reach


def chord(f: Function, pre: Interval) -> Tensor:
    """The slope between the ends of `pre`; 0 where it has no width."""
    width = pre.upper - pre.lower
    wide = width > 0
    rise = f(pre.upper) - f(pre.lower)
    return torch.where(wide, rise / torch.where(wide, width, 1.0), 0.0)


def between(point: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The point, moved to the nearer end where it lies outside."""
    return torch.minimum(torch.maximum(point, first), last)


def spread(f: Function, pre: Interval, slope: Tensor, turns: list[Tensor]) -> Interval:
    """The interval of f(x) - slope * x, whose extremes lie at the ends of `pre` or at `turns`.

    `turns` are the points where f'(x) = slope, or where f has a kink; one outside `pre` is moved to its end, which is
    harmless. Where f is smooth they may be detached: the extreme value does not move with them to first order.
    """
    points = [pre.lower, pre.upper, *(between(turn, *pre) for turn in turns)]
    gaps = [f(point) - slope * point for point in points]
    highest, lowest = gaps[0], gaps[0]
    for gap in gaps[1:]:
        highest, lowest = torch.maximum(highest, gap), torch.minimum(lowest, gap)
    return Interval(lowest, highest)


def enclose(f: Function, pre: Interval, slope: Tensor, turns: list[Tensor]) -> Band:
    """The tightest band of a given slope, from the points where f(x) - slope * x may have its extremes (`spread`)."""
    return centred(slope, spread(f, pre, slope, turns))


def centred(slope: Tensor, offsets: Interval) -> Band:
    """The band of lines with these offsets."""
    lowest, highest = offsets
    return Band(slope, (highest + lowest) / 2, (highest - lowest) / 2)


def tilted(band: Band, pre: Interval, slope: Tensor) -> Interval:
    """The interval of f(x) - slope * x that a band of another slope leaves: its own, and (band.slope - slope) x."""
    turn = band.slope - slope
    ends = [torch.where(turn == 0, 0.0, turn * end) for end in pre]  # an end may be infinite
    lower = band.offset - band.error + torch.minimum(*ends)
    return Interval(lower, band.offset + band.error + torch.maximum(*ends))
