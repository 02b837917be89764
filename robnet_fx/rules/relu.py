"""ReLU and leaky ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.domains import Interval
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, Lines, chord, elementwise, enclose, monotone

aten = torch.ops.aten


def _unstable(pre: Interval, *args: float) -> Tensor:
    return (pre.lower < 0) & (pre.upper > 0)


def _slope(pre: Interval) -> Tensor:
    """The slope of the upper line: u / (u - l) where 0 is inside, else 1 or 0; finite with finite gradients always."""
    open_ = _unstable(pre)
    width = torch.where(open_, pre.upper - pre.lower, 1.0)
    return torch.where(open_, pre.upper / width, (pre.lower >= 0).to(pre.upper.dtype))


def band(pre: Interval) -> Band:
    """Between the chord and its parallel through the origin."""
    slope = _slope(pre)
    half = torch.where(_unstable(pre), slope * -pre.lower / 2, 0.0)
    return Band(slope, half, half)


def lines(pre: Interval) -> Lines:
    """The upper chord, and from below the nearer of 0 and x (the smaller area; CROWN's adaptive choice)."""
    slope = _slope(pre)
    lower = torch.where(_unstable(pre), (pre.upper > -pre.lower).to(slope.dtype), slope)
    return Lines(lower, torch.zeros_like(slope), slope, torch.where(_unstable(pre), slope * -pre.lower, 0.0))


register(elementwise("relu", monotone(torch.relu), band, lines, _unstable), aten.relu.default)


def _leaky(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return torch.where(x > 0, x, negative_slope * x)


def leaky_reach(pre: Interval, negative_slope: float = 0.01) -> Interval:
    """The ends, or with a negative slope also the kink, where the function is 0."""
    ends = _leaky(pre.lower, negative_slope), _leaky(pre.upper, negative_slope)
    lower, upper = torch.minimum(*ends), torch.maximum(*ends)
    return Interval(torch.where(_unstable(pre), lower.clamp(max=0), lower), upper)


def leaky_band(pre: Interval, negative_slope: float = 0.01) -> Band:
    """Between the chord and its parallel through the kink, for a slope of any sign and size."""

    def f(x: Tensor) -> Tensor:
        return _leaky(x, negative_slope)

    slope = torch.where(_unstable(pre), chord(f, pre), _branch(pre.lower >= 0, negative_slope, pre))
    return enclose(f, pre, slope, [torch.zeros_like(slope)])


def _branch(right: Tensor, negative_slope: float, pre: Interval) -> Tensor:
    """The slope of the right branch where asked for, else of the left one. (A `where` of two numbers is float32.)"""
    return torch.where(right, torch.ones_like(pre.lower), negative_slope)


def leaky_lines(pre: Interval, negative_slope: float = 0.01) -> Lines:
    """One line is the chord, the other the nearer of the two branches (both hold on that side of a single kink)."""
    slope, offset, error = leaky_band(pre, negative_slope)
    branch = torch.where(_unstable(pre), _branch(pre.upper > -pre.lower, negative_slope, pre), slope)
    if negative_slope <= 1:  # convex: the branches lie below
        return Lines(branch, torch.zeros_like(slope), slope, offset + error)
    return Lines(slope, offset - error, branch, torch.zeros_like(slope))


register(
    elementwise("leaky_relu", leaky_reach, leaky_band, leaky_lines, _unstable),
    aten.leaky_relu.default,
)
