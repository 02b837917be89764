"""Operations on values whose batch is moved or merged, made on the stand-ins that have it in front.

Most only count their axes differently. Those whose axes have a fixed meaning, samples and channels first, take what the
batch is merged with as more channels, where each channel is worked by itself, or else as more samples (`ops.windowed`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import WINDOWED, windowed
from robnet_fx.frontend.batch_axis.stand_in import Apart, Place, call, sizes
from robnet_fx.frontend.canonical import CASTS, POOLS_WITH_INDICES
from robnet_fx.graphs import argument
from robnet_fx.machine.torch_internals import parameters_of

aten = torch.ops.aten

Made = tuple[fx.Node, Place]
"""A stand-in, and where the batch is in what it stands for."""
Form = Callable[[Apart, fx.Node], Made]
_FORMS: dict[Any, Form] = {}

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
        return _form(node)(work, node)
    except (RuntimeError, ValueError, TypeError, IndexError):  # an operation refuses in its own way
        raise work.refusal(node) from None


def _form(node: fx.Node) -> Form:
    target: Any = node.target
    if target in _FORMS:
        return _FORMS[target]
    if target in _LAST_AXES:
        return _of_last_axes
    if target in _ELEMENTWISE or torch.Tag.pointwise in target.tags:
        return _elementwise
    return _along


def forms(*targets: Any) -> Callable[[Form], Form]:
    """Enter how operations are made behind the batch."""

    def enter(form: Form) -> Form:
        _FORMS.update(dict.fromkeys(targets, form))
        return form

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


def _of_last_axes(work: Apart, node: fx.Node) -> Made:
    (source,) = work.varying(node)
    stand, place = work.known[source]
    if place.axis >= source.meta["val"].dim() - _LAST_AXES[node.target](node):
        raise work.refusal(node)
    return call(node, node.target, stand, *node.args[1:], **node.kwargs), place


@forms(aten.pad.default)
def _pad(work: Apart, node: fx.Node) -> Made:
    mode = argument(node, "mode", "constant")
    axes = len(node.args[1]) // 2  # type: ignore[arg-type]
    if mode != "constant":
        return _per_channel(work, node, node.target, axes)
    (source,) = work.varying(node)
    stand, place = work.known[source]
    if place.axis >= source.meta["val"].dim() - axes:
        raise work.refusal(node)
    return call(node, node.target, stand, *node.args[1:]), place


@forms(operator.getitem)
def _first_result(work: Apart, node: fx.Node) -> Made:
    args: Any = node.args
    producer, index = args
    if index != 0:
        raise work.refusal(node)
    if producer.target in _DELAYED:
        return _DELAYED[producer.target](work, producer)
    stand, place = work.known[producer]
    return call(node, operator.getitem, stand, 0), place


def _nothing(work: Apart, node: fx.Node) -> Made:
    """The first result is made where it is taken."""
    return work.known[work.varying(node)[0]]


def _per_channel(work: Apart, node: fx.Node, target: Any, axes: int) -> Made:
    """On `axes` axes of each channel by itself: a sample's rows as more channels."""
    source = work.varying(node)[0]
    stand, place = work.known[source]
    shape = sizes(source.meta["val"])
    if place.axis != 0 or len(shape) != axes + 2:
        raise work.refusal(node)
    folded = work.reshaped(node, stand, [work.batch, math.prod(place.extra) * shape[1], *shape[2:]])
    made = call(node, target, folded, *node.args[1:], **node.kwargs)
    if not isinstance(made.meta["val"], torch.Tensor):
        made = call(node, operator.getitem, made, 0)
    _, channels, *rest = sizes(made.meta["val"])
    return work.reshaped(node, made, [work.batch, *place.extra, channels // math.prod(place.extra), *rest]), place


def _as_samples(work: Apart, node: fx.Node, target: Any, *rest: Any) -> Made:
    """A sample's rows as more samples."""
    source = work.varying(node)[0]
    stand, place = work.known[source]
    if place.axis != 0:
        raise work.refusal(node)
    folded = work.reshaped(node, stand, [work.batch, math.prod(place.extra), *sizes(source.meta["val"])[1:]])
    made = call(node, windowed(target), folded, *rest)
    return work.reshaped(node, made, [work.batch, *place.extra, *sizes(made.meta["val"])[2:]]), place


@forms(*WINDOWED)
def _windows(work: Apart, node: fx.Node) -> Made:
    return _as_samples(work, node, node.target, *node.args[1:])


def _batch_norm(work: Apart, node: fx.Node) -> Made:
    weight, bias, mean, var, momentum, eps = node.args[1:]
    return _as_samples(work, node, aten.batch_norm.default, weight, bias, mean, var, False, momentum, eps, False)


def _pool(work: Apart, node: fx.Node) -> Made:
    return _per_channel(work, node, node.target, _dimensions(node))


def _dimensions(node: fx.Node) -> int:
    """2 of `avg_pool2d`"""
    name = str(node.target).split(".")[1]
    return next(axes for axes in (1, 2, 3) if f"{axes}d" in name)


_DELAYED: dict[Any, Form] = {
    **{getattr(aten, f"adaptive_max_pool{axes}d").default: _pool for axes in (1, 2, 3)},
    **dict.fromkeys(POOLS_WITH_INDICES, _pool),
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
}
"""Operations with several results of which the first may be used, which is made at its `getitem`."""
forms(*_DELAYED)(_nothing)
forms(
    *(getattr(aten, f"{kind}_pool{axes}d").default for kind in ("avg", "max", "adaptive_avg") for axes in (1, 2, 3)),
    *(getattr(aten, f"_adaptive_avg_pool{axes}d").default for axes in (2, 3)),
    *(getattr(aten, f"{kind}_pad{axes}d").default for kind in ("reflection", "replication") for axes in (1, 2, 3)),
    *(
        getattr(aten, f"{kind}{axes}d").vec
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for axes in (1, 2, 3)
    ),
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten._upsample_bilinear2d_aa.vec,
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten.upsample_trilinear3d.vec,
)(_pool)


@forms(aten.group_norm.default)
def _group_norm(work: Apart, node: fx.Node) -> Made:
    groups, *rest = node.args[1:]
    return _normalised(work, node, groups, *(*rest, None, None, 1e-5)[: max(3, len(rest))])


@forms(aten.instance_norm.default)
def _instance_norm(work: Apart, node: fx.Node) -> Made:
    weight, bias, _, _, of_input, _, eps = node.args[1:8]
    if not of_input:
        raise work.refusal(node)
    return _normalised(work, node, node.meta["val"].shape[1], weight, bias, eps)


def _normalised(work: Apart, node: fx.Node, groups: Any, weight: Any, bias: Any, eps: Any, *_: Any) -> Made:
    """The groups of all rows at once, and each row's channels weighted behind."""
    source = work.varying(node)[0]
    stand, place = work.known[source]
    shape = sizes(source.meta["val"])
    if place.axis != 0:
        raise work.refusal(node)
    rows = math.prod(place.extra)
    folded = work.reshaped(node, stand, [work.batch, rows * shape[1], *shape[2:]])
    made = call(node, aten.group_norm.default, folded, rows * groups, None, None, eps)
    made = work.reshaped(node, made, [work.batch, *place.extra, *shape[1:]])
    for target, constant in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if constant is not None:
            made = call(node, target, made, _of_channels(node, constant, len(shape)))
    return made, place


def _of_channels(node: fx.Node, constant: fx.Node, rank: int) -> fx.Node:
    """`[C]` as `[C, 1, ...]`: for the channels of values with `rank` axes, whatever stands in front."""
    return call(node, aten.reshape.default, constant, [-1, *[1] * (rank - 2)])


@forms(aten.prelu.default)
def _prelu(work: Apart, node: fx.Node) -> Made:
    args: Any = node.args
    source, weight = args
    stand, place = work.known[source]
    if place.axis != 0:
        raise work.refusal(node)
    slopes = call(node, aten.reshape.default, weight, [1, -1, *[1] * (node.meta["val"].dim() - 2)])
    return call(node, aten._prelu_kernel.default, stand, slopes), place


@forms(aten.index.Tensor)
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


@forms(aten.slice_scatter.default)
def _assigned(work: Apart, node: fx.Node) -> Made:
    """All of a value assigned, which is how `x[:, i] = y` ends; else along an axis that it names."""
    args: Any = node.args
    whole = args[1].meta["val"].shape == node.meta["val"].shape
    return work.known[args[1]] if whole and args[1] in work.known else _along(work, node)
