"""Operations that only move values: reshape, permute, slice, concatenate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from robnet_fx.algebra.domains import InputShape
from robnet_fx.algebra.ops import join
from robnet_fx.rules.affine import affine
from robnet_fx.rules.refusals import keeps_batch
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _permute_transpose(g: Tensor, x: InputShape, dims: Sequence[int]) -> Tensor:
    order = [d % len(dims) for d in dims]
    return g.permute([order.index(d) for d in range(len(order))])


def _permute_refusal(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    dims = node.args[1]
    first = dims[0] if isinstance(dims, (list, tuple)) else 0
    return None if first == 0 else "it moves the batch axis"


register(
    __name__,
    affine("reshape", torch.reshape, transpose=lambda g, x, shape: g.reshape(g.shape[0], *x.dims)),
    aten.reshape.default,
)
register(
    __name__,
    affine("permute", torch.permute, transpose=_permute_transpose, supports=_permute_refusal),
    aten.permute.default,
)
register(
    __name__,
    affine(
        "transpose",
        torch.transpose,
        transpose=lambda g, x, a, b: g.transpose(a, b),
        supports=keeps_batch(1, 2),
    ),
    aten.transpose.int,
)
register(__name__, affine("slice", aten.slice.Tensor, supports=keeps_batch(1)), aten.slice.Tensor)
register(__name__, affine("select", torch.select, supports=keeps_batch(1)), aten.select.int)


def _cat_refusal(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    rank = len(bounded[0].meta["shape"]) + 1
    axis = node.args[1] if len(node.args) > 1 else 0
    return "it joins along the batch axis" if isinstance(axis, int) and axis % rank == 0 else None


def _all_bounded(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    tensors = node.args[0]
    assert isinstance(tensors, (list, tuple))
    if any(tensor not in bounded for tensor in tensors):
        return "it joins bounded values with constants"
    return _cat_refusal(node, bounded)


register(
    __name__,
    affine("cat", lambda tensors, dim=0: torch.cat(list(tensors), dim), joint=True, supports=_all_bounded),
    aten.cat.default,
)
register(__name__, affine("join", join, joint=True, offset=(0,), supports=_cat_refusal), join)
