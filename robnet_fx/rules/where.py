"""A choice by a constant mask, between bounded values and constants."""

from __future__ import annotations

import math

import torch
from torch import fx

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _fills_infinity(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    numbers = [arg for arg in node.args if isinstance(arg, (int, float))]
    if all(math.isfinite(number) for number in numbers):
        return None
    return "it fills with a number that is not finite, which no bound survives: fill with -1e4 or the like"


register(
    __name__,
    affine("where", torch.where, inputs=(1, 2), joint=True, offset=(1, 2), supports=_fills_infinity),
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
)
register(
    __name__,
    affine("masked_fill", lambda x, mask, value: torch.where(mask, value, x), offset=(2,), supports=_fills_infinity),
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
)
