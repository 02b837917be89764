"""Convolutions of one to three dimensions, plain and transposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robnet_fx.algebra.convolution import by_parts, convolution
from robnet_fx.algebra.depthwise import by_taps, depthwise, depthwise_transpose
from robnet_fx.algebra.domains import InputShape
from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _plain(conv: Callable[..., Tensor], conv_transpose: Callable[..., Tensor], dims: int) -> dict[str, Any]:
    def f(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        strides, paddings, dilations, groups = _options(dims, *rest)
        if by_taps(x, weight, groups):
            y = depthwise(x, weight, strides, paddings, dilations)
        elif by_parts(x, weight):
            y = convolution(conv, x, _channels_last(weight), strides, paddings, dilations, groups)
        else:
            return conv(x, _channels_last(weight), bias, strides, paddings, dilations, groups)
        return y if bias is None else y + bias.reshape(-1, *[1] * dims)

    def transpose(g: Tensor, x: InputShape, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        strides, paddings, dilations, groups = _options(dims, *rest)
        # A stride may leave input rows at the far edge that no window reached: output_padding gives them back.
        missing = [
            size - ((out - 1) * s - 2 * p + d * (kernel - 1) + 1)
            for size, out, kernel, s, p, d in zip(
                x.dims[1:], g.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True
            )
        ]
        if by_taps(g, weight, groups):
            return depthwise_transpose(g, weight, strides, paddings, missing, dilations)
        return conv_transpose(g, _channels_last(weight), None, strides, paddings, missing, groups, dilations)

    return _weighted(f) | {"transpose": transpose}


def _options(
    dims: int,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
) -> tuple[list[int], list[int], list[int], int]:
    """What follows the bias among a convolution's arguments, with one number a spatial axis."""
    return each(stride, dims), each(padding, dims), each(dilation, dims), groups


def _channels_last(weight: Tensor) -> Tensor:
    """The user's weights stay as they are; a copy of them for each convolution costs nothing beside it."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


def each(value: Sequence[int] | int, dims: int) -> list[int]:
    """One number a spatial axis, from one for all or one each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _by_autograd(conv: Callable[..., Tensor]) -> dict[str, Any]:
    return _weighted(lambda x, weight, *rest: conv(x, _channels_last(weight), *rest))


def _weighted(f: Callable[..., Tensor]) -> dict[str, Any]:
    """What `affine` takes, from f(x, weight, bias, ...) alone."""

    def lin(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        return f(x, weight, None, *rest)

    def abs_f(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        return f(x, weight.abs(), None, *rest)

    return {"f": f, "lin": lin, "abs_f": abs_f, "sums": True}


for _dims, _conv, _transposed in (
    (1, F.conv1d, F.conv_transpose1d),
    (2, F.conv2d, F.conv_transpose2d),
    (3, F.conv3d, F.conv_transpose3d),
):
    _name = f"conv{_dims}d"
    register(__name__, affine(_name, **_plain(_conv, _transposed, _dims)), getattr(aten, _name).default)
    register(__name__, affine(f"{_name}_padding", **_by_autograd(_conv)), getattr(aten, _name).padding)
    _overload = "default" if _dims == 1 else "input"
    _packet = getattr(aten, f"conv_transpose{_dims}d")
    register(__name__, affine(f"conv_transpose{_dims}d", **_by_autograd(_transposed)), getattr(_packet, _overload))
