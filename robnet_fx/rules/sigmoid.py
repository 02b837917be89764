"""S-shaped functions: sigmoid, tanh, erf and atan."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import Curve, curved
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Function

aten = torch.ops.aten


def _s_shaped(f: Function, least: float, most: float, turn: Callable[[Tensor], Tensor]) -> Curve:
    """An increasing f with f'(-x) = f'(x), which falls as |x| grows: `turn(s) >= 0` solves f'(x) = s."""

    def turns(slope: Tensor, pre: Interval) -> list[Tensor]:
        point = turn(slope)
        return [point, -point]

    return Curve(f, turns, least=least, most=most)


def _sigmoid_turn(slope: Tensor) -> Tensor:
    # sigmoid' = p (1 - p) = s, so p = (1 + r) / 2 with r = sqrt(1 - 4 s), and x = log(p / (1 - p)) = 2 atanh(r),
    # written as log((1 + r)^2 / 4 s): for a tiny s the atanh is infinite, and the curve would rise unseen.
    root = (1 - 4 * slope).clamp(min=0).sqrt()
    return 2 * torch.log1p(root) - torch.log(4 * slope)


def _tanh_turn(slope: Tensor) -> Tensor:
    # tanh' = 1 - tanh^2 = s, so x = atanh(r) with r = sqrt(1 - s), written as log((1 + r)^2 / s) / 2.
    root = (1 - slope).clamp(min=0).sqrt()
    return torch.log1p(root) - torch.log(slope) / 2


def _erf_turn(slope: Tensor) -> Tensor:
    # erf' = 2 exp(-x^2) / sqrt(pi) = s
    return torch.sqrt(-torch.log(slope * (math.sqrt(math.pi) / 2)))


def _atan_turn(slope: Tensor) -> Tensor:
    # atan' = 1 / (1 + x^2) = s
    return torch.sqrt(1 / slope - 1)


_SIGMOID = _s_shaped(torch.sigmoid, 0.0, 1.0, _sigmoid_turn)
_TANH = _s_shaped(torch.tanh, -1.0, 1.0, _tanh_turn)
_ERF = _s_shaped(torch.erf, -1.0, 1.0, _erf_turn)
_ATAN = _s_shaped(torch.atan, -math.pi / 2, math.pi / 2, _atan_turn)

register(__name__, curved("sigmoid", lambda: _SIGMOID), aten.sigmoid.default)
register(__name__, curved("tanh", lambda: _TANH), aten.tanh.default)
register(__name__, curved("erf", lambda: _ERF), aten.erf.default)
register(__name__, curved("atan", lambda: _ATAN), aten.atan.default)
