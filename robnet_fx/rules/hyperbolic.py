"""Hyperbolic functions and their inverses; tanh, an S, is in `sigmoid.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import Curve, Turns, curved
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _both(turn: Turns) -> Turns:
    """The turns of a function whose derivative is even: f'(x) = f'(-x)."""

    def turns(slope: Tensor, pre: Interval) -> list[Tensor]:
        (point,) = turn(slope, pre)
        return [point, -point]

    return turns


def _acosh(x: Tensor) -> Tensor:
    """With a finite derivative at 1, where the curve's own would spoil every gradient."""
    return torch.where(x > 1, torch.acosh(torch.where(x > 1, x, 2.0)), 0.0)


_SINH = Curve(torch.sinh, _both(lambda slope, pre: [torch.acosh(slope)]), noise=0.0)
_COSH = Curve(torch.cosh, lambda slope, pre: [torch.asinh(slope)], still=(0.0,), least=1.0, noise=0.0)
# asinh' = 1 / sqrt(1 + x^2), acosh' = 1 / sqrt(x^2 - 1), atanh' = 1 / (1 - x^2)
_ASINH = Curve(torch.asinh, _both(lambda slope, pre: [torch.sqrt(slope**-2 - 1)]), noise=0.0)
_ACOSH = Curve(_acosh, lambda slope, pre: [torch.sqrt(slope**-2 + 1)], start=1.0, least=0.0, noise=0.0)
_ATANH = Curve(torch.atanh, _both(lambda slope, pre: [torch.sqrt(1 - 1 / slope)]), start=-1.0, stop=1.0, noise=0.0)

register(__name__, curved("sinh", lambda: _SINH), aten.sinh.default)
register(__name__, curved("cosh", lambda: _COSH), aten.cosh.default)
register(__name__, curved("asinh", lambda: _ASINH), aten.asinh.default)
register(__name__, curved("acosh", lambda: _ACOSH), aten.acosh.default)
register(__name__, curved("atanh", lambda: _ATANH), aten.atanh.default)
