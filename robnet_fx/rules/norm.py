"""Batch normalisation in inference: a scale and a shift for each channel, from its running statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.domains import Interval
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


def batch_norm_ibp(x: Interval, *args: Any) -> Interval:
    """Ends map to ends. Around a middle they would round apart where they are equal: the zeros of a ReLU in front tie
    in a max pooling behind, and another runtime would follow another one."""
    ends = _batch_norm(x.lower, *args), _batch_norm(x.upper, *args)
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def _in_training(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    return "it normalises by the batch's own statistics (training mode)" if node.args[5] else None


_RULE = affine(
    "batch_norm",
    _batch_norm,
    lin=_lin,
    abs_f=_abs,
    transpose=lambda g, x, *args: _lin(g, *args),
    supports=_in_training,
)
register(__name__, replace(_RULE, ibp=batch_norm_ibp), aten.batch_norm.default)
