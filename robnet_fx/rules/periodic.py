"""Sine and cosine: over a whole period, or where numbers are too far apart to find the turns, just [-1, 1].

And the tangent, which there, and over a pole, is not bounded at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import Curve, curved
from robnet_fx.rules.registry import register

aten = torch.ops.aten

_PERIOD = 2 * math.pi


def _near(pre: Interval) -> Tensor:
    """Where numbers are close together."""
    return torch.maximum(-pre.lower, pre.upper) * torch.finfo(pre.lower.dtype).eps ** 0.5 <= 1


def _wave(f: Callable[[Tensor], Tensor], turns: Callable[[Tensor], list[Tensor]]) -> Curve:
    """f has the period 2 pi, and `turns(slope)` are all the points of one period where f' = slope."""

    def within(slope: Tensor, pre: Interval) -> list[Tensor]:
        """The first point of each family right of the lower end: the second one is a period further."""
        return [turn + _PERIOD * torch.ceil((pre.lower - turn) / _PERIOD) for turn in turns(slope)]

    def fits(pre: Interval) -> Tensor:
        return (pre.upper - pre.lower < _PERIOD) & _near(pre)

    return Curve(f, within, still=None, least=-1.0, most=1.0, fits=fits)


_SIN = _wave(torch.sin, lambda slope: [torch.acos(slope), -torch.acos(slope)])
_COS = _wave(torch.cos, lambda slope: [-torch.asin(slope), math.pi + torch.asin(slope)])


def _tan_turns(slope: Tensor, pre: Interval) -> list[Tensor]:
    """tan' = 1 + tan^2 = s, in the branch that `pre` lies in."""
    turn = torch.atan(torch.sqrt(slope - 1))
    branch = math.pi * torch.round((pre.lower + pre.upper) / (2 * math.pi))
    return [branch + turn, branch - turn]


def _no_pole(pre: Interval) -> Tensor:
    """Less than a branch's width with a pole inside, it would fall from one end to the other."""
    return (pre.upper - pre.lower < 3.14) & (torch.tan(pre.lower) <= torch.tan(pre.upper)) & _near(pre)


_TAN = Curve(torch.tan, _tan_turns, fits=_no_pole)

register(__name__, curved("sin", lambda: _SIN), aten.sin.default)
register(__name__, curved("cos", lambda: _COS), aten.cos.default)
register(__name__, curved("tan", lambda: _TAN), aten.tan.default)
