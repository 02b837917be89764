"""Powers with a constant exponent: square, roots, reciprocals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import Curve, curved
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _power(p: float) -> Curve:
    """x^p, with f' = p x^(p - 1): the turns are ±|slope / p|^(1 / (p - 1)), one of them or both."""
    whole, even = float(p).is_integer(), p % 2 == 0

    def f(x: Tensor) -> Tensor:
        if 0 < p < 1:  # a root's infinite derivative at 0 would spoil every gradient
            return torch.where(x > 0, torch.where(x > 0, x, 1.0) ** p, 0.0)
        return x**p

    def turns(slope: Tensor, pre: Interval) -> list[Tensor]:
        if p in (0, 1):
            return []
        turn = (slope / p).abs() ** (1 / (p - 1))
        return [turn, -turn]

    def no_pole(pre: Interval) -> Tensor:
        return (pre.lower > 0) | (pre.upper < 0)

    return Curve(
        f,
        turns,
        kinks=(0.0,) if p > 0 else (),
        least=0.0 if even or not whole else -math.inf,
        start=-math.inf if whole else 0.0,
        fits=no_pole if p < 0 else None,
        noise=0.0,
    )


register(__name__, curved("pow", _power), aten.pow.Tensor_Scalar)
register(__name__, curved("square", lambda: _power(2)), aten.square.default)
register(__name__, curved("sqrt", lambda: _power(0.5)), aten.sqrt.default)
register(__name__, curved("rsqrt", lambda: _power(-0.5)), aten.rsqrt.default)
register(__name__, curved("reciprocal", lambda: _power(-1)), aten.reciprocal.default)
