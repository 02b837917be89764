"""Sigmoid and tanh: chord slopes, with the band's edges at the points of that slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.domains import Interval
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Band, chord, elementwise, enclose, outward

aten = torch.ops.aten


def s_shaped(name: str, f: Callable[[Tensor], Tensor], steepest: float, turn: Callable[[Tensor], Tensor]) -> Rule:
    """The rule of an increasing f with one inflection, at 0: `steepest` is f'(0); `turn(s) >= 0` solves f'(x) = s."""

    def reach(pre: Interval) -> Interval:
        unit = 2 * torch.finfo(pre.lower.dtype).eps  # f is rounded, and saturates: 1 - 1e-9 is 1 in float32
        return Interval(f(pre.lower) - unit, f(pre.upper) + unit)

    def band(pre: Interval) -> Band:
        slope = chord(f, pre).clamp(0.0, steepest)
        with torch.no_grad():
            point = turn(slope)
        return outward(enclose(f, pre, slope, [point, -point]), pre)

    return elementwise(name, reach, band)


def _sigmoid_turn(slope: Tensor) -> Tensor:
    # sigmoid' = p (1 - p) = s, so p = (1 + r) / 2 with r = sqrt(1 - 4 s), and x = log(p / (1 - p)) = 2 atanh(r),
    # written as log((1 + r)^2 / 4 s): for a tiny s the atanh is infinite, and the band would miss the curve's rise.
    root = (1 - 4 * slope).clamp(min=0).sqrt()
    return 2 * torch.log1p(root) - torch.log(4 * slope)


def _tanh_turn(slope: Tensor) -> Tensor:
    # tanh' = 1 - tanh^2 = s, so x = atanh(r) with r = sqrt(1 - s), written as log((1 + r)^2 / s) / 2.
    root = (1 - slope).clamp(min=0).sqrt()
    return torch.log1p(root) - torch.log(slope) / 2


register(s_shaped("sigmoid", torch.sigmoid, 0.25, _sigmoid_turn), aten.sigmoid.default)
register(s_shaped("tanh", torch.tanh, 1.0, _tanh_turn), aten.tanh.default)
