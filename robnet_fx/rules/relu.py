"""ReLU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robnet_fx.domains import Interval
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, Lines, elementwise, monotone

aten = torch.ops.aten


def _unstable(pre: Interval) -> Tensor:
    return (pre.lower < 0) & (pre.upper > 0)


def _slope(pre: Interval) -> Tensor:
    """The slope of the upper line: u / (u - l) where 0 is inside, else 1 or 0; with finite gradients always.

    Halved, for u - l may overflow where its ends do not; and NaN where an end is NaN, not the 0 that asserts x <= 0.
    """
    open_ = _unstable(pre)
    half = torch.where(open_, pre.upper / 2 - pre.lower / 2, 1.0)
    closed = torch.where(pre.lower <= pre.upper, (pre.lower >= 0).to(half.dtype), math.nan)
    return torch.where(open_, pre.upper / 2 / half, closed)


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
