"""Variances, deviations, norms and differences along axes, written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from robnet_fx.graphs import argument, shape_of
from robnet_fx.passes.lower import Builder, lowers

aten = torch.ops.aten


@lowers(aten.var.dim, aten.var.correction)
def _var(build: Builder, node: fx.Node) -> fx.Node | None:
    return _variance(build, node)


@lowers(aten.std.dim, aten.std.correction)
def _std(build: Builder, node: fx.Node) -> fx.Node | None:
    variance = _variance(build, node)
    return None if variance is None else build.call(aten.sqrt.default, variance)


def _variance(build: Builder, node: fx.Node) -> fx.Node | None:
    """The mean of the squared deviations, rescaled to a division by n - correction."""
    x: Any = node.args[0]
    axes, keepdim = argument(node, "dim", None), argument(node, "keepdim", False)
    correction = argument(node, "correction", None)
    if correction is None:
        correction = int(argument(node, "unbiased", True))
    count = _count(x, axes)
    if count <= correction:
        return None
    centred = build.call(aten.sub.Tensor, x, build.call(aten.mean.dim, x, axes, True))
    mean = build.call(aten.mean.dim, build.call(aten.pow.Tensor_Scalar, centred, 2), axes, keepdim)
    return build.call(aten.mul.Tensor, mean, count / (count - correction)) if correction else mean


def _count(x: fx.Node, axes: Sequence[int] | None) -> int:
    """How many values of one sample lie along the axes; 0 where the batch is among them."""
    sizes = (0, *shape_of(x))
    return math.prod(sizes[axis] for axis in axes) if axes else 0


@lowers(aten.linalg_vector_norm.default)
def _norm(build: Builder, node: fx.Node) -> fx.Node | None:
    x: Any = node.args[0]
    power, axes, keepdim = argument(node, "ord", 2), argument(node, "dim", None), argument(node, "keepdim", False)
    if not _count(x, axes):
        return None
    if power == 1:
        return build.call(aten.sum.dim_IntList, build.call(aten.abs.default, x), axes, keepdim)
    if power == 2:
        squares = build.call(aten.sum.dim_IntList, build.call(aten.pow.Tensor_Scalar, x, 2), axes, keepdim)
        return build.call(aten.sqrt.default, squares)
    return None


@lowers(aten.diff.default)
def _diff(build: Builder, node: fx.Node) -> fx.Node | None:
    x: Any = node.args[0]
    axis = argument(node, "dim", -1) % (len(shape_of(x)) + 1)
    if axis == 0 or any(argument(node, name, None) is not None for name in ("prepend", "append")):
        return None
    for _ in range(argument(node, "n", 1)):
        size = shape_of(x)[axis - 1]
        late, early = (build.call(aten.slice.Tensor, x, axis, start, start + size - 1) for start in (1, 0))
        x = build.call(aten.sub.Tensor, late, early)
    return x
