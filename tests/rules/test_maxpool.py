"""Max pooling against loops over windows: which input is followed, what the others add, what RSIP makes of it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from tests.rules.cases import POOLING, Case, name_of
from tests.soundness import draws

B, D, K = 2, 3, 4


def options(case: Case) -> tuple[Any, ...]:
    return case.call(draws(0), None)[0][1:]


def windows(case: Case) -> list[list[int]]:
    """The flat input positions each flat output position (without channels) pools over, by running the operation."""
    (shape,) = case.shapes
    spatial = shape[1:]
    positions = torch.arange(1, 1 + int(torch.tensor(spatial).prod()), dtype=torch.float64)
    found: list[list[int]] = []
    for p in range(len(positions)):
        alone = torch.full_like(positions, -1.0)
        alone[p] = 1.0
        seen = case.target(alone.reshape(1, 1, *spatial), *options(case)).flatten() == 1
        found = found or [[] for _ in range(len(seen))]
        for out in seen.nonzero().flatten().tolist():
            found[out].append(p)
    return found


def inputs(case: Case, seed: int) -> tuple[Symbolic, Interval]:
    """A symbolic value, and a `pre` for it: its own interval cut at some ends, and in places far above the rest."""
    r = draws(seed)
    (shape,) = case.shapes
    coef, const, slack = r(B, D, *shape) / 3, r(B, *shape), r(B, *shape).abs() / 4
    const = const + 4 * (r(B, *shape) > 1)
    reach = coef.abs().sum(1) + slack
    cut = r(B, *shape).abs().clamp(max=1) / 2
    return Symbolic(coef, const, slack), Interval(const - reach * (1 - cut), const + reach * (1 - cut / 2))


@pytest.mark.parametrize("case", POOLING, ids=name_of)
def test_ibp_is_the_maximum_of_the_ends(case: Case):
    (shape,) = case.shapes
    r = draws(1)
    a, b = r(B, *shape), r(B, *shape)
    pre = Interval(torch.minimum(a, b), torch.maximum(a, b))
    got = rule_for(case.target).ibp(pre, *options(case))
    for side in (0, 1):
        ends = pre[side].flatten(2)
        expected = torch.stack([ends[:, :, window].amax(2) for window in windows(case)], 2)
        torch.testing.assert_close(got[side].flatten(2), expected)


@pytest.mark.parametrize("case", POOLING, ids=name_of)
@pytest.mark.parametrize("seed", [1, 2])
def test_ssip_follows_the_highest_lower_bound(case: Case, seed: int):
    x, pre = inputs(case, seed)
    got = rule_for(case.target).ssip(x, *options(case), pre=pre)
    lower, upper = pre.lower.flatten(2), pre.upper.flatten(2)
    coef, const, slack = x.coef.flatten(3), x.const.flatten(2), x.slack.flatten(2)
    channels = range(coef.shape[2])
    for (b, c), (out, window) in itertools.product(itertools.product(range(B), channels), enumerate(windows(case))):
        j = max(window, key=lambda i: float(lower[b, c, i]))
        rivals = [i for i in window if i != j]
        gap = torch.zeros((), dtype=torch.float64)
        for i in rivals:
            apart = (coef[b, :, c, i] - coef[b, :, c, j]).abs().sum() + slack[b, c, i] + slack[b, c, j]
            gap = torch.maximum(gap, const[b, c, i] - const[b, c, j] + apart)
        if rivals:
            gap = torch.minimum(gap, (upper[b, c, rivals].amax() - lower[b, c, j]).clamp(min=0))
        torch.testing.assert_close(got.coef.flatten(3)[b, :, c, out], coef[b, :, c, j])
        torch.testing.assert_close(got.const.flatten(2)[b, c, out], const[b, c, j] + gap / 2)
        torch.testing.assert_close(got.slack.flatten(2)[b, c, out], slack[b, c, j] + gap / 2)


@pytest.mark.parametrize("case", POOLING, ids=name_of)
@pytest.mark.parametrize("seed", [1, 2])
def test_rsip_takes_the_input_from_below_and_the_chord_from_above(case: Case, seed: int):
    _, pre = inputs(case, seed)
    shape = pre.lower.shape[1:]
    outs = case.target(pre.lower, *options(case)).shape[1:]
    r = draws(9)
    form = Form(r(B, K, *outs), r(B, K))
    got = rule_for(case.target).rsip(form, InputShape(tuple(shape)), *options(case), pre=pre)
    lower, upper = pre.lower.flatten(2), pre.upper.flatten(2)
    rows = form.coef.flatten(3)
    coef = torch.zeros(B, K, *lower.shape[1:], dtype=torch.float64)
    const = form.const.clone()
    for b, c in itertools.product(range(B), range(lower.shape[1])):
        for out, window in enumerate(windows(case)):
            j = max(window, key=lambda i: float(lower[b, c, i]))
            low, high = lower[b, c, j], upper[b, c, j]
            others = [upper[b, c, i] for i in window if i != j]
            highest = max(others) if others else low
            if highest <= low:
                slope, offset = 1.0, 0.0
            else:
                slope = (max(high, highest) - highest) / (high - low)
                offset = highest - slope * low
            for k in range(K):
                row = rows[b, k, c, out]
                coef[b, k, c, j] += row * (slope if row > 0 else 1.0)
                const[b, k] += row * (offset if row > 0 else 0.0)
    torch.testing.assert_close(got.coef.flatten(3), coef)
    torch.testing.assert_close(got.const, const)


def test_points_need_no_chord():
    """l = u: the highest input is known, the others decide; no division by the width 0, and finite gradients."""
    lower = torch.tensor([[[1.0, 2.0, 2.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([[[1.0, 2.0, 3.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    form = Form(
        torch.tensor([[[[1.0, -1.0]]], [[[1.0, -1.0]]]], dtype=torch.float64).transpose(0, 1)[:, :1], torch.zeros(1, 1)
    )
    rule = rule_for(torch.ops.aten.max_pool1d.default)
    got = rule.rsip(form, InputShape((1, 4)), [2], pre=Interval(lower, upper))
    assert got.coef.flatten().tolist() == [0.0, 1.0, -1.0, 0.0]
    x = Symbolic(torch.zeros(1, 2, 1, 4).double(), (lower + upper) / 2, (upper - lower) / 2)
    ssip = rule.ssip(x, [2], pre=Interval(lower, upper))
    total = got.coef.sum() + got.const.sum() + sum(part.sum() for part in ssip)
    for gradient in torch.autograd.grad(total, (lower, upper)):
        assert bool(gradient.isfinite().all())


def test_a_point_among_rivals_gives_a_flat_line():
    """The followed input cannot move but a rival reaches above it: from above only the rival counts."""
    pre = Interval(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64), torch.tensor([[[1.0, 2.0]]], dtype=torch.float64))
    for sign, expected in ((1.0, 2.0), (-1.0, -1.0)):
        form = Form(torch.full((1, 1, 1, 1), sign, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
        got = rule_for(torch.ops.aten.max_pool1d.default).rsip(form, InputShape((1, 2)), [2], pre=pre)
        assert float(got.coef[0, 0, 0, 0] * 1.0 + got.const) == expected
        assert float(got.coef[0, 0, 0, 1]) == 0


@pytest.mark.parametrize(
    ("lower", "upper"),
    [([0.0, -1.0], [math.nan, 1.0]), ([math.nan, 0.0], [math.nan, 1.0]), ([0.0, -1.0], [1.0, math.nan])],
)
def test_nan_stays_nan(lower: list[float], upper: list[float]):
    pre = Interval(torch.tensor([[lower]]), torch.tensor([[upper]]))
    got = rule_for(torch.ops.aten.max_pool1d.default).rsip(
        Form(torch.ones(1, 1, 1, 1), torch.zeros(1, 1)), InputShape((1, 2)), [2], pre=pre
    )
    assert bool(got.const.isnan().all())


def test_a_width_that_overflows():
    most = torch.finfo(torch.float32).max
    pre = Interval(torch.tensor([[[-most, -most]]]), torch.tensor([[[most, most / 2]]]))
    got = rule_for(torch.ops.aten.max_pool1d.default).rsip(
        Form(torch.ones(1, 1, 1, 1), torch.zeros(1, 1)), InputShape((1, 2)), [2], pre=pre
    )
    for first in (-most, 0.0, most):
        upper = float(got.coef[0, 0, 0, 0]) * first + float(got.const)
        assert upper >= max(first, most / 2) * (1 - 1e-6)
