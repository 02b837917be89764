"""Lines of slopes from outside: whatever the slopes, they hold, and no other lines of these slopes are closer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval
from robnet_fx.algebra.ops import within
from robnet_fx.rules import Relaxation, Slopes, elementwise, rule_for, table
from robnet_fx.rules.relaxation import every_unit
from tests.rules.cases import CURVED, ELEMENTWISE, STEPS, Case, name_of
from tests.rules.enclosures import admit, arguments, function, interval
from tests.soundness import draws

aten = torch.ops.aten
CASES = [*ELEMENTWISE, *CURVED, *STEPS]
WITHIN = Case("within", within, ((2, 3),), lambda r, x: (x, -0.7, 1.2), domain=(-0.7, 1.2))


def lines_of(case: Case, pre: Interval, slopes: Slopes | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(slope, offset) of the lower and of the upper line; `pre` is `[B, 1]`."""
    args, kwargs = arguments(case)
    found = []
    for sign in (-1.0, 1.0):
        form = Form(torch.full_like(pre.lower, sign).unsqueeze(1), torch.zeros_like(pre.lower))
        got = rule_for(case.target).rsip(form, InputShape((1,)), *args, pre=pre, slopes=slopes, **kwargs)
        found += [sign * got.coef.squeeze(1), sign * got.const]
    return found[0], found[1], found[2], found[3]


def intervals(case: Case) -> Interval:
    """Random ones, ones that end at 0, points, tiny and huge ones, where the operation is defined."""
    r = draws(3)
    a, b, w = 2 * r(60), 2 * r(60), r(10).abs()
    pairs = [torch.stack([a, b], 1), torch.stack([0 * w, w], 1), torch.stack([-w, 0 * w], 1), torch.stack([w, w], 1)]
    sizes = torch.tensor([1e-9, 1e-3, 10.0, 100.0, 1e4], dtype=torch.float64)
    pairs += [torch.stack([-sizes, sizes], 1), torch.stack([a[:5], a[:5] + sizes[:1]], 1)]
    return interval(admit(case, torch.cat(pairs)))


def grid(case: Case, pre: Interval) -> Tensor:
    """`[B, N]`: points of each interval, with those where our functions bend or jump, and their neighbours."""
    steps = torch.linspace(0, 1, 2001, dtype=torch.float64)
    numbers = [value for value in arguments(case)[0] if isinstance(value, float)]
    special = torch.tensor([*numbers, *(k / 2 for k in range(-24, 25)), 1e-9, -1e-9], dtype=torch.float64)
    special = torch.cat([special, special + 1e-9, special - 1e-9]).expand(len(pre.lower), -1)
    inside = torch.minimum(torch.maximum(special, pre.lower), pre.upper)
    return torch.cat([(pre.lower + (pre.upper - pre.lower) * steps).clamp(pre.lower, pre.upper), *pre, inside], 1)


def check(case: Case, pre: Interval, slopes: Slopes) -> None:
    x = grid(case, pre)
    y = function(case, x)
    lower, below, upper, above = lines_of(case, pre, slopes)
    torch.testing.assert_close(torch.cat([lower, upper]), torch.cat([s.expand_as(lower) for s in slopes]))
    size = 1 + torch.maximum(-pre.lower, pre.upper)
    scale = size * (1 + torch.maximum(lower.abs(), upper.abs())) + y.abs().amax(1, keepdim=True)
    assert bool((y - lower * x >= below - 1e-12 * scale).all())
    assert bool((y - upper * x <= above + 1e-12 * scale).all())


TORN = ("softplus-broken", "softplus-negative")  # their jump is bounded apart from the curve
RANDOM = [-3.0, -1.0, -0.3, 0.0, 0.2, 0.5, 0.9, 1.0, 1.3, 7.0]


@pytest.mark.parametrize("case", [*CASES, WITHIN], ids=name_of)
def test_lines_of_any_slopes_enclose(case: Case):
    pre = intervals(case)
    r = draws(5)
    for lower, upper in [*zip(RANDOM, reversed(RANDOM), strict=True), (1e4, -1e4), (1e-9, 1 - 1e-9)]:
        ones = torch.ones_like(pre.lower)
        check(case, pre, Slopes(lower * ones, upper * ones))
    for _ in range(5):
        check(case, pre, Slopes(2 * r(*pre.lower.shape), 2 * r(*pre.lower.shape)))
    check(case, pre, Slopes(r(1, 1), r(1, 1)))  # one for the whole batch


numbers = st.floats(-50, 50, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*CASES, WITHIN]), numbers, numbers, numbers, numbers)
def test_lines_of_any_slopes_enclose_any_interval(case: Case, a: float, b: float, lower: float, upper: float):
    pre = interval(admit(case, torch.tensor([[a, b]], dtype=torch.float64)))
    check(case, pre, Slopes(*(torch.tensor([[s]], dtype=torch.float64) for s in (lower, upper))))


@pytest.mark.parametrize("case", [case for case in [*CASES, WITHIN] if case.name not in TORN], ids=name_of)
def test_no_lines_of_these_slopes_are_closer(case: Case):
    """Each touches the function: the grid comes as near to it as its spacing allows."""
    pre = intervals(case)
    keep = (pre.upper - pre.lower).flatten() < (6 if case.name in ("sin", "cos") else 30)  # less than a period
    pre = Interval(*(end[keep] for end in pre))
    x = grid(case, pre)
    y = function(case, x)
    spacing = (pre.upper - pre.lower) / 2000
    steep = ((y.diff() / x.diff().clamp(min=1e-12)).abs() * (x.diff() > 1e-6)).amax(1, keepdim=True)
    if case in STEPS:
        steep = torch.zeros_like(steep)  # both sides of a jump are in the grid
    for slope in RANDOM:
        slopes = Slopes(*[torch.full_like(pre.lower, slope)] * 2)
        _, below, _, above = lines_of(case, pre, slopes)
        gaps = y - slope * x
        near = 1e-7 * (1 + y.abs().amax(1, keepdim=True)) + 2 * spacing * (steep + abs(slope)) * (case not in STEPS)
        assert bool((gaps.amin(1, keepdim=True) - below <= near).all())
        assert bool((above - gaps.amax(1, keepdim=True) <= near).all())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_slopes_of_the_default_lines_give_lines_as_close(case: Case):
    pre = intervals(case)
    lower, below, upper, above = lines_of(case, pre, None)
    _, nearer_below, _, nearer_above = lines_of(case, pre, Slopes(lower, upper))
    scale = 1 + torch.maximum(-pre.lower, pre.upper) * (1 + torch.maximum(lower.abs(), upper.abs()))
    noise = 1e-12 * (scale + torch.maximum(below.abs(), above.abs()))
    assert bool((nearer_below >= below - noise).all() and (nearer_above <= above + noise).all())


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e6, -1e-6), st.floats(1e-6, 1e6), st.floats(0, 1))
def test_a_relu_over_its_kink_has_lower_lines_through_0(low: float, high: float, slope: float):
    case, pre = ELEMENTWISE[0], interval([(low, high)])
    _, below, _, _ = lines_of(case, pre, Slopes(*[torch.tensor([[slope]], dtype=torch.float64)] * 2))
    assert case.target is aten.relu.default and float(below) == 0


def test_every_elementwise_rule_has_a_case_here():
    covered = {case.target for case in (*CASES, WITHIN)}
    missing = {target for target, rule in table().items() if rule.relaxation and target not in covered}
    assert not missing
    assert all(rule.relaxation.offsets for rule in table().values() if rule.relaxation)


@pytest.mark.parametrize("case", [*CASES, WITHIN], ids=name_of)
@pytest.mark.parametrize("pair", [(math.nan, math.nan), (math.nan, 0.5), (0.5, math.nan)])
def test_nan_stays_nan(case: Case, pair: tuple[float, float]):
    pre = interval([pair])
    _, below, _, above = lines_of(case, pre, Slopes(*[torch.full_like(pre.lower, 0.3)] * 2))
    assert bool(below.isnan().all() and above.isnan().all())


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_where_a_curve_is_not_finite_the_lines_still_hold(case: Case):
    low, high = max(case.domain[0], -1e300), min(case.domain[1], 1e300)
    pre = interval([(low, high)])
    slopes = Slopes(*(torch.full_like(pre.lower, slope) for slope in (0.5, -0.5)))
    lower, below, upper, above = lines_of(case, pre, slopes)
    x = torch.linspace(max(low, -5.0), min(high, 5.0), 101, dtype=torch.float64)[1:-1]
    y = function(case, x)
    y = y[y.isfinite()]
    x = x[-len(y) :] if case.name.startswith("log") else x[: len(y)]
    assert bool(below.isnan() | (lower * x + below <= y + 1e-9).all())
    assert bool(above.isnan() | (upper * x + above >= y - 1e-9).all())


def test_slopes_have_gradients_also_one_for_the_whole_batch():
    pre = interval([(-1.0, 2.0), (-3.0, 0.5), (0.1, 0.2)])
    case = next(case for case in CURVED if case.name == "exp")
    slopes = Slopes(*(torch.tensor([[s]], dtype=torch.float64, requires_grad=True) for s in (0.3, 0.6)))

    def at(lower: Tensor, upper: Tensor) -> tuple[Any, ...]:
        return lines_of(case, pre, Slopes(lower, upper))

    assert torch.autograd.gradcheck(at, tuple(slopes))


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_without_offsets_of_its_own_a_relaxation_tilts_its_band(case: Case):
    """As an operation from outside may have it: lines hold, and those of the band's own slope are its edges."""
    args, kwargs = arguments(case)
    bare: Relaxation = replace(rule_for(case.target).relaxation, offsets=None)
    pre = intervals(case)
    x = grid(case, pre)
    y = function(case, x)
    slope, offset, error = bare.band(pre, *args, **kwargs)
    own = bare.enclosure(pre, *args, slopes=Slopes(slope, slope), **kwargs)
    assert torch.equal(own.lower_offset, offset - error) and torch.equal(own.upper_offset, offset + error)
    for lower, upper in zip(RANDOM, reversed(RANDOM), strict=True):
        slopes = Slopes(*(torch.full_like(pre.lower, s) for s in (lower, upper)))
        made = bare.enclosure(pre, *args, slopes=slopes, **kwargs)
        noise = 1e-12 * (1 + torch.maximum(-pre.lower, pre.upper)) * 20
        assert bool((lower * x + made.lower_offset <= y + noise).all())
        assert bool((upper * x + made.upper_offset >= y - noise).all())
    endless = interval([(-math.inf, math.inf)])
    slope = bare.band(endless, *args, **kwargs).slope
    assert not bare.enclosure(endless, *args, slopes=Slopes(slope, slope), **kwargs).lower_slope.isinf().any()


def test_an_elementwise_rule_shows_its_relaxation():
    relu = rule_for(aten.relu.default)
    pre = interval([(-1.0, 2.0)])
    assert relu.relaxation.band(pre).slope.item() == pytest.approx(2 / 3)
    assert relu.relaxation.enclosure(pre).lower_slope.item() == 1
    assert rule_for(aten.softmax.int).relaxation is None and not rule_for(aten.softmax.int).affine
    assert rule_for(aten.softmax.int).unstable(pre).tolist() == every_unit(pre).tolist()
    made = elementwise("again", relu.relaxation)
    assert made.relaxation is relu.relaxation and made.kind == "elementwise"


@pytest.mark.parametrize("target", [aten.sign.default, aten.floor.default, aten.ceil.default, aten.round.default])
def test_the_lines_of_steps_allow_for_rounding(target: Any):
    """In float32, far from 0, against float64: the ends, both sides of the first and last jumps, and points between."""
    r = draws(11)
    lower = (r(400) * 10 ** (4 * r(400).abs())).float()
    width = (r(400).abs() * 10 ** (4 * r(400))).float()
    upper = torch.where((torch.arange(400) % 2 == 0) & (lower < 0), r(400).float(), lower + width)  # also far below 0
    pre = Interval(torch.minimum(lower, upper), upper)
    slope = (r(400) * 10 ** (2 * r(400))).float()
    offsets = rule_for(target).relaxation.offsets(pre, slope)
    f = {aten.sign.default: torch.sign, aten.floor.default: torch.floor}.get(target) or (
        torch.ceil if target is aten.ceil.default else torch.round
    )
    first, last = (end.double() for end in pre)
    steps = torch.arange(-9, 10).double().unsqueeze(1) / 2
    halves = torch.cat([torch.round(2 * end) / 2 + steps for end in (first, last)])  # where anything jumps
    between = first + torch.linspace(0, 1, 50)[:, None] * (last - first)
    beside = torch.cat([halves, halves - 1e-9, halves + 1e-9, between])
    points = torch.minimum(torch.maximum(beside, first), last)
    values = f(points) - slope.double() * points
    assert bool((offsets.lower.double() <= values).all() and (values <= offsets.upper.double()).all())
