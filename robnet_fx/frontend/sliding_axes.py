"""Which axes of its input a network takes as space, told by its first layers.

Convolutions and pools slide over space. Followed back through permutations and reshapes to the input, their axes say
how the network reads an image, whatever its shape may suggest. An axis is known by its size and its stride in a
sample's flat order, so that a vector that is unflattened inside tells its order too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import Windowed
from robnet_fx.graphs import argument, shape_of
from robnet_fx.images.layout import Axis, Evidence

aten = torch.ops.aten

_Axes = tuple[Axis | None, ...]  # of a value without the batch; None where it is no axis of the input

_PIXELWISE = {getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div")}  # a normalisation
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool")
_LAST_AXES = {
    **{getattr(aten, f"{name}{n}d").default: n for name in ("conv", *_POOLS) for n in (1, 2, 3)},
    aten.convolution.default: None,
    aten.im2col.default: 2,
}
"""Operations that slide over so many last axes; None for all behind the channels."""


def evidence(traced: fx.GraphModule) -> Evidence:
    """What the first layer on each path from the input of a canonical graph slides over, and the channels, where the
    input is only read with its last axis moved to the front or its first one to the end."""
    known: dict[fx.Node, _Axes] = {}
    slides: set[Axis] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            sizes = shape_of(node)
            known[node] = tuple((size, math.prod(sizes[at + 1 :])) for at, size in enumerate(sizes))
            continue
        sources = [source for source in node.all_input_nodes if source in known]
        if node.op != "call_function" or not sources:
            continue
        axes = known[sources[0]]
        target = node.target.target if isinstance(node.target, Windowed) else node.target
        if target in _LAST_AXES:
            count = _LAST_AXES[target] or len(axes) - 1
            slides.update(axis for axis in axes[len(axes) - count :] if axis and axis[0] > 1)
            continue
        moved = _moved(node, axes, len(shape_of(node)))
        if moved is not None:
            known[node] = moved
    return Evidence(frozenset(slides), _moved_channels(traced))


def _moved_channels(traced: fx.GraphModule) -> Axis | None:
    image = traced.graph.find_nodes(op="placeholder")[0]
    sizes = shape_of(image)
    readers, orders = list(image.users), set()
    while readers:
        node = readers.pop()
        if node.target is aten.permute.default:
            orders.add(tuple(axis % (len(sizes) + 1) for axis in node.args[1]))
        elif node.target in _PIXELWISE and shape_of(node) == sizes:
            readers += node.users
        else:
            return None
    first, last = list(range(2, len(sizes) + 1)), len(sizes)
    if len(sizes) > 1 and orders == {(0, last, *range(1, last))}:
        return sizes[-1], 1
    if len(sizes) > 1 and orders == {(0, *first, 1)}:
        return sizes[0], math.prod(sizes[1:])
    return None


def _moved(node: fx.Node, axes: _Axes, rank: int) -> _Axes | None:
    """The axes of a value made from one with `axes`; None where they cannot be followed."""
    target: Any = node.target
    if target is aten.permute.default:
        order: Any = node.args[1]
        order = [axis % (rank + 1) for axis in order]
        return tuple(axes[axis - 1] for axis in order[1:]) if order[0] == 0 else None
    if target is aten.transpose.int:
        order = list(range(rank + 1))
        first, second = (axis % (rank + 1) for axis in node.args[1:])  # type: ignore[operator]
        order[first], order[second] = second, first
        return tuple(axes[axis - 1] for axis in order[1:]) if order[0] == 0 else None
    if target is aten.reshape.default:
        return _reshaped(axes, shape_of(node.args[0]), shape_of(node))  # type: ignore[arg-type]
    if target is aten.select.int:
        gone = argument(node, "dim", 0) % (len(axes) + 1)
        return tuple(axis for at, axis in enumerate(axes, start=1) if at != gone) if gone else None
    if rank == len(axes) and target not in (aten.linear.default, aten.matmul.default, aten.einsum.default):
        return axes  # elementwise, padded, cut, turned: an axis stays what it is
    return None


def _reshaped(axes: _Axes, before: Sequence[int], after: Sequence[int]) -> _Axes:
    """The axes of a reshape: what holds the same numbers in the same order is split or merged, stride by stride."""
    made: list[Axis | None] = []
    i = j = 0
    while j < len(after):
        start, first = i, j
        old, new = 1, 1
        while True:
            if old <= new and i < len(before):
                old *= before[i]
                i += 1
            elif j < len(after):
                new *= after[j]
                j += 1
            if old == new and j > first:
                break
        made += _regrouped(axes[start:i], after[first:j])
    return tuple(made)


def _regrouped(group: Sequence[Axis | None], sizes: Sequence[int]) -> list[Axis | None]:
    """`sizes` in place of the axes of a group, which hold as many numbers; None where these are not in order."""
    parts = [axis for axis in group if axis is not None]
    unknown = len(parts) < len(group) or not parts
    if unknown or any(a[1] != b[1] * b[0] for a, b in itertools.pairwise(parts)):
        return [None] * len(sizes)
    stride = parts[-1][1]
    made: list[Axis | None] = []
    for size in reversed(sizes):
        made.append((size, stride))
        stride *= size
    return made[::-1]
