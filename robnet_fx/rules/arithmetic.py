"""Sums and differences of bounded values and constants; products and quotients with constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _sum(x: Any, y: Any, sign: float = 1.0) -> Tensor:
    """`x + sign * y` without its numbers: what is not a tensor is part of b."""
    terms = [term for term in (x, sign * y if isinstance(y, Tensor) else None) if isinstance(term, Tensor)]
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


register(
    affine(
        "add",
        lambda x, y, *, alpha=1: x + alpha * y,
        lin=lambda x, y, *, alpha=1: _sum(x, y, alpha),
        abs_f=lambda x, y, *, alpha=1: _sum(x, y, abs(alpha)),
        inputs=(0, 1),
        joint=True,
        offset=True,
    ),
    aten.add.Tensor,
    aten.add.Scalar,
)
register(
    affine(
        "sub",
        lambda x, y, *, alpha=1: x - alpha * y,
        lin=lambda x, y, *, alpha=1: _sum(x, y, -alpha),
        abs_f=lambda x, y, *, alpha=1: _sum(x, y, abs(alpha)),
        inputs=(0, 1),
        joint=True,
        offset=True,
    ),
    aten.sub.Tensor,
    aten.sub.Scalar,
)
register(
    affine(
        "rsub",
        lambda x, y, alpha=1: y - alpha * x,
        lin=lambda x, y, alpha=1: _sum(-alpha * x, y),
        abs_f=lambda x, y, alpha=1: _sum(abs(alpha) * x, y),
        inputs=(0, 1),
        joint=True,
        offset=True,
    ),
    aten.rsub.Scalar,
    aten.rsub.Tensor,
)
register(affine("neg", torch.neg, abs_f=lambda x: x), aten.neg.default)
register(
    affine("mul", lambda x, c: x * c, abs_f=lambda x, c: abs(x) * abs(c), inputs=(0, 1)),
    aten.mul.Tensor,
    aten.mul.Scalar,
)
register(
    affine("div", lambda x, c: x / c, abs_f=lambda x, c: x / abs(c)),
    aten.div.Tensor,
    aten.div.Scalar,
)
