"""Elementwise operations: from a pair of lines that encloses the function over `pre`, all three rules follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules.registry import Rule, every_unit, named

Function = Callable[[Tensor], Tensor]


class Band(NamedTuple):
    """f(x) = slope * x + offset ± error for every x in `pre`: parallel lines, what SSIP needs to keep one slope."""

    slope: Tensor
    offset: Tensor
    error: Tensor


class Lines(NamedTuple):
    """lower_slope * x + lower_offset <= f(x) <= upper_slope * x + upper_offset for every x in `pre`; None is 0."""

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor


def elementwise(
    name: str,
    reach: Callable[..., Interval],
    band: Callable[..., Band],
    lines: Callable[..., Lines] | None = None,
    unstable: Callable[..., Tensor] = every_unit,
) -> Rule:
    """The rule of an elementwise f. Each function takes `(pre, *the node's other arguments)`.

    `reach` is the interval of f over `pre`, `band` the parallel enclosure SSIP uses, and `lines` the enclosure RSIP
    uses (default: the band's two edges).
    """

    def ibp(pre: Interval, *args: Any, **kwargs: Any) -> Interval:
        return reach(pre, *args, **kwargs)

    def ssip(x: Symbolic, *args: Any, pre: Interval, **kwargs: Any) -> Symbolic:
        slope, offset, error = band(pre, *args, **kwargs)
        coef = kernels.scale(x.coef, slope)
        return Symbolic(coef, torch.addcmul(offset, slope, x.const), torch.addcmul(error, slope.abs(), x.slack))

    def rsip(form: Form, x: InputShape, *args: Any, pre: Interval, **kwargs: Any) -> Form:
        if lines is None:
            slope, offset, error = band(pre, *args, **kwargs)
            enclosure = Lines(slope, offset - error, slope, offset + error)
        else:
            enclosure = lines(pre, *args, **kwargs)
        return through(form, enclosure)

    return Rule(
        name,
        named(ibp, name, "ibp"),
        named(ssip, name, "ssip"),
        named(rsip, name, "rsip"),
        affine=False,
        unstable=unstable,
    )


def through(form: Form, lines: Lines) -> Form:
    """A form over f(x) as a form over x: positive coefficients take the upper line, negative ones the lower."""
    coef, const = kernels.choose(form.coef, *lines)
    return Form(coef, form.const + const)


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


def enclose(f: Function, pre: Interval, slope: Tensor, turns: list[Tensor]) -> Band:
    """The tightest band of a given slope: `f(x) - slope * x` has its extremes at the ends of `pre` or at `turns`.

    `turns` are the points where f'(x) = slope, or where f has a kink; one outside `pre` is moved to its end, which is
    harmless. Where f is smooth they may be detached: the extreme value does not move with them to first order.
    """
    points = [pre.lower, pre.upper, *(between(turn, *pre) for turn in turns)]
    gaps = [f(point) - slope * point for point in points]
    highest, lowest = gaps[0], gaps[0]
    for gap in gaps[1:]:
        highest, lowest = torch.maximum(highest, gap), torch.minimum(lowest, gap)
    return Band(slope, (highest + lowest) / 2, (highest - lowest) / 2)
