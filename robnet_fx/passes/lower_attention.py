"""Attention products and masked softmax: what a mask leaves out gets a logit that no exponential sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.errors import UnsupportedError
from robnet_fx.graphs import argument, describe
from robnet_fx.passes.lower import Builder, lowers

aten = torch.ops.aten

_LEFT_OUT = -1e37
"""For a logit of -inf, which no bound survives. Beside any other its exponential is 0, and float32 can add to it."""


_MASKED: dict[Any, tuple[int, ...]] = {
    aten.add.Tensor: (0, 1),
    aten.masked_fill.Scalar: (2,),
    aten.masked_fill.Tensor: (2,),
    aten.where.self: (1, 2),
    aten.where.ScalarSelf: (1,),
    aten.where.ScalarOther: (2,),
}
"""The operations that mask, and which of their arguments may be the constant that does."""


@lowers(aten.scaled_dot_product_attention.default)
def _attention(build: Builder, node: fx.Node) -> fx.Node | None:
    """`softmax(scale q k^T + mask) v`"""
    q, k, v = node.args[:3]
    mask, scale = argument(node, "attn_mask", None), argument(node, "scale", None)
    if argument(node, "dropout_p", 0.0) or argument(node, "is_causal", False):
        return None
    if argument(node, "enable_gqa", False):
        k, v = (_for_every_head(build, q, part) for part in (k, v))
    size = q.meta["val"].shape[-1]  # type: ignore[union-attr]
    scores = build.matmul(q, build.call(aten.transpose.int, k, -2, -1))
    scores = build.call(aten.mul.Tensor, scores, size**-0.5 if scale is None else scale)
    if mask is not None and not build.depends(mask) and not _leaves_some(build.value(mask)):
        raise UnsupportedError(
            "attention whose mask leaves out all of a row has no bounds: its softmax has none to choose from\n"
            f"{describe(node)}\n  remedy  leave such rows out of the queries, or let them see one key"
        )
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        scores = build.call(aten.where.ScalarSelf, build.call(aten.logical_not.default, mask), _LEFT_OUT, scores)
    elif mask is not None:
        scores = _finite(build, build.call(aten.add.Tensor, scores, mask))
    return build.matmul(build.call(aten.softmax.int, scores, -1), v)


def _for_every_head(build: Builder, q: Any, part: Any) -> Any:
    """Keys or values of groups of heads, repeated for each head of a group."""
    heads, groups = (n.meta["val"].shape[-3] for n in (q, part))
    axis = part.meta["val"].dim() - 3
    return part if heads == groups else build.call(aten.repeat_interleave.self_int, part, heads // groups, axis)


def _leaves_some(mask: Tensor) -> bool:
    """Whether no row is left out as a whole."""
    kept = mask if mask.dtype == torch.bool else mask > -math.inf
    return bool(kept.any(-1).all())


@lowers(aten.softmax.int, aten._softmax.default, aten.logsumexp.default)
def _of_masked(build: Builder, node: fx.Node) -> fx.Node | None:
    x: Any = node.args[0]
    finite = _finite(build, x)
    return None if finite is x else build.call(node.target, finite, *node.args[1:])


def _finite(build: Builder, x: fx.Node) -> fx.Node:
    """Logits in which a constant mask puts no -inf: itself where none does, or others are all but left out too."""
    values = [build.value(mask) for mask in _masks(build, x)]
    missing = any(bool((value == -math.inf).any()) for value in values)
    lowest = any(bool(((value < 1e-3 * _LEFT_OUT) & (value > -math.inf)).any()) for value in values)
    return _clamped(build, x) if missing and not lowest else x


def _masks(build: Builder, x: fx.Node) -> Iterator[Any]:
    """The constants that mask, in sums and choices up to the first other operation."""
    places = _MASKED.get(x.target, ()) if not x.kwargs else ()
    for arg in x.args if places or x.target is aten.reshape.default else ():
        if isinstance(arg, fx.Node) and build.depends(arg):
            yield from _masks(build, arg)
    yield from (x.args[place] for place in places if not build.depends(x.args[place]))


def _clamped(build: Builder, x: fx.Node) -> fx.Node:
    """The same with the masks' numbers no lower than that of a logit that is left out."""
    masks = list(_masks(build, x))

    def placed(arg: Any) -> Any:
        if isinstance(arg, fx.Node) and build.depends(arg):
            return _clamped(build, arg)
        if arg not in masks:
            return arg
        if isinstance(arg, fx.Node):
            return build.call(aten.clamp.default, arg, _LEFT_OUT)
        return max(arg, _LEFT_OUT)

    return build.call(x.target, *map(placed, x.args)) if masks else x
