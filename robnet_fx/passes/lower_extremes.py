"""Maxima and minima written out: of two values by a ReLU of their difference, over axes by max pooling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import larger
from robnet_fx.graphs import argument, shape_of
from robnet_fx.passes.lower import Builder, lowers

aten = torch.ops.aten


def _maximum(build: Builder, x: Any, y: Any) -> fx.Node:
    """`y + relu(x - y)`: both values once where one is constant, their difference where both are bounded."""
    if not build.depends(x):
        x, y = y, x
    excess = build.call(aten.relu.default, build.call(aten.sub.Tensor, x, y))
    return build.call(larger, x, y, excess) if build.depends(y) else build.call(aten.add.Tensor, excess, y)


def _minimum(build: Builder, x: Any, y: Any) -> fx.Node:
    """`-max(-x, -y)`."""
    return _negative(build, _maximum(build, _negative(build, x), _negative(build, y)))


def _negative(build: Builder, x: Any) -> fx.Node:
    return build.call(aten.neg.default, x)


@lowers(aten.maximum.default, aten.max.other, aten.fmax.default, aten.clamp_min.Tensor)
def _lower_maximum(build: Builder, node: fx.Node) -> fx.Node:
    return _maximum(build, *node.args)


@lowers(aten.minimum.default, aten.min.other, aten.fmin.default, aten.clamp_max.Tensor)
def _lower_minimum(build: Builder, node: fx.Node) -> fx.Node:
    return _minimum(build, *node.args)


@lowers(aten.clamp.Tensor)
def _clamp(build: Builder, node: fx.Node) -> fx.Node:
    x, low, high = (*node.args, None)[:3]
    x = x if low is None else _maximum(build, x, low)
    return x if high is None else _minimum(build, x, high)  # type: ignore[return-value]


@lowers(aten.amax.default)
def _amax(build: Builder, node: fx.Node) -> fx.Node | None:
    return _over_axes(build, node, negate=False)


@lowers(aten.amin.default)
def _amin(build: Builder, node: fx.Node) -> fx.Node | None:
    highest = _over_axes(build, node, negate=True)
    return None if highest is None else _negative(build, highest)


def _over_axes(build: Builder, node: fx.Node, negate: bool) -> fx.Node | None:
    """The maximum over axes: these moved last and pooled in one window (tighter than pairwise maxima in rounds)."""
    x: Any = node.args[0]
    shape = shape_of(x)
    axes = range(1, len(shape) + 1)
    gone = sorted(axis % (len(shape) + 1) for axis in argument(node, "dim", []))
    if not gone or gone[0] == 0:
        return None  # over the batch
    kept = [axis for axis in axes if axis not in gone]
    count = math.prod(shape[axis - 1] for axis in gone)
    moved = build.call(aten.permute.default, _negative(build, x) if negate else x, [0, *kept, *gone])
    rows = build.call(aten.reshape.default, moved, [-1, math.prod(shape) // count, count])
    pooled = build.call(aten.max_pool1d.default, rows, [count])
    keepdim = argument(node, "keepdim", False)
    tail = [1 if axis in gone else shape[axis - 1] for axis in axes if keepdim or axis not in gone]
    return build.call(aten.reshape.default, pooled, [-1, *tail])
