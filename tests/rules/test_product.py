"""Products of two bounded values at every corner of their box: enclosed by each rule, and touched where they can be."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.algebra.ops import matrix_product, product
from robnet_fx.rules import rule_for
from tests.soundness import draws

SHAPES = {product: ((2, 2), (1, 2)), matrix_product: ((1, 2, 2), (1, 2, 1))}
OPS = pytest.mark.parametrize("op", list(SHAPES))


def box(op, seed: int = 1) -> tuple[Interval, Interval]:
    """Two boxes `[20, *S]` with numbers of either sign inside or on both sides; the last one is all positive."""
    r = draws(seed)
    ends = [(r(20, *shape), r(20, *shape).abs()) for shape in SHAPES[op]]
    for low, _ in ends:
        low[-1] = low[-1].abs()
    return tuple(Interval(low, low + width) for low, width in ends)


def corners(x: Interval, y: Interval) -> tuple[Tensor, Tensor]:
    """`[N, 20, *S]`: every corner of the two boxes."""
    sizes = [end.lower[0].numel() for end in (x, y)]
    high = torch.tensor(list(itertools.product((False, True), repeat=sum(sizes)))).split(sizes, 1)
    return tuple(
        torch.where(up.reshape(-1, 1, *end.lower.shape[1:]), end.upper, end.lower)
        for up, end in zip(high, (x, y), strict=True)
    )


@OPS
def test_the_interval_is_that_of_the_corners(op):
    x, y = box(op)
    values = op(*corners(x, y))
    lower, upper = rule_for(op).ibp(x, y)
    if op is product:
        torch.testing.assert_close(lower, values.amin(0))
        torch.testing.assert_close(upper, values.amax(0))
        return
    # Centre and radius: as far from the centres' product as a corner is, were all signs in favour.
    assert bool((lower <= values.amin(0) + 1e-12).all() and (values.amax(0) <= upper + 1e-12).all())
    torch.testing.assert_close((lower + upper) / 2, op(*((end.lower + end.upper) / 2 for end in (x, y))))
    torch.testing.assert_close(upper[-1], values.amax(0)[-1])


@OPS
def test_ssip_touches_the_product_from_both_sides(op):
    """Each entry its own coefficient, so that every corner is one of t."""
    x, y = box(op)
    sizes = [end.lower[0].numel() for end in (x, y)]
    units = torch.eye(sum(sizes), dtype=torch.float64).split(sizes, 1)
    values = [
        Symbolic(
            (end.upper - end.lower).unsqueeze(1) / 2 * unit.reshape(-1, *end.lower.shape[1:]),
            (end.lower + end.upper) / 2,
            torch.zeros_like(end.lower),
        )
        for end, unit in zip((x, y), units, strict=True)
    ]
    got = rule_for(op).ssip(*values, pre=(x, y))
    t = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=sum(sizes))), dtype=torch.float64)
    gap = op(*corners(x, y)) - torch.einsum("nd,bd...->nb...", t, got.coef) - got.const
    torch.testing.assert_close(gap.amax(0), got.slack)
    torch.testing.assert_close(gap.amin(0), -got.slack)


@OPS
def test_slack_is_carried_by_the_other_factor(op):
    """The plane moves by |y_c| e where x moves by e, and by |x_c| e where y does."""
    r = draws(2)
    x, y = box(op)
    parts = [(r(20, 2, *s), r(20, *s), r(20, *s).abs()) for s in SHAPES[op]]
    slack = rule_for(op).ssip(*(Symbolic(*part) for part in parts), pre=(x, y)).slack
    none = rule_for(op).ssip(*(Symbolic(coef, const, 0 * e) for coef, const, e in parts), pre=(x, y)).slack
    xc, yc = (((end.lower + end.upper) / 2).abs() for end in (x, y))
    torch.testing.assert_close(slack - none, op(xc, parts[1][2]) + op(parts[0][2], yc))


@OPS
def test_rsip_touches_the_rows_from_above(op):
    x, y = box(op)
    r = draws(3)
    shape = op(x.lower, y.lower).shape[1:]
    form = Form(r(20, 4, *shape), r(20, 4))
    left, right = rule_for(op).rsip(form, *(InputShape(s) for s in SHAPES[op]), pre=(x, y))

    def along(rows: Tensor, value: Tensor) -> Tensor:
        return (rows * value.unsqueeze(2)).flatten(3).sum(3)

    xs, ys = corners(x, y)
    gap = along(left.coef, xs) + left.const + along(right.coef, ys) + right.const
    gap = gap - along(form.coef, op(xs, ys)) - form.const
    torch.testing.assert_close(gap.amin(0), torch.zeros(20, 4, dtype=torch.float64))
    assert float(gap.amin()) > -1e-12
