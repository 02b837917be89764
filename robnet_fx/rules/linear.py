"""Linear layers and products with a constant matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten

register(
    __name__,
    affine(
        "linear",
        F.linear,
        lin=lambda x, weight, bias=None: F.linear(x, weight),
        abs_f=lambda x, weight, bias=None: F.linear(x, weight.abs()),
        sums=True,
        transpose=lambda g, x, weight, bias=None: g @ weight,
    ),
    aten.linear.default,
)


def _addmm(bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * bias + alpha * (x @ weight)


register(
    __name__,
    affine(
        "addmm",
        _addmm,
        lin=lambda bias, x, weight, *, beta=1, alpha=1: alpha * (x @ weight),
        abs_f=lambda bias, x, weight, *, beta=1, alpha=1: abs(alpha) * (x @ weight.abs()),
        sums=True,
        inputs=(1,),
    ),
    aten.addmm.default,
)


def _contracts_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    if node.args[1] in bounded and len(bounded[0].meta["shape"]) < 2:
        return "it contracts the batch axis"
    return None


# Radii and slacks are non-negative, so taking |.| of both factors is |W| whichever of them is the constant.
register(
    __name__,
    affine(
        "matmul",
        torch.matmul,
        abs_f=lambda x, y: torch.matmul(x.abs(), y.abs()),
        sums=True,
        inputs=(0, 1),
        supports=_contracts_batch,
    ),
    aten.mm.default,
    aten.matmul.default,
)
