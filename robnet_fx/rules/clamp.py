"""Clamp and its relatives: hardtanh, ReLU6."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Band, Lines, Relaxation, centred, chord, monotone, spread

aten = torch.ops.aten

Limits = Callable[..., tuple[float, float]]


def _clamp_limits(low: float | None = None, high: float | None = None) -> tuple[float, float]:
    return -math.inf if low is None else low, math.inf if high is None else high


def _hardtanh_limits(low: float = -1.0, high: float = 1.0) -> tuple[float, float]:
    return low, high


def _relu6_limits() -> tuple[float, float]:
    return 0.0, 6.0


def clamp_rule(name: str, limits: Limits) -> Rule:
    """The rule of `min(max(x, low), high)` for an operation whose arguments `limits` turns into (low, high)."""

    def unstable(pre: Interval, *args: Any, **kwargs: Any) -> Tensor:
        low, high = limits(*args, **kwargs)
        return ((pre.lower < low) & (pre.upper > low)) | ((pre.lower < high) & (pre.upper > high))

    def reach(pre: Interval, *args: Any, **kwargs: Any) -> Interval:
        low, high = limits(*args, **kwargs)
        return monotone(lambda x: x.clamp(low, high))(pre)

    def offsets(pre: Interval, slope: Tensor, *args: Any, **kwargs: Any) -> Interval:
        """Lines of a given slope touch at the ends or at a kink."""
        low, high = limits(*args, **kwargs)
        kinks = [torch.full_like(slope, kink) for kink in (low, high) if math.isfinite(kink)]
        return spread(lambda x: x.clamp(low, high), pre, slope, kinks)

    def band(pre: Interval, *args: Any, **kwargs: Any) -> Band:
        """Of the chord's slope; flat outside the limits, along x between them."""
        low, high = limits(*args, **kwargs)
        inside = ((pre.lower >= low) & (pre.upper <= high)).to(pre.lower.dtype)
        slope = torch.where(unstable(pre, *args, **kwargs), chord(lambda x: x.clamp(low, high), pre), inside)
        return centred(slope, offsets(pre, slope, *args, **kwargs))

    def lines(pre: Interval, *args: Any, **kwargs: Any) -> Lines:
        """Each side takes the flat line, or the line from the near kink to the far end where that cuts off more."""
        low, high = limits(*args, **kwargs)
        lower, upper = pre
        first, last = lower.clamp(low, high), upper.clamp(low, high)
        # From below: flat at f(l), or through (max(l, low), f(l)) and (u, f(u)).
        start = lower.clamp(min=low)
        rise = _ratio(last - first, upper - start)
        lower_slope = torch.where(upper - start > start - lower, rise, 0.0)
        # From above: flat at f(u), or through (l, f(l)) and (min(u, high), f(u)).
        stop = upper.clamp(max=high)
        climb = _ratio(last - first, stop - lower)
        upper_slope = torch.where(stop - lower > upper - stop, climb, 0.0)
        return Lines(lower_slope, first - lower_slope * start, upper_slope, last - upper_slope * stop)

    return elementwise(name, Relaxation(reach, band, lines, unstable, offsets), straight=True)


def _ratio(rise: Tensor, run: Tensor) -> Tensor:
    positive = run > 0
    return torch.where(positive, rise / torch.where(positive, run, 1.0), 0.0)


register(__name__, clamp_rule("clamp", _clamp_limits), aten.clamp.default)
register(__name__, clamp_rule("clamp_min", lambda low: (low, math.inf)), aten.clamp_min.default)
register(__name__, clamp_rule("clamp_max", lambda high: (-math.inf, high)), aten.clamp_max.default)
register(__name__, clamp_rule("hardtanh", _hardtanh_limits), aten.hardtanh.default)
register(__name__, clamp_rule("relu6", _relu6_limits), aten.relu6.default)
