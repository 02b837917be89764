"""Sums and differences of bounded values and constants; products and quotients with constants."""

from __future__ import annotations

import torch

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


register(
    affine(
        "add",
        lambda x, y, *, alpha=1: x + alpha * y,
        abs_f=lambda x, y, *, alpha=1: x + abs(alpha) * y,
        inputs=(0, 1),
        joint=True,
        offset=(0, 1),
    ),
    aten.add.Tensor,
    aten.add.Scalar,
)
register(
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
register(affine("neg", torch.neg, abs_f=lambda x: x), aten.neg.default)
register(
    affine("mul", lambda x, c: x * c, abs_f=lambda x, c: abs(x * c), inputs=(0, 1)),
    aten.mul.Tensor,
    aten.mul.Scalar,
)
register(
    affine("div", lambda x, c: x / c, abs_f=lambda x, c: x / abs(c)),
    aten.div.Tensor,
    aten.div.Scalar,
)
