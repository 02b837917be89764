"""What puts the batch in another place: reshapes, permutations, joins along it and the parts of what was joined."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import join
from robnet_fx.frontend.batch_axis.operations import Made, operation
from robnet_fx.frontend.batch_axis.stand_in import Apart, Place, alone, call, number, sizes
from robnet_fx.frontend.spellings import IDENTITIES, RESHAPES, SPLITS
from robnet_fx.graphs import argument

aten = torch.ops.aten

Move = Callable[[Apart, fx.Node], Made]
MOVES: dict[Any, Move] = {}
IN_PARTS = {*SPLITS, aten.unbind.int}
"""Operations with several results, each of which is made by itself."""


def moves(*targets: Any) -> Callable[[Move], Move]:
    """Enter what becomes of operations that may put the batch somewhere else: the stand-in of the result, its place."""

    def enter(move: Move) -> Move:
        MOVES.update(dict.fromkeys(targets, move))
        return move

    return enter


@moves(*IDENTITIES)
def _identity(work: Apart, node: fx.Node) -> Made:
    return work.known[work.varying(node)[0]]


@moves(*RESHAPES)
def _reshape(work: Apart, node: fx.Node) -> Made:
    """The order of the numbers is the same in front of the batch, and behind it."""
    (source,) = work.varying(node)
    stand, (axis, slow, _) = work.known[source]
    before, shape = sizes(source.meta["val"]), sizes(node.meta["val"])
    free = [place for place, size in enumerate(shape) if not isinstance(size, int)]
    merged = work.times(shape[free[0]]) if len(free) == 1 else None
    in_front, kept = math.prod(before[:axis]) * slow, math.prod(shape[: free[0]])
    if not merged or not kept or in_front % kept or merged % (in_front // kept):
        raise work.refusal(node)
    found = Place(free[0], in_front // kept, merged // (in_front // kept))
    return work.reshaped(node, stand, found.shape(shape, work.batch)), found


@moves(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(work: Apart, node: fx.Node) -> Made:
    (source,) = work.varying(node)
    stand, place = work.known[source]
    order, axes = list(range(source.meta["val"].dim())), _numbers(node)
    if node.target is aten.permute.default:
        order = [axis % len(order) for axis in axes]
    else:
        first, second = (axis % len(order) for axis in axes or (0, -1))
        order[first], order[second] = second, first
    extra = range(place.axis + 1, place.axis + 1 + len(place.extra))
    moved = [0]
    for axis in order:
        moved += extra if axis == place.axis else [place.of(axis)]
    found = place._replace(axis=order.index(place.axis))
    return (stand if moved == sorted(moved) else call(node, aten.permute.default, stand, moved)), found


def _numbers(node: fx.Node) -> list[int]:
    """The arguments after the first, of a list what it holds."""
    rest: Any = node.args[1:]
    return list(rest[0]) if len(rest) == 1 else list(rest)


@moves(aten.cat.default)
def _cat(work: Apart, node: fx.Node) -> Made:
    """Along the batch the parts become slow ones, each with all samples."""
    parts: Any = node.args[0]
    dim = argument(node, "dim", 0) % node.meta["val"].dim()
    places = [work.known[part][1] for part in parts if part in work.known]
    if dim != places[0].axis:
        if len(set(places)) > 1:
            raise work.refusal(node)
        stands = [_joinable(work, node, part, places[0]) for part in parts]
        mixed = len(places) < len(parts)
        return call(node, join if mixed else aten.cat.default, stands, places[0].of(dim)), places[0]
    if len(places) < len(parts) or len({(place.axis, place.fast) for place in places}) > 1:
        raise work.refusal(node)
    joined = call(node, aten.cat.default, [_opened(work, node, part) for part in parts], dim + 1)
    return joined, places[0]._replace(slow=sum(place.slow for place in places))


def _joinable(work: Apart, node: fx.Node, part: fx.Node, place: Place) -> fx.Node:
    """A part to be joined beside the batch; a constant once for all samples, and for each row of one."""
    if part in work.known:
        return work.known[part][0]
    constant = alone(node, part)
    shape = [*constant.meta["val"].shape]
    opened = [1, *shape[: place.axis], *[1] * len(place.extra), *shape[place.axis + 1 :]]
    constant = call(node, aten.reshape.default, constant, opened)
    return call(node, aten.expand.default, constant, place.shape(shape, 1))


def _opened(work: Apart, node: fx.Node, source: fx.Node) -> fx.Node:
    """The stand-in with an axis for the slow parts, also of one."""
    stand, place = work.known[source]
    shape = sizes(stand.meta["val"])
    return (
        stand if place.slow > 1 else work.reshaped(node, stand, [*shape[: place.axis + 1], 1, *shape[place.axis + 1 :]])
    )


@moves(aten.stack.default)
def _stack(work: Apart, node: fx.Node) -> Made:
    parts: Any = node.args[0]
    dim = argument(node, "dim", 0) % node.meta["val"].dim()
    places = {work.known[part][1] if part in work.known else None for part in parts}
    place = places.pop()
    if places or place is None:
        raise work.refusal(node)
    moved = place._replace(axis=place.axis + (dim <= place.axis))
    return call(node, aten.stack.default, [work.known[part][0] for part in parts], moved.of(dim)), moved


@moves(aten.expand.default)
def _expand(work: Apart, node: fx.Node) -> Made:
    (source,) = work.varying(node)
    rank, place = node.meta["val"].dim(), work.known[source][1]
    missing = rank - source.meta["val"].dim()
    moved = place._replace(axis=place.axis + missing)
    stand = work.aligned(node, source, rank, moved)
    shape = moved.shape(sizes(node.meta["val"]), work.batch)
    return call(node, aten.expand.default, stand, [-1, *shape[1:]]), moved


@moves(aten.repeat.default, aten.tile.default)
def _repeat(work: Apart, node: fx.Node) -> Made:
    """Along the batch the copies are slow parts."""
    (source,) = work.varying(node)
    place, rank = work.known[source][1], node.meta["val"].dim()
    copies: Any = [*[1] * (rank - len(_numbers(node))), *_numbers(node)]
    if not all(isinstance(times, int) for times in copies):
        raise work.refusal(node)
    opened = _opened(work, node, source)
    first, *rest = sizes(opened.meta["val"])
    missing = rank - source.meta["val"].dim()
    axis = place.axis + missing
    stand = work.reshaped(node, opened, [first, *[1] * missing, *rest])
    times = [1, *copies[: axis + 1], *[1] * (place.fast > 1), *copies[axis + 1 :]]
    moved = Place(axis, place.slow * copies[axis], place.fast)
    repeated = call(node, aten.repeat.default, stand, times)
    return work.reshaped(node, repeated, moved.shape(sizes(node.meta["val"]), work.batch)), moved


@moves(aten.repeat_interleave.self_int)
def _repeat_interleave(work: Apart, node: fx.Node) -> Made:
    """Along the batch each sample's rows are repeated one by one."""
    (source,) = work.varying(node)
    stand, place = work.known[source]
    times, dim = number(node.args[1]), argument(node, "dim", None)
    if not isinstance(times, int) or dim is None:
        raise work.refusal(node)
    dim %= source.meta["val"].dim()
    if dim != place.axis:
        return call(node, aten.repeat_interleave.self_int, stand, times, place.of(dim)), place
    shape, at = sizes(stand.meta["val"]), place.axis + 1 + (place.slow > 1)
    opened = stand if place.fast > 1 else work.reshaped(node, stand, [*shape[:at], 1, *shape[at:]])
    return call(node, aten.repeat_interleave.self_int, opened, times, at), place._replace(fast=place.fast * times)


@moves(aten.slice.Tensor)
def _slice(work: Apart, node: fx.Node) -> Made:
    (source,) = work.varying(node)
    stand, place = work.known[source]
    dim, step = argument(node, "dim", 0) % node.meta["val"].dim(), argument(node, "step", 1)
    start, end = (number(argument(node, name, None)) for name in ("start", "end"))
    if dim != place.axis:
        return call(node, aten.slice.Tensor, stand, place.of(dim), start, end, step), place
    start = start or 0
    if step == place.fast > 1 and isinstance(start, int) and 0 <= start < step:  # one row of every sample
        row = call(node, aten.select.int, stand, place.axis + 1 + (place.slow > 1), start)
        return row, place._replace(fast=1)
    if step != 1:
        raise work.refusal(node)
    return _some(work, node, source, start)


def _some(work: Apart, node: fx.Node, source: fx.Node, start: Any) -> Made:
    """Some of the slow parts, from row `start` on."""
    stand, place = work.known[source]
    first, count = work.times(start), work.times(sizes(node.meta["val"])[place.axis])
    if first is None or not count or first % place.fast or count % place.fast:
        raise work.refusal(node)
    first, count = first // place.fast % place.slow, count // place.fast
    if count == place.slow:
        return stand, place
    part = call(node, aten.slice.Tensor, stand, place.axis + 1, first, first + count)
    place = place._replace(slow=count)
    return work.reshaped(node, part, place.shape(sizes(node.meta["val"]), work.batch)), place


@moves(operator.getitem)
def _part(work: Apart, node: fx.Node) -> Made:
    """One of several results, made by itself."""
    args: Any = node.args
    producer, index = args
    if producer.target not in IN_PARTS:
        return operation(work, node)
    (source,) = work.varying(producer)
    stand, place = work.known[source]
    dim = argument(producer, "dim", 0) % source.meta["val"].dim()
    if producer.target is aten.unbind.int:
        if dim == place.axis:
            raise work.refusal(node)
        selected = call(node, aten.select.int, stand, place.of(dim), index)
        return selected, place._replace(axis=place.axis - (dim < place.axis))
    lengths = [sizes(part)[dim] for part in producer.meta["val"]]
    start = sum(lengths[:index])
    if dim == place.axis:
        return _some(work, node, source, start)
    return call(node, aten.slice.Tensor, stand, place.of(dim), start, start + lengths[index]), place
