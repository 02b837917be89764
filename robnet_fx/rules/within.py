"""A value known to lie in a range whatever the bounds of what it is made of say: the identity, or a constant where they
leave the range. So bounds behind a normalisation are finite however wide, even infinite, those in front have become."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval, Symbolic
from robnet_fx.algebra.kernels import reach
from robnet_fx.algebra.ops import within
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, Relaxation


def _known(pre: Interval, low: float, high: float) -> Interval:
    return Interval(pre.lower.clamp(low, high), pre.upper.clamp(low, high))


def _leaves(pre: Interval, low: float, high: float) -> Tensor:
    return (pre.lower < low) | (pre.upper > high)


def _band(pre: Interval, low: float, high: float) -> Band:
    """The value itself where `pre` stays in the range or is NaN, else the constant."""
    (lower, upper), wide = _known(pre, low, high), _leaves(pre, low, high)
    slope = (~wide).to(pre.lower.dtype)
    return Band(slope, torch.where(wide, (lower + upper) / 2, 0.0), torch.where(wide, (upper - lower) / 2, 0.0))


def _offsets(pre: Interval, slope: Tensor, low: float, high: float) -> Interval:
    """Of the value itself, which is in the range."""
    first, last = ((1 - slope) * end for end in _known(pre, low, high))
    return Interval(torch.minimum(first, last), torch.maximum(first, last))


def ssip(x: Symbolic, low: float, high: float, *, pre: Interval) -> Symbolic:
    """By its own width, which may be far beyond that of `pre`; a coefficient may be infinite."""
    lower, upper = _known(pre, low, high)
    keep = reach(x.coef) + x.slack <= (high - low) / 2  # NaN is not
    return Symbolic(
        torch.where(keep.unsqueeze(1), x.coef, 0.0),
        torch.where(keep, x.const, (lower + upper) / 2),
        torch.where(keep, x.slack, (upper - lower) / 2),
    )


_rule = elementwise("within", Relaxation(_known, _band, unstable=_leaves, offsets=_offsets))
register(__name__, replace(_rule, ssip=ssip, kind="range"), within)
