"""Non-linear operations of one input, rule by rule: enclosure on dense grids, and how tight each choice is.

The rules are used as the graphs use them: SSIP of the identity reads off the band (slope, offset, error), RSIP of the
rows +1 and -1 the upper and the lower line.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from robnet_fx.rules.relaxation import Band, enclose
from tests.rules.cases import ELEMENTWISE, Case, name_of
from tests.soundness import draws

aten = torch.ops.aten
SMOOTH = ("sigmoid", "tanh")
KINKED = [case for case in ELEMENTWISE if case.name not in SMOOTH]
BENT = [case for case in KINKED if case.name != "clamp-crossed"]  # with its limits crossed a clamp is a constant
CURVED = [case for case in ELEMENTWISE if case.name in SMOOTH]


def options(case: Case) -> tuple[Any, ...]:
    return case.call(draws(0), None)[0][1:]


def function(case: Case, x: Tensor) -> Tensor:
    """The operation itself, in float64."""
    return case.target(x.double(), *options(case))


def kinks(case: Case) -> list[float]:
    if case.name.startswith("clamp") or case.name.startswith("hardtanh") or case.name == "relu6":
        default = (-1.0, 1.0) if case.name == "hardtanh" else (0.0, 6.0)
        return [k for k in (options(case) or default) if k is not None]
    return [0.0]


def band_of(case: Case, pre: Interval) -> Band:
    """The parallel lines SSIP stands on."""
    ones = torch.ones_like(pre.lower)
    x = Symbolic(ones.unsqueeze(1), 0 * ones, 0 * ones)
    got = rule_for(case.target).ssip(x, *options(case), pre=pre)
    return Band(got.coef.squeeze(1), got.const, got.slack)


def line_of(case: Case, pre: Interval, sign: float) -> tuple[Tensor, Tensor]:
    """(slope, offset) of the upper line (sign 1) or the lower one (-1) RSIP stands on; `pre` is `[B, 1]`."""
    form = Form(torch.full_like(pre.lower, sign).unsqueeze(1), torch.zeros_like(pre.lower))
    got = rule_for(case.target).rsip(form, InputShape((1,)), *options(case), pre=pre)
    return sign * got.coef.squeeze(1), sign * got.const


def intervals(case: Case, dtype: torch.dtype = torch.float64) -> Interval:
    """`[B, 1]`: random intervals, ones that end or begin at a kink, points, and widths from 1e-12 to 1e12."""
    r = draws(8)
    a, b = 2 * r(150), 2 * r(150)
    pairs = [torch.stack([torch.minimum(a, b), torch.maximum(a, b)], 1)]
    for k in kinks(case):
        w = r(12).abs()
        pairs.append(torch.stack([torch.full_like(w, k), k + w], 1))
        pairs.append(torch.stack([k - w, torch.full_like(w, k)], 1))
        pairs.append(torch.tensor([[k, k]], dtype=torch.float64))
        for size in (1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12):
            for left, right in ((1, 1), (1, 3), (3, 1), (1, 1e-3), (1e-3, 1)):
                pairs.append(torch.tensor([[k - left * size, k + right * size]], dtype=torch.float64))
    points = r(20)
    pairs.append(torch.stack([points, points], 1))
    pairs.append(torch.stack([points, points + 1e-9], 1))
    pairs.append(torch.stack([points * 1e5, points * 1e5 + 1], 1))
    pair = torch.cat(pairs).to(dtype)
    return Interval(pair[:, :1], pair[:, 1:])


def grid(case: Case, pre: Interval) -> Tensor:
    """`[B, N]` points of each interval, its ends, its kinks and the neighbourhood of 0 among them, in float64."""
    lower, upper = pre.lower.double(), pre.upper.double()
    steps = torch.linspace(0, 1, 201, dtype=torch.float64)
    near = [s * 10.0**e for e in (-3, -2, -1, 0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8) for s in (-1, 1)]
    special = torch.tensor([*kinks(case), *near], dtype=torch.float64).expand(len(lower), -1)
    special = torch.minimum(torch.maximum(special, lower), upper)
    return torch.cat([lower + (upper - lower) * steps, lower, upper, special], 1).clamp(lower, upper)


def scale_of(pre: Interval) -> Tensor:
    return 1 + torch.maximum(pre.lower.abs(), pre.upper.abs()).double()


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_reach_is_the_range(case: Case):
    pre = intervals(case)
    got = rule_for(case.target).ibp(pre, *options(case))
    values = function(case, grid(case, pre))
    assert bool((got.lower <= values).all() and (values <= got.upper).all())
    torch.testing.assert_close(got.lower, values.amin(1, keepdim=True), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.upper, values.amax(1, keepdim=True), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_the_band_encloses(case: Case):
    pre = intervals(case)
    x = grid(case, pre)
    slope, offset, error = band_of(case, pre)
    assert bool((error >= 0).all())
    gap = (function(case, x) - slope * x - offset).abs() - error
    assert float((gap / scale_of(pre)).max()) < 1e-12


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_the_lines_enclose(case: Case):
    pre = intervals(case)
    x = grid(case, pre)
    for sign in (1.0, -1.0):
        slope, offset = line_of(case, pre, sign)
        gap = sign * (function(case, x) - slope * x - offset)
        assert float((gap / scale_of(pre)).max()) < 1e-12


@pytest.mark.parametrize("pair", [(math.nan, math.nan), (math.nan, 1.0), (-1.0, math.nan)])
@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_nan_stays_nan(case: Case, pair: tuple[float, float]):
    """Where nothing is known of x nothing is known of f(x): a finite line would be a verdict."""
    pre = Interval(*torch.tensor(pair, dtype=torch.float64).reshape(2, 1, 1))
    for sign in (1.0, -1.0):
        assert any(bool(part.isnan().all()) for part in line_of(case, pre, sign))
    assert any(bool(part.isnan().all()) for part in band_of(case, pre))


@pytest.mark.parametrize("pair", [(-1.0, 1.0), (-1.0, 0.3), (-0.3, 1.0)])
@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_a_width_that_overflows(case: Case, pair: tuple[float, float]):
    """The ends of `pre` are finite and its width is not: no line may cut the function off, infinite ones do not."""
    most = torch.finfo(torch.float32).max
    pre = Interval(*(most * torch.tensor(pair, dtype=torch.float32)).reshape(2, 1, 1))
    x = torch.cat([pre.lower, pre.lower / 2, 0 * pre.lower, pre.upper / 2, pre.upper], 1).double()
    values, slack = function(case, x), 1e-5 * most
    for sign in (1.0, -1.0):
        slope, offset = (part.double() for part in line_of(case, pre, sign))
        assert not bool((sign * (values - slope * x - offset) > slack).any())
    slope, offset, error = (part.double() for part in band_of(case, pre))
    assert not bool(((values - slope * x - offset).abs() > error + slack).any())


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_the_band_is_the_tightest_of_its_slope(case: Case):
    pre = intervals(case)
    x = grid(case, pre)
    slope, offset, error = band_of(case, pre)
    gap = function(case, x) - slope * x
    slack = 1e-3 if case in CURVED else 1e-12  # a grid sees the curve's extreme from a little below
    highest, lowest = gap.amax(1, keepdim=True), gap.amin(1, keepdim=True)
    assert float(((offset + error - highest) / scale_of(pre)).max()) < slack
    assert float(((lowest - offset + error) / scale_of(pre)).max()) < slack


@pytest.mark.parametrize("case", KINKED, ids=name_of)
def test_the_band_follows_the_chord(case: Case):
    """With parallel lines the chord's slope gives the least error wherever f bends only once."""
    pre = intervals(case)
    width = pre.upper - pre.lower
    keep = (width > 1e-2).squeeze(1)
    rise = function(case, pre.upper) - function(case, pre.lower)
    slope = band_of(case, pre).slope
    torch.testing.assert_close(slope[keep], (rise / width)[keep], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", BENT, ids=name_of)
def test_a_stable_unit_is_exact(case: Case):
    """Between two kinks the operation is a line: the band has no error, both lines are the operation, its slope too."""
    ends = sorted({-8.0, *kinks(case), 8.0})
    for low, high in itertools.pairwise(ends):
        for cut_low, cut_high in ((low, high), (low + 0.01, high - 0.01), (low + 0.02, low + 0.02)):
            pre = Interval(*(torch.tensor([[v]], dtype=torch.float64) for v in (cut_low, cut_high)))
            assert not bool(rule_for(case.target).unstable(pre, *options(case)).any())
            x = grid(case, pre)
            slope, offset, error = band_of(case, pre)
            assert float(error) < 1e-14
            torch.testing.assert_close(slope * x + offset, function(case, x), rtol=1e-12, atol=1e-12)
            for sign in (1.0, -1.0):
                line, shift = line_of(case, pre, sign)
                torch.testing.assert_close(line * x + shift, function(case, x), rtol=1e-12, atol=1e-12)
            if high > low:
                inner = torch.tensor([(low + high) / 2, (low + high) / 2 + 1e-3], dtype=torch.float64)
                expected = float(function(case, inner).diff() / 1e-3)
                assert float(slope) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_unstable_marks_what_has_an_error(case: Case):
    pre = intervals(case)
    marked = rule_for(case.target).unstable(pre, *options(case))
    assert marked.dtype == torch.bool
    if case in CURVED:
        assert torch.equal(marked, pre.upper > pre.lower)
    else:
        inside = [(pre.lower < k) & (pre.upper > k) for k in kinks(case)]
        assert torch.equal(marked, torch.stack(inside).any(0))


@pytest.mark.parametrize("case", BENT, ids=name_of)
def test_each_line_cuts_off_as_much_as_either_candidate(case: Case):
    """RSIP's line on each side is the better, by area, of the two natural ones: for one kink the branches or the
    chord, for two the flat line or the one from the near kink to the far end."""
    pre = intervals(case)
    middle = (pre.lower + pre.upper) / 2
    first, last = function(case, pre.lower), function(case, pre.upper)
    for sign in (1.0, -1.0):
        slope, offset = line_of(case, pre, sign)
        valid = torch.stack([sign * height for height in _candidates(case, pre, first, last, sign)]).amin(0)
        gap = (sign * (slope * middle + offset) - valid) / scale_of(pre)
        assert float(gap.abs().max()) < 1e-12


def _candidates(case: Case, pre: Interval, first: Tensor, last: Tensor, sign: float) -> list[Tensor]:
    """The heights above the middle of `pre` of every candidate line that encloses."""
    x = grid(case, pre)
    values = function(case, x)
    middle = (pre.lower + pre.upper) / 2
    width = (pre.upper - pre.lower).clamp(min=1e-300)
    lines = [((last - first) / width, pre.lower, first)]
    tiny = 1e-7
    for k in kinks(case):
        point = torch.full_like(pre.lower, k)
        for side in (-1, 1):
            local = (function(case, point + side * tiny) - function(case, point)) / (side * tiny)
            lines.append((local.round(decimals=5), point, function(case, point)))
        for end, value in ((pre.lower, first), (pre.upper, last)):
            run = torch.where(end == point, 1.0, end - point)
            lines.append(((value - function(case, point)) / run, end, value))
    lines += [(torch.zeros_like(first), pre.lower, first), (torch.zeros_like(last), pre.upper, last)]
    heights = []
    for slope, at, value in lines:
        outside = (sign * (values - value - slope * (x - at)) / scale_of(pre)).amax(1, keepdim=True) > 1e-12
        heights.append(torch.where(outside, sign * torch.inf, value + slope * (middle - at)))
    return heights


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_slack_grows_with_the_slope(case: Case):
    """SSIP of a value with slack: coefficients times the slope, slack times its size plus the band's error."""
    pre = intervals(case)
    band = band_of(case, pre)
    r = draws(11)
    n = len(pre.lower)
    x = Symbolic(r(n, 2, 1), r(n, 1), r(n, 1).abs())
    got = rule_for(case.target).ssip(x, *options(case), pre=pre)
    torch.testing.assert_close(got.coef, band.slope.unsqueeze(1) * x.coef)
    torch.testing.assert_close(got.const, band.slope * x.const + band.offset)
    torch.testing.assert_close(got.slack, band.slope.abs() * x.slack + band.error)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_rows_take_the_line_their_sign_asks_for(case: Case):
    """RSIP of mixed rows over several units: positive coefficients on the upper line, negative ones on the lower."""
    r = draws(12)
    a, b = r(2, 3), r(2, 3)
    pre = Interval(torch.minimum(a, b), torch.maximum(a, b))
    form = Form(r(2, 5, 3), r(2, 5))
    got = rule_for(case.target).rsip(form, InputShape((3,)), *options(case), pre=pre)
    for i in range(2):
        for k in range(5):
            total = form.const[i, k].clone()
            for j in range(3):
                unit = Interval(pre.lower[i, j].reshape(1, 1), pre.upper[i, j].reshape(1, 1))
                c = form.coef[i, k, j]
                slope, offset = line_of(case, unit, 1.0 if c > 0 else -1.0)
                total = total + c * offset.squeeze()
                torch.testing.assert_close(got.coef[i, k, j], c * slope.squeeze())
            torch.testing.assert_close(got.const[i, k], total)


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_curves_are_enclosed_in_float32(case: Case):
    """Saturation, cancellation and rounding: float32 bounds against the float64 curve, over any width."""
    pre = intervals(case, torch.float32)
    x = grid(case, pre)
    values = function(case, x)
    slope, offset, error = (part.double() for part in band_of(case, pre))
    assert bool(((values - slope * x - offset).abs() <= error).all())
    for sign in (1.0, -1.0):
        slope, offset = (part.double() for part in line_of(case, pre, sign))
        # RSIP evaluates the line itself in float32: allow it that one rounding.
        rounding = 2e-7 * (slope.abs() * scale_of(pre) + 1)
        assert bool((sign * (values - slope * x - offset) <= rounding).all())
    reach = rule_for(case.target).ibp(pre)
    assert bool((reach.lower.double() <= values).all() and (values <= reach.upper.double()).all())


@pytest.mark.parametrize("case", CURVED, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curves_are_enclosed_over_huge_intervals(case: Case, dtype: torch.dtype):
    """The point of the chord's slope lies near 0 and must be found although the slope is all but 0."""
    for exponent in range(5, 37, 2):
        w = 10.0**exponent
        pre = Interval(*(torch.tensor([[end]], dtype=dtype) for end in (-w, w)))
        slope, offset, error = (float(part) for part in band_of(case, pre))
        for x in (-w, -300.0, -25.0, 0.0, 25.0, 300.0, w):
            value = float(function(case, torch.tensor([x])))
            assert abs(value - slope * x - offset) <= error * (1 + 1e-6)


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.4, 2.0])
def test_enclose_is_tight_for_any_slope(slope: float):
    """Not only for the chord's, where both ends are equally far off."""
    case = next(case for case in ELEMENTWISE if case.name == "clamp")
    pre = intervals(case)
    x = grid(case, pre)
    turns = [torch.full_like(pre.lower, kink) for kink in kinks(case)]
    band = enclose(lambda v: function(case, v), pre, torch.full_like(pre.lower, slope), turns)
    gap = function(case, x) - slope * x
    highest, lowest = gap.amax(1, keepdim=True), gap.amin(1, keepdim=True)
    assert float(((band.offset + band.error - highest) / scale_of(pre)).abs().max()) < 1e-12
    assert float(((band.offset - band.error - lowest) / scale_of(pre)).abs().max()) < 1e-12


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_gradients_stay_finite_at_the_edges(case: Case):
    """l = u, l = 0, u = 0, kinks, both: bounds are trained through, and 0/0 must not hide behind a `where`."""
    ends = [0.0, *kinks(case), 0.3, -0.3, 50.0, -50.0]
    pairs = torch.tensor([[a, b] for a in ends for b in ends if a <= b], dtype=torch.float64)
    lower, upper = (pairs[:, i : i + 1].clone().requires_grad_(True) for i in (0, 1))
    pre = Interval(lower, upper)
    rule = rule_for(case.target)
    reach = rule.ibp(pre, *options(case))
    band = band_of(case, pre)
    lines = [part for sign in (1.0, -1.0) for part in line_of(case, pre, sign)]
    total = sum(part.sum() for part in (*reach, *band, *lines))
    assert math.isfinite(float(total.detach()))
    for gradient in torch.autograd.grad(total, (lower, upper)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("case", ELEMENTWISE, ids=name_of)
def test_bounds_are_differentiable_away_from_kinks(case: Case):
    lower = torch.tensor([[-1.31], [0.27], [-0.83], [-0.11], [-4.0]], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([[1.03], [1.17], [-0.67], [0.41], [9.0]], dtype=torch.float64, requires_grad=True)

    def bounds(low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
        pre = Interval(low, high)
        lines = [part for sign in (1.0, -1.0) for part in line_of(case, pre, sign)]
        return (*rule_for(case.target).ibp(pre, *options(case)), *band_of(case, pre), *lines)

    if case not in CURVED:
        assert torch.autograd.gradcheck(bounds, (lower, upper))
        return
    # Where f is smooth the touching point is detached: the slope moves with it, the gap does not to first order.
    assert torch.autograd.gradcheck(bounds, (lower, upper), atol=1e-5, rtol=1e-3)
