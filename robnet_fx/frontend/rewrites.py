"""Rewriting of single ATen calls into the spelling that has a rule: constants without a batch, joins, tuple results.

A constant that the model repeats along the batch, such as a class token, stands in the graph once, `[1, *S]`, and is
broadcast where it meets the batch: in sums by itself, in joins by `ops.join`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.ops import join
from robnet_fx.frontend.canonical_graph import CanonicalGraph
from robnet_fx.graphs import argument

aten = torch.ops.aten

Rewrite = Callable[[CanonicalGraph, fx.Node], fx.Node | None]
REWRITES: dict[Any, Rewrite] = {}
FIRST_RESULTS: dict[Any, Rewrite] = {}
"""The same for operations with several results of which only the first is a value."""


def rewrites(*targets: Any, table: dict[Any, Rewrite] = REWRITES) -> Callable[[Rewrite], Rewrite]:
    """Enter a rewrite. It returns the canonical node that stands for the call, or None to keep the call as it is."""

    def enter(rewrite: Rewrite) -> Rewrite:
        table.update(dict.fromkeys(targets, rewrite))
        return rewrite

    return enter


@rewrites(aten.empty.memory_format, aten.new_empty.default, aten.empty_like.default)
@rewrites(aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default, aten.zero.default)
def _zeros(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _filled(graph, node, 0)


@rewrites(aten.ones.default, aten.new_ones.default, aten.ones_like.default)
def _ones(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _filled(graph, node, 1)


@rewrites(aten.full.default, aten.full_like.default, aten.fill.Scalar)
def _full(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _filled(graph, node, node.args[1])


@rewrites(aten.new_full.default)
def _new_full(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _filled(graph, node, node.args[2])


def _filled(graph: CanonicalGraph, node: fx.Node, number: Any) -> fx.Node | None:
    """One number all over, kept as a constant of one element: it follows the model to its device."""
    if not isinstance(number, (int, float)):
        return None
    value: Tensor = node.meta["val"]
    lone = torch.full((1,) * value.dim(), number, dtype=value.dtype, device=value.device)
    return _spread(graph, node, graph.constant(node, lone))


@rewrites(aten.expand.default)
def _expand(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _spread(graph, node, _input(graph, node, 0))


@rewrites(aten.repeat.default, aten.tile.default)
def _repeat(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    x, repeats = _input(graph, node, 0), node.args[1]
    assert isinstance(repeats, (list, tuple))
    if graph.varies(x):
        return None
    return graph.make(node.target, (x, [times if isinstance(times, int) else 1 for times in repeats]))


@rewrites(aten.repeat_interleave.self_int)
def _repeat_interleave(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """Once each, which changes nothing, also along the batch."""
    return _input(graph, node, 0) if node.args[0].meta["val"].shape == node.meta["val"].shape else None  # type: ignore[union-attr]


@rewrites(aten.fill.Tensor)
def _fill(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _spread(graph, node, _input(graph, node, 1))


@rewrites(aten.copy.default)
def _copy(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    source, value = node.args[1], node.meta["val"]
    assert isinstance(source, fx.Node)
    if not graph.same_kind(source.meta["val"], value):
        return None
    made = _input(graph, node, 1)
    return made if source.meta["val"].shape == value.shape else _spread(graph, node, made)


def _spread(graph: CanonicalGraph, node: fx.Node, constant: fx.Node) -> fx.Node | None:
    """A constant in the shape of `node`, for a batch of 1."""
    if graph.varies(constant):
        return None
    shape = [size if isinstance(size, int) else 1 for size in node.meta["val"].shape]
    return constant if [*constant.meta["val"].shape] == shape else graph.make(aten.expand.default, (constant, shape))


@rewrites(aten.cat.default)
def _cat(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _joined(graph, _inputs(graph, node), argument(node, "dim", 0))


@rewrites(aten.stack.default)
def _stack(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    dim = argument(node, "dim", 0) % node.meta["val"].dim()
    if dim == 0:
        return None
    return _joined(graph, [_lone(graph, node, part, dim) for part in _inputs(graph, node)], dim)


@rewrites(aten.select_scatter.default)
def _select_scatter(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """`x[:, i] = y`"""
    dim, index = (argument(node, name, 0) for name in ("dim", "index"))
    dim %= node.meta["val"].dim()
    if dim == 0:
        return None
    start = index % node.meta["val"].shape[dim]
    return _assigned(graph, node, _lone(graph, node, _input(graph, node, 1), dim), dim, start, start + 1)


@rewrites(aten.slice_scatter.default)
def _slice_scatter(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """`x[:, a:b:c] = y`"""
    value = node.meta["val"]
    dim = argument(node, "dim", 0) % value.dim()
    start, end, step = (argument(node, name, default) for name, default in (("start", 0), ("end", None), ("step", 1)))
    if node.args[1].meta["val"].shape == value.shape:  # type: ignore[union-attr]
        return _input(graph, node, 1)
    if dim == 0:
        return None
    places = range(value.shape[dim])[slice(start, end, step)]
    if step == 1:
        return _assigned(graph, node, _input(graph, node, 1), dim, places.start, places.stop)
    order = list(range(value.shape[dim]))  # of x with the new part behind it
    order[slice(start, end, step)] = range(len(order), len(order) + len(places))
    both = graph.derived(node, join, [_input(graph, node, 0), _input(graph, node, 1)], dim)
    return graph.derived(node, aten.index_select.default, both, dim, graph.constant(node, torch.tensor(order)))


def _assigned(graph: CanonicalGraph, node: fx.Node, part: fx.Node, dim: int, start: int, end: int) -> fx.Node:
    """x with `part` in place of what lay from `start` to `end` along `dim`."""
    x, size = _input(graph, node, 0), node.meta["val"].shape[dim]
    around = [(0, start), (end, size)]
    before, after = (
        [graph.derived(node, aten.slice.Tensor, x, dim, first, last)] * (first < last) for first, last in around
    )
    return _joined(graph, [*before, part, *after], dim)


def _lone(graph: CanonicalGraph, node: fx.Node, part: fx.Node, dim: int) -> fx.Node:
    """A part of `node` that lacks the axis `dim`, with a size of 1 there."""
    shape = [int(size) for size in node.meta["val"].shape[1:]]
    shape[dim - 1] = 1
    return graph.derived(node, aten.reshape.default, part, [-1, *shape])


def _joined(graph: CanonicalGraph, parts: list[fx.Node], dim: int) -> fx.Node:
    mixed = len({graph.varies(part) for part in parts}) == 2
    return graph.make(join if mixed else aten.cat.default, (parts, dim))


@rewrites(aten.bmm.default)
def _bmm(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """A constant of batch 1 is broadcast by matmul, and by bmm not."""
    return graph.make(aten.matmul.default, (_input(graph, node, 0), _input(graph, node, 1)))


@rewrites(aten.scaled_dot_product_attention.default)
def _attention(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """A causal mask as a constant like any other."""
    if not argument(node, "is_causal", False):
        return None
    query, key, value = (_input(graph, node, position) for position in range(3))
    lengths = [int(n.meta["val"].shape[-2]) for n in (query, key)]
    mask = graph.constant(node, torch.ones(lengths, dtype=torch.bool).tril())
    dropped = argument(node, "dropout_p", 0.0)
    return graph.make(node.target, (query, key, value, mask, dropped, False), graph.literal(node.kwargs))


@rewrites(aten.where.self)
def _where(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """`where(isnan(y), 0, y)` as y, as files have it behind a masked softmax: where y is no number, nor are bounds."""
    condition, _, y = node.args
    assert isinstance(condition, fx.Node)
    same = condition.target is aten.isnan.default and condition.args[0] is y and graph.varies(graph.env[condition])
    return _input(graph, node, 2) if same else None


@rewrites(aten.gather.default)
def _gather(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """With a constant index, which take_along_dim repeats along the batch."""
    x, index = _input(graph, node, 0), _input(graph, node, 2)
    values = [n.meta["val"] for n in (node.args[0], node.args[2])]  # type: ignore[union-attr]
    dim = argument(node, "dim", 0) % values[0].dim()
    same = all(a == b for axis, (a, b) in enumerate(zip(*(v.shape for v in values), strict=True)) if axis != dim)
    if dim == 0 or not same or graph.varies(index) or not graph.varies(x):
        return None
    return graph.make(aten.take_along_dim.default, (x, index, dim))


@rewrites(aten.max.dim, table=FIRST_RESULTS)
def _max(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _extreme(graph, node, aten.amax.default)


@rewrites(aten.min.dim, table=FIRST_RESULTS)
def _min(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    return _extreme(graph, node, aten.amin.default)


def _extreme(graph: CanonicalGraph, node: fx.Node, target: Any) -> fx.Node:
    return graph.make(target, (_input(graph, node, 0), [node.args[1]], argument(node, "keepdim", False)))


@rewrites(*(getattr(aten, f"adaptive_max_pool{dims}d").default for dims in (1, 2, 3)), table=FIRST_RESULTS)
def _adaptive_max_pool(graph: CanonicalGraph, node: fx.Node) -> fx.Node | None:
    """Max pooling with a window for each output; where windows differ in size, an index repeats values in them."""
    x, sizes = _input(graph, node, 0), node.args[1]
    assert isinstance(sizes, (list, tuple))
    rank = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
    if rank != len(sizes) + 2:
        return None
    kernel = []
    for axis, outs in enumerate(sizes, start=2):
        size = int(node.args[0].meta["val"].shape[axis])  # type: ignore[union-attr]
        windows = [range(i * size // outs, -(-(i + 1) * size // outs)) for i in range(outs)]
        longest = max(map(len, windows))
        if longest * outs != size:
            index = [window[min(i, len(window) - 1)] for window in windows for i in range(longest)]
            x = graph.derived(node, aten.index_select.default, x, axis, graph.constant(node, torch.tensor(index)))
        kernel.append(longest)
    pools = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default, 3: aten.max_pool3d.default}
    return graph.make(pools[len(sizes)], (x, kernel, kernel))


def _input(graph: CanonicalGraph, node: fx.Node, position: int) -> fx.Node:
    source = node.args[position]
    assert isinstance(source, fx.Node)
    return graph.env[source]


def _inputs(graph: CanonicalGraph, node: fx.Node) -> list[fx.Node]:
    """The canonical form of a list of inputs."""
    sources = node.args[0]
    assert isinstance(sources, (list, tuple))
    return [graph.env[source] for source in sources if isinstance(source, fx.Node)]
