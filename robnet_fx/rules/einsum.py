"""Contractions with constants by label or axis number; of two bounded values they are lowered to matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from robnet_fx.algebra.ops import labels
from robnet_fx.rules.affine import affine
from robnet_fx.rules.refusals import positional, rank_of
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _moves_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    if len(bounded) > 1:
        return "it contracts several values that depend on the perturbation"
    terms, out = labels(str(node.args[0]))
    operands = positional(node, 1)
    term = terms[operands.index(bounded[0])]
    if not out or term[0] != out[0] or term.count(term[0]) > 1:
        return "the batch axis does not stay first"
    return None


def _sums_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    axes = positional(node, 2)
    return "it contracts the batch axis" if any(axis % rank_of(bounded) == 0 for axis in axes) else None


def _absolute(equation: str, operands: Sequence[Tensor]) -> Tensor:
    return torch.einsum(equation, [operand.abs() for operand in operands])


def _tensordot(x: Tensor, y: Tensor, dims: Sequence[int], others: Sequence[int]) -> Tensor:
    return torch.tensordot(x, y.to(x.dtype), (list(dims), list(others)))  # autocast leaves its operands as they are


register(
    __name__,
    affine(
        "einsum",
        lambda equation, operands: torch.einsum(equation, list(operands)),
        abs_f=_absolute,
        sums=True,
        inputs=(1,),
        supports=_moves_batch,
    ),
    aten.einsum.default,
)
register(
    __name__,
    affine(
        "tensordot",
        _tensordot,
        abs_f=lambda x, y, dims, others: _tensordot(x, y.abs(), dims, others),
        sums=True,
        supports=_sums_batch,
    ),
    aten.tensordot.default,
)
