"""ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, Lines, Relaxation, monotone, spread

aten = torch.ops.aten


def unstable(pre: Interval) -> Tensor:
    """Where the kink lies inside."""
    return (pre.lower < 0) & (pre.upper > 0)


def band(pre: Interval) -> Band:
    """Between the chord and its parallel through the origin."""
    slope, offset = kernels.chord(*pre)
    half = offset / 2
    return Band(slope, half, half)


def lines(pre: Interval) -> Lines:
    """The upper chord, and from below the nearer of 0 and x (the smaller area; CROWN's adaptive choice)."""
    slope, offset = kernels.chord(*pre)
    lower = (pre.upper > -pre.lower).to(slope.dtype)
    return Lines(lower, None, slope, offset)


def offsets(pre: Interval, slope: Tensor) -> Interval:
    """Lines of a given slope touch at the ends or at the kink: below, of a slope in [0, 1], at the kink, offset 0."""
    return spread(torch.relu, pre, slope, [torch.zeros_like(slope)])


def at(pre: Interval, point: Tensor) -> Lines:
    """The upper chord, and from below 0 or x, whichever is higher at the point."""
    chord, offset = kernels.chord(*pre)
    turn = torch.where(pre.lower >= 0, -torch.inf, torch.where(pre.upper > 0, 0.0, torch.inf))
    on = point > turn.unsqueeze(1)
    return Lines(on.to(chord.dtype), None, chord.unsqueeze(1), offset.unsqueeze(1))


RELU = Relaxation(monotone(torch.relu), band, lines, unstable, offsets, at)
register(__name__, elementwise("relu", RELU, straight=True), aten.relu.default)
