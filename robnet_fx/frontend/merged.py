"""A batch merged with another axis is taken apart again: `[k * B, *S]` becomes `[B, k, *S]`.

Attention in windows works on the windows of all images at once. Bounds keep images apart, so what is computed between
merging and parting is computed with the k windows of an image on an axis of their own, behind the batch. Only a reshape
merges, and only of what has the batch first, so the image is always the slower part of a merged axis.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.canonical import CASTS, IDENTITIES, RESHAPES, is_whole, place_of
from robnet_fx.frontend.moved import call
from robnet_fx.graphs import argument, prune

aten = torch.ops.aten

_AS_IT_IS = {
    *CASTS,
    operator.getitem,
    aten.rsub.Tensor,
    aten.hardswish.default,
    aten.masked_fill.Tensor,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.linear.default,
    aten.matmul.default,
    aten.layer_norm.default,
    aten.scaled_dot_product_attention.default,
    aten.constant_pad_nd.default,
    aten.pad.default,
}
"""Elementwise operations that PyTorch does not tag as such, and those that count axes from the last."""
_MATRIX_PRODUCTS = {aten.mm.default, aten.bmm.default}
_AXES = {"dim", "dims", "dim0", "dim1", "dim2"}


def take_apart(exported: ExportedProgram) -> None:
    """Rewrite the graph of a decomposed program, in place, so that no first axis is a multiple of the batch.

    Raises `UnsupportedError` for an operation on a merged value that has no form behind the batch, such as a
    convolution. What moves the batch, or merges it as the faster part, is left for `canonicalise` to refuse.
    """
    graph = exported.graph
    (image,) = (node for node in graph.nodes if node.name == exported.graph_signature.user_inputs[0])
    batch = _shape(image.meta["val"])[0]
    apart: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, (Tensor, list, tuple)):
            continue
        shape = _parted(value, batch)
        with graph.inserting_before(node):
            made = _reshaped(node, shape, batch, apart) if node.target in RESHAPES else _made(node, shape, apart)
        if made is None:
            continue
        if shape == _shape(value):
            node.replace_all_uses_with(made)
        else:
            apart[node] = made
    prune(graph)


def _reshaped(node: fx.Node, shape: list[Any], batch: Any, apart: dict[fx.Node, fx.Node]) -> fx.Node | None:
    """A reshape that merges, parts or has a merged input: the order of the axes is the same, whichever are one."""
    source: Any = node.args[0]
    if source not in apart and shape == _shape(node.meta["val"]):
        return None
    source = apart.get(source, source)
    before = _shape(source.meta["val"])
    if before[:1] != [batch]:
        return None
    if shape[:1] != [batch] or not all(isinstance(size, int) for size in shape[1:]):
        raise UnsupportedError(f"{node.name} moves or merges the batch axis: {shape}{place_of(node)}")
    return source if before == shape else call(node, aten.reshape.default, source, [-1, *shape[1:]])


def _made(node: fx.Node, shape: list[Any], apart: dict[fx.Node, fx.Node]) -> fx.Node | None:
    """Any other operation on merged values, made on those that stand for them."""
    if apart.keys().isdisjoint(node.all_input_nodes):
        return None
    if node.target in IDENTITIES or (node.target is aten.slice.Tensor and is_whole(node)):
        return apart[node.all_input_nodes[0]]

    def operand(source: fx.Node) -> fx.Node:
        if source not in apart and _of_batch(source.meta["val"]):
            raise _refusal(node)
        return apart.get(source, source)

    args, kwargs = fx.node.map_arg(_behind_batch(node), operand)
    target = aten.matmul.default if node.target in _MATRIX_PRODUCTS else node.target
    try:
        made = call(node, target, *args, **kwargs)
    except Exception:  # an operation refuses in its own way
        raise _refusal(node) from None
    if _shape(made.meta["val"]) != shape:
        raise _refusal(node)
    return made


def _behind_batch(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call on merged values, for values with one more axis behind the batch."""
    target: Any = node.target
    if target in _AS_IT_IS or target in _MATRIX_PRODUCTS or torch.Tag.pointwise in target.tags:
        return node.args, node.kwargs
    args: list[Any] = list(node.args)
    if target is aten.expand.default:
        return (args[0], [-1, -1, *args[1][1:]]), node.kwargs
    rank = node.all_input_nodes[0].meta["val"].dim() + (target is aten.stack.default)
    if target is aten.permute.default and args[1][0] in (0, -rank):
        return (args[0], [0, 1, *_later(args[1][1:])]), node.kwargs
    places = [place for place, entry in enumerate(target._schema.arguments) if entry.name in _AXES]
    if not places or target is aten.tile.default:  # whose dims are numbers of copies
        raise _refusal(node)
    for place in places:
        entry = target._schema.arguments[place]
        axes = argument(node, entry.name, entry.default_value)
        listed = [axes] if isinstance(axes, int) else axes
        if not listed or any(axis in (0, -rank) for axis in listed):
            raise _refusal(node)
        if place < len(args):  # a default counts from the last
            args[place] = _later(axes)
    return tuple(args), node.kwargs


def _later(axes: Any) -> Any:
    """Axes counted from the first, one further on; those counted from the last stay."""
    return axes + (axes > 0) if isinstance(axes, int) else [_later(axis) for axis in axes]


def _parted(value: Any, batch: Any) -> list[Any]:
    """The shape of a value, `[k * B, *S]` as `[B, k, *S]`; of several values, all of them."""
    if not isinstance(value, Tensor):
        return [_parted(part, batch) for part in value or ()]
    first, *rest = _shape(value) or [1]
    times = first / batch
    return [batch, int(times), *rest] if times.is_Integer and times > 1 else _shape(value)


def _shape(value: Any) -> list[Any]:
    """The sizes of a value, free ones as expressions, which unlike a SymInt are not fixed by being compared."""
    if not isinstance(value, Tensor):
        return [_shape(part) for part in value or ()]
    return [size.node.expr if isinstance(size, torch.SymInt) else size for size in value.shape]


def _of_batch(value: Any) -> bool:
    """Whether an operand has the batch in its shape, or is a size."""
    return not isinstance(value, Tensor) or not all(isinstance(size, int) for size in _shape(value))


def _refusal(node: fx.Node) -> UnsupportedError:
    shape = next(list(source.meta["val"].shape) for source in node.all_input_nodes if _of_batch(source.meta["val"]))
    return UnsupportedError(f"{node.target} has no form for a batch merged with another axis: {shape}{place_of(node)}")
