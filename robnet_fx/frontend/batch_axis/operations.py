"""Operations on values whose batch is moved or merged, made on the stand-ins that have it in front.

Most only count their axes differently; those whose axes have a fixed meaning are in `channels.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from robnet_fx.frontend.batch_axis.stand_in import Apart, Place, call
from robnet_fx.frontend.spellings import CASTS
from robnet_fx.graphs import argument
from robnet_fx.machine.torch_internals import parameters_of

aten = torch.ops.aten

Made = tuple[fx.Node, Place]
"""A stand-in, and where the batch is in what it stands for."""
Operation = Callable[[Apart, fx.Node], Made]
_TABLE: dict[Any, Operation] = {}

_ELEMENTWISE = {
    *CASTS,
    aten.rsub.Tensor,
    aten.hardswish.default,
    aten.masked_fill.Tensor,
    aten.fill.Tensor,
    aten.fill.Scalar,
    aten.copy.default,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
}
"""Those that PyTorch does not tag as such."""
_LAST_AXES: dict[Any, Callable[[fx.Node], int]] = {
    aten.linear.default: lambda node: 1,
    aten.layer_norm.default: lambda node: len(node.args[1]),  # type: ignore[arg-type]
    aten.constant_pad_nd.default: lambda node: len(node.args[1]) // 2,  # type: ignore[arg-type]
    aten.tril.default: lambda node: 2,
    aten.triu.default: lambda node: 2,
    aten.pixel_shuffle.default: lambda node: 3,
    aten.pixel_unshuffle.default: lambda node: 3,
}
"""Operations on the last axes, and how many."""
_AXES = {"dim", "dims", "dim0", "dim1", "dim2", "dimension"}


def operation(work: Apart, node: fx.Node) -> Made:
    """The stand-in of what an operation makes of values at one place; raises `UnsupportedError` where there is none."""
    try:
        return _on_stand_ins(node)(work, node)
    except (RuntimeError, ValueError, TypeError, IndexError):  # an operation refuses in its own way
        raise work.refusal(node) from None


def _on_stand_ins(node: fx.Node) -> Operation:
    target: Any = node.target
    if target in _TABLE:
        return _TABLE[target]
    if target in _LAST_AXES:
        return lambda work, node: of_last_axes(work, node, _LAST_AXES[target](node))
    if target in _ELEMENTWISE or torch.Tag.pointwise in target.tags:
        return _elementwise
    return _along


def on_stand_ins(*targets: Any) -> Callable[[Operation], Operation]:
    """Enter how operations are made on stand-ins."""

    def enter(made: Operation) -> Operation:
        _TABLE.update(dict.fromkeys(targets, made))
        return made

    return enter


def _elementwise(work: Apart, node: fx.Node) -> Made:
    rank, common = node.meta["val"].dim(), work.common(node)
    place = common._replace(axis=rank + common.axis)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: work.aligned(node, n, rank, place))
    return call(node, node.target, *args, **kwargs), place


def _along(work: Apart, node: fx.Node) -> Made:
    """Along axes that it names, none of which holds the batch."""
    target: Any = node.target
    first, *others = work.varying(node)
    place, rank = work.known[first][1], first.meta["val"].dim()
    entries = [(i, entry) for i, entry in enumerate(parameters_of(target)) if entry.name in _AXES]
    if not entries or any(work.known[other][1][1:] != place[1:] for other in others):
        raise work.refusal(node)
    args, gone = list(fx.node.map_arg(node.args, lambda n: work.known[n][0] if n in work.known else n)), 0
    for i, entry in entries:
        axes = argument(node, entry.name, entry.default_value)
        listed = [axes] if isinstance(axes, int) else axes
        if not listed or any(axis % rank == place.axis for axis in listed):
            raise work.refusal(node)
        moved = [axis if axis < 0 and axis % rank > place.axis else place.of(axis % rank) for axis in listed]
        gone += sum(axis % rank < place.axis for axis in listed)
        if i < len(args):
            args[i] = moved[0] if isinstance(axes, int) else moved
        elif moved != listed:
            raise work.refusal(node)
    made = call(node, target, *args, **node.kwargs)
    value = made.meta["val"]
    kept = (value if isinstance(value, torch.Tensor) else value[0]).dim() >= rank + len(place.extra)
    return made, place if kept else place._replace(axis=place.axis - gone)


def of_last_axes(work: Apart, node: fx.Node, axes: int) -> Made:
    """On the last `axes` axes, none of which holds the batch."""
    (source,) = work.varying(node)
    stand, place = work.known[source]
    if place.axis >= source.meta["val"].dim() - axes:
        raise work.refusal(node)
    return call(node, node.target, stand, *node.args[1:], **node.kwargs), place


@on_stand_ins(aten.index.Tensor)
def _index(work: Apart, node: fx.Node) -> Made:
    """By constants along axes in a row."""
    args: Any = node.args
    source, indices = args
    stand, place = work.known[source]
    rank = source.meta["val"].dim()
    entries = [*indices, *[None] * (rank - len(indices))]
    used = [axis for axis, entry in enumerate(entries) if entry is not None]
    if place.axis in used or any(entry in work.known for entry in entries) or used[-1] - used[0] >= len(used):
        raise work.refusal(node)
    before, behind = entries[: place.axis], entries[place.axis + 1 :]
    found = [None, *before, *[None] * len(place.extra), *behind]
    grown = node.meta["val"].dim() - rank
    made = call(node, aten.index.Tensor, stand, found[: max(place.of(axis) for axis in used) + 1])
    return made, place._replace(axis=place.axis + (grown if used[0] < place.axis else 0))


@on_stand_ins(aten.slice_scatter.default)
def _assigned(work: Apart, node: fx.Node) -> Made:
    """All of a value assigned, which is how `x[:, i] = y` ends; else along an axis that it names."""
    args: Any = node.args
    whole = args[1].meta["val"].shape == node.meta["val"].shape
    return work.known[args[1]] if whole and args[1] in work.known else _along(work, node)
