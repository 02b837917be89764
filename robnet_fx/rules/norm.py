"""Batch normalisation in inference: a scale and a shift for each channel, from its running statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(1, -1, *[1] * (x.dim() - 2))


def _scale(weight: Tensor | None, var: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(var + eps)
    return scale if weight is None else scale * weight


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, training: bool,
    momentum: float, eps: float, cudnn: bool,
) -> Tensor:  # fmt: skip
    scale = _scale(weight, var, eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * _per_channel(scale, x) + _per_channel(shift, x)


def _lin(x: Tensor, weight: Tensor | None, bias: Any, mean: Any, var: Tensor, training: bool, momentum: float,
         eps: float, cudnn: bool) -> Tensor:  # fmt: skip
    return x * _per_channel(_scale(weight, var, eps), x)


def _abs(x: Tensor, weight: Tensor | None, bias: Any, mean: Any, var: Tensor, training: bool, momentum: float,
         eps: float, cudnn: bool) -> Tensor:  # fmt: skip
    return x * _per_channel(_scale(weight, var, eps).abs(), x)


def _in_training(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    return "it normalises by the batch's own statistics (training mode)" if node.args[5] else None


register(
    affine(
        "batch_norm",
        _batch_norm,
        lin=_lin,
        abs_f=_abs,
        transpose=lambda g, x, *args: _lin(g, *args),
        supports=_in_training,
    ),
    aten.batch_norm.default,
)
