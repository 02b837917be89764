"""Powers of constants or to bounded exponents, and the logarithm of a sum of two, by exp, log and softplus.

The base of a power is positive: of another one log is NaN, and so are the bounds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from robnet_fx.passes.lower import Builder, lowers

aten = torch.ops.aten


@lowers(aten.exp2.default)
def _exp2(build: Builder, node: fx.Node) -> fx.Node:
    return _exponential(build, 2.0, node.args[0])


@lowers(aten.pow.Scalar)
def _pow_scalar(build: Builder, node: fx.Node) -> fx.Node | None:
    base, exponent = node.args
    assert isinstance(base, (int, float))
    return _exponential(build, base, exponent) if base > 0 else None


def _exponential(build: Builder, base: float, exponent: Any) -> fx.Node:
    return build.call(aten.exp.default, build.call(aten.mul.Tensor, exponent, math.log(base)))


@lowers(aten.pow.Tensor_Tensor)
def _pow(build: Builder, node: fx.Node) -> fx.Node:
    """`exp(y log x)`"""
    base, exponent = node.args
    logarithm = build.call(aten.log.default, base)
    return build.call(aten.exp.default, build.times(logarithm, exponent))


@lowers(aten.logaddexp.default)
def _logaddexp(build: Builder, node: fx.Node) -> fx.Node:
    """`y + softplus(x - y)`; beyond the threshold the logarithm is lost in rounding, and no exponential overflows."""
    x, y = node.args
    excess = build.call(aten.softplus.default, build.call(aten.sub.Tensor, x, y), 1.0, 80.0)
    return build.call(aten.add.Tensor, excess, y)
