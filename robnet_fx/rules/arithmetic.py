"""Sums and differences of bounded values and constants; products and quotients with constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


_ADD = affine(
    "add",
    lambda x, y, *, alpha=1: x + alpha * y,
    abs_f=lambda x, y, *, alpha=1: x + abs(alpha) * y,
    inputs=(0, 1),
    joint=True,
    offset=(0, 1),
)


def add_ibp(x: Any, y: Any, *, alpha: float = 1) -> Interval:
    """Ends are added to ends: a middle would lose the eps of a normalisation to a wide variance, and with it that
    what goes into the root is positive."""
    (low, high), (first, last) = ((end, end) if not isinstance(end, Interval) else end for end in (x, y))
    if alpha < 0:
        first, last = last, first
    return Interval(low + alpha * first, high + alpha * last)


register(__name__, replace(_ADD, ibp=add_ibp), aten.add.Tensor, aten.add.Scalar)
register(
    __name__,
    affine(
        "sub",
        lambda x, y, *, alpha=1: x - alpha * y,
        abs_f=lambda x, y, *, alpha=1: x + abs(alpha) * y,
        inputs=(0, 1),
        joint=True,
        offset=(0, 1),
    ),
    aten.sub.Tensor,
    aten.sub.Scalar,
)
register(
    __name__,
    affine(
        "rsub",
        lambda x, y, alpha=1: y - alpha * x,
        abs_f=lambda x, y, alpha=1: y + abs(alpha) * x,
        inputs=(0, 1),
        joint=True,
        offset=(0, 1),
    ),
    aten.rsub.Scalar,
    aten.rsub.Tensor,
)
register(__name__, affine("neg", torch.neg, abs_f=lambda x: x), aten.neg.default)
register(
    __name__,
    affine("mul", lambda x, c: x * c, abs_f=lambda x, c: abs(x * c), inputs=(0, 1)),
    aten.mul.Tensor,
    aten.mul.Scalar,
)
register(
    __name__,
    affine("div", lambda x, c: x / c, abs_f=lambda x, c: x / abs(c)),
    aten.div.Tensor,
    aten.div.Scalar,
)
