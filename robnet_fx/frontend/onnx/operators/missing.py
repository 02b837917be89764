"""Operators that onnx2torch has no converter for in any opset, added to its registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnx2torch.node_converters.registry import add_converter, get_converter
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
from torch import Tensor, nn
from torch.nn import functional as F


class Apply(nn.Module):
    """A function as a module: `function(*inputs, *more, **options)`. The function, that of a module so that it can be
    pickled, must hold no tensor of its own."""

    def __init__(self, function: Callable[..., Any], *more: Any, **options: Any) -> None:
        super().__init__()
        self.function, self.more, self.options = function, more, options

    def forward(self, *inputs: Any) -> Any:
        """The function's value."""
        return self.function(*inputs, *self.more, **self.options)


def _swish(alpha: float = 1.0) -> nn.Module:
    return nn.SiLU() if alpha == 1.0 else Apply(_swished, alpha)


def _swished(x: Tensor, alpha: float) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _group_norm(num_groups: int, epsilon: float = 1e-5, **_: object) -> nn.Module:
    """Scale and bias are inputs, one of each for a group (opset 18) or a channel (from 21 on)."""
    return Apply(_normalised, num_groups, epsilon)


def _normalised(x: Tensor, scale: Tensor, bias: Tensor, num_groups: int, epsilon: float) -> Tensor:
    each = x.shape[1] // scale.shape[0]
    scale, bias = (scale, bias) if each == 1 else (scale.repeat_interleave(each), bias.repeat_interleave(each))
    return F.group_norm(x, num_groups, scale, bias, epsilon)


_MISSING: dict[str, tuple[int, Callable[..., nn.Module]]] = {  # since which opset, and a module from the attributes
    "Gelu": (20, nn.GELU),
    "GroupNormalization": (18, _group_norm),
    "Mish": (18, nn.Mish),
    "Swish": (24, _swish),
    "ThresholdedRelu": (10, lambda alpha=1.0: nn.Threshold(alpha, 0.0)),
}


def _add(op: str, version: int, build: Callable[..., nn.Module]) -> None:
    """Register a converter, unless this onnx2torch is one that has it."""

    def converter(node: OnnxNode, _graph: OnnxGraph) -> OperationConverterResult:
        return OperationConverterResult(build(**node.attributes), onnx_mapping_from_node(node))

    try:
        get_converter(op, version)
    except NotImplementedError:
        add_converter(op, version)(converter)


for _op, (_version, _build) in _MISSING.items():
    _add(_op, _version, _build)
