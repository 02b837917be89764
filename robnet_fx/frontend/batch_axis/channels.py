"""Operations whose axes have a fixed meaning, samples and channels first, made on the stand-ins.

They take what the batch is merged with as more channels, where each channel is worked by itself, or else as more
samples (`ops.windowed`).
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import WINDOWED, windowed
from robnet_fx.frontend.batch_axis.operations import Made, Operation, of_last_axes, on_stand_ins
from robnet_fx.frontend.batch_axis.stand_in import Apart, call, sizes
from robnet_fx.frontend.spellings import POOLS_WITH_INDICES
from robnet_fx.graphs import argument

aten = torch.ops.aten


@on_stand_ins(aten.pad.default)
def _pad(work: Apart, node: fx.Node) -> Made:
    constant = argument(node, "mode", "constant") == "constant"
    axes = len(node.args[1]) // 2  # type: ignore[arg-type]
    return of_last_axes(work, node, axes) if constant else _per_channel(work, node, node.target, axes)


@on_stand_ins(operator.getitem)
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


@on_stand_ins(*WINDOWED)
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


_DELAYED: dict[Any, Operation] = {
    **{getattr(aten, f"adaptive_max_pool{axes}d").default: _pool for axes in (1, 2, 3)},
    **dict.fromkeys(POOLS_WITH_INDICES, _pool),
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
}
"""Operations with several results of which the first may be used, which is made at its `getitem`."""
on_stand_ins(*_DELAYED)(_nothing)
on_stand_ins(
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


@on_stand_ins(aten.group_norm.default)
def _group_norm(work: Apart, node: fx.Node) -> Made:
    groups, *rest = node.args[1:]
    return _normalised(work, node, groups, *(*rest, None, None, 1e-5)[: max(3, len(rest))])


@on_stand_ins(aten.instance_norm.default)
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


@on_stand_ins(aten.prelu.default)
def _prelu(work: Apart, node: fx.Node) -> Made:
    args: Any = node.args
    source, weight = args
    stand, place = work.known[source]
    if place.axis != 0:
        raise work.refusal(node)
    slopes = call(node, aten.reshape.default, weight, [1, -1, *[1] * (node.meta["val"].dim() - 2)])
    return call(node, aten._prelu_kernel.default, stand, slopes), place
