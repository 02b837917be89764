"""Contractions of two bounded values by label, written as one matrix product between permutations."""

from __future__ import annotations

import math

import torch
from torch import fx

from robnet_fx.algebra.ops import labels, matrix_product
from robnet_fx.graphs import shape_of
from robnet_fx.passes.lower import Builder, lowers

aten = torch.ops.aten


@lowers(aten.einsum.default)
def _einsum(build: Builder, node: fx.Node) -> fx.Node | None:
    terms, out = labels(str(node.args[0]))
    operands = node.args[1]
    assert isinstance(operands, (list, tuple))
    if len(operands) != 2 or not all(build.depends(x) for x in operands) or not _plain(terms, out):
        return None
    x, y = operands
    left, right = terms
    sizes = dict(zip(left[1:] + right[1:], (*shape_of(x), *shape_of(y)), strict=True)) | {out[0]: -1}  # type: ignore[arg-type]
    if any(sizes[label] != size for term, value in zip(terms, operands, strict=True)
           for label, size in zip(term[1:], shape_of(value), strict=True)):  # fmt: skip  # type: ignore[arg-type]
        return None  # an axis of size 1 that is repeated
    both = [label for label in out if label in left and label in right]
    inner = [label for label in left if label in right and label not in out]
    rows, columns = ([label for label in out if label in term and label not in both] for term in terms)

    def size(group: list[str]) -> int:
        return math.prod(sizes[label] for label in group)

    def arranged(value: fx.Node, term: str, first: list[str], second: list[str]) -> fx.Node:
        order = [term.index(label) for label in (*both, *first, *second)]
        shape = [*(sizes[label] for label in both), size(first), size(second)]
        return build.call(aten.reshape.default, build.call(aten.permute.default, value, order), shape)

    product = build.call(matrix_product, arranged(x, left, rows, inner), arranged(y, right, inner, columns))  # type: ignore[arg-type]
    made = [*both, *rows, *columns]
    parted = build.call(aten.reshape.default, product, [sizes[label] for label in made])
    return build.call(aten.permute.default, parted, [made.index(label) for label in out])


def _plain(terms: list[str], out: str) -> bool:
    """Batch first everywhere, no ellipsis, no label twice in a term, and none of one operand alone is summed."""
    left, right = terms
    return (
        "." not in out + left + right
        and len({left[:1], right[:1], out[:1]}) == 1
        and all(len(set(term)) == len(term) for term in (left, right, out))
        and set(left) ^ set(right) <= set(out)
    )
