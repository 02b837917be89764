"""Contractions of values whose batch is moved or merged: products of matrices, attention, and sums by label."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from robnet_fx.algebra.ops import labels
from robnet_fx.frontend.batch_axis.operations import Made, on_stand_ins
from robnet_fx.frontend.batch_axis.stand_in import Apart, Place, call

aten = torch.ops.aten


@on_stand_ins(aten.matmul.default, aten.mm.default, aten.bmm.default)
def _matmul(work: Apart, node: fx.Node) -> Made:
    """Batched over the axes in front; of two matrices, one of which has the batch as rows or columns, by label."""
    args: Any = node.args
    x, y = args
    ranks = [operand.meta["val"].dim() for operand in args]
    if y not in work.known and ranks[1] <= 2 and work.known[x][1].axis < ranks[0] - 1:
        return call(node, aten.matmul.default, work.known[x][0], y), work.known[x][1]
    if ranks == [2, 2]:
        return _contracted(work, node, ["ij", "jk"], "ik", args)
    rank, common = node.meta["val"].dim(), work.common(node)
    place = common._replace(axis=rank + common.axis)
    if min(ranks) < 2 or place.axis >= rank - 2:
        raise work.refusal(node)
    return call(node, aten.matmul.default, *(work.aligned(node, n, rank, place) for n in args)), place


@on_stand_ins(aten.addmm.default)
def _addmm(work: Apart, node: fx.Node) -> Made:
    args: Any = node.args
    bias, x, weight = args
    if work.varying(node) != [x] or node.kwargs or work.known[x][1].axis != 0:
        raise work.refusal(node)
    stand, place = work.known[x]
    return call(node, aten.add.Tensor, call(node, aten.matmul.default, stand, weight), bias), place


@on_stand_ins(aten.scaled_dot_product_attention.default)
def _attention(work: Apart, node: fx.Node) -> Made:
    rank, common = node.meta["val"].dim(), work.common(node)
    place = common._replace(axis=rank + common.axis)
    if place.axis >= rank - 2:
        raise work.refusal(node)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: work.aligned(node, n, rank, place))
    return call(node, node.target, *args, **kwargs), place


@on_stand_ins(aten.einsum.default)
def _einsum(work: Apart, node: fx.Node) -> Made:
    terms, out = labels(str(node.args[0]))
    operands: Any = node.args[1]
    dots = max((operand.meta["val"].dim() - len(term) + 1 for operand, term in zip(operands, terms, strict=True)
                if "." in term), default=0)  # fmt: skip
    fresh = "".join(itertools.islice((c for c in string.ascii_letters if c not in str(node.args[0])), dots))
    for i, (operand, term) in enumerate(zip(operands, terms, strict=True)):
        covered = operand.meta["val"].dim() - len(term) + 1
        terms[i] = term.replace(".", fresh[dots - covered :] if covered else "")
    return _contracted(work, node, terms, out.replace(".", fresh), operands)


@on_stand_ins(aten.tensordot.default)
def _tensordot(work: Apart, node: fx.Node) -> Made:
    args: Any = node.args
    operands, axes = args[:2], args[2:4]
    names = iter(string.ascii_letters)
    terms = [[next(names) for _ in range(operand.meta["val"].dim())] for operand in operands]
    for first, second in zip(*axes, strict=True):
        terms[1][second] = terms[0][first]
    out = [label for term, other in (terms, terms[::-1]) for label in term if label not in other]
    return _contracted(work, node, ["".join(term) for term in terms], "".join(out), operands)


def _contracted(work: Apart, node: fx.Node, terms: Sequence[str], out: str, operands: Sequence[Any]) -> Made:
    """A contraction by label: that of the batch goes first, with one for each size it is merged with."""
    pairs = list(zip(operands, terms, strict=True))
    found = {(term[work.known[n][1].axis], work.known[n][1][1:]) for n, term in pairs if n in work.known}
    ((label, (slow, fast)),) = found if len(found) == 1 else ((("", (1, 1))),)
    if out.count(label or ".") != 1 or any(label in term for n, term in pairs if n not in work.known):
        raise work.refusal(node)
    extra = "".join(
        itertools.islice((c for c in string.ascii_letters if not any(c in t for t in terms)), (slow > 1) + (fast > 1))
    )

    def in_front(term: str) -> str:
        before, behind = term.split(label)
        return label + before + extra + behind

    equation = ",".join(in_front(term) if n in work.known else term for n, term in pairs) + "->" + in_front(out)
    stands = [work.known[n][0] if n in work.known else n for n in operands]
    return call(node, aten.einsum.default, equation, stands), Place(out.index(label), slow, fast)
