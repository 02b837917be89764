"""Curved functions, rule by rule: enclosure on dense grids, tightness, gradients, float32, ends of the domain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robnet_fx import BiasField
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, concretise
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.rules import rule_for
from robnet_fx.rules.curved import Curve, nowhere
from robnet_fx.rules.relaxation import Band
from tests.benchmarks.relaxations import ratios
from tests.rules.cases import CURVED, STEPS, Case, name_of
from tests.rules.enclosures import admit, arguments, band_of, function, interval, lines_of, reach_of
from tests.soundness import Drawing, draws

aten = torch.ops.aten
# Ends of the curves' pieces, and other places where something happens.
SPOTS = (0.0, -0.7518, -1.0, 1.0, 1.4142, -1.4142, 1.4906, -2.2564, 2.3994, -3.0, 3.0, 0.25, 0.5, 1.5708, -20.0, 20.0)

# Where a function is no straight line, but for rounding; the others bend everywhere.
BENT = {
    **dict.fromkeys(("elu", "celu", "selu"), (-math.inf, 0.0)),
    **dict.fromkeys(("hardswish", "hardsigmoid"), (-3.0, 3.0)),
    **dict.fromkeys(("silu", "mish"), (-45.0, 45.0)),
    "gelu": (-10.0, 10.0),
}


def intervals(case: Case, dtype: torch.dtype = torch.float64, widest: float = 1e4) -> Interval:
    """`[B, 1]` inside the domain: random ones of every size, ones about every spot, points, and tiny ones."""
    generator = torch.Generator().manual_seed(1)

    def draw(n: int, least: float, most: float) -> Tensor:
        return least + (most - least) * torch.rand(n, generator=generator, dtype=torch.float64)

    size = 10 ** draw(400, -3, math.log10(widest))
    ends = (size * torch.where(draw(400, -1, 1) > 0, 1.0, -1.0)).reshape(2, 200)
    middles = draw(60, -6, 6)
    spots = torch.tensor(SPOTS, dtype=torch.float64).repeat_interleave(9)
    widths = torch.tensor([0.0, 1e-12, 1e-7, 1e-3, 0.1, 1.0, 4.0, 60.0, widest], dtype=torch.float64).repeat(len(SPOTS))
    share = draw(len(spots), 0, 1)
    pairs = torch.cat([
        ends.T,
        torch.stack([middles, middles + 10 ** draw(60, -12, 1)], 1),
        torch.stack([middles, middles], 1),
        torch.stack([spots - widths, spots + widths], 1),
        torch.stack([spots, spots + widths], 1),
        torch.stack([spots - widths, spots], 1),
        torch.stack([spots - share * widths, spots + (1 - share) * widths], 1),
    ])  # fmt: skip
    return interval(admit(case, pairs), dtype)


def grid(pre: Interval, n: int = 801) -> Tensor:
    """`[B, N]` points of each interval in float64: evenly, randomly, at the spots, and close together about 0."""
    lower, upper = pre.lower.double(), pre.upper.double()
    steps = torch.cat([torch.linspace(0, 1, n, dtype=torch.float64), torch.rand(n // 4, dtype=torch.float64)])
    near = [torch.linspace(-30, 30, 2 * n), torch.logspace(-6, 3, n), -torch.logspace(-6, 3, n), torch.tensor(SPOTS)]
    near = torch.cat([part.double() for part in near]).expand(len(lower), -1)
    return torch.cat([lower + (upper - lower) * steps, lower, upper, near], 1).clamp(lower, upper)


class Sampled:
    """A function on a grid in each interval, evaluated once for all slopes."""

    def __init__(self, case: Case, pre: Interval) -> None:
        self.case, self.lower, self.upper = case, pre.lower.double(), pre.upper.double()
        self.x = grid(pre)
        self.value = function(case, self.x)

    def highest(self, slope: Tensor, sign: float = 1.0) -> Tensor:
        """The highest of sign (f(x) - slope x) that the grid and a finer one about its best point find."""
        slope = slope.double()
        found, best = (sign * (self.value - slope * self.x)).max(1, keepdim=True)
        middle = self.x.gather(1, best)
        near = torch.minimum((self.upper - self.lower) / 800, 0.04 + middle.abs() / 100)
        fine = middle + near * torch.linspace(-1, 1, 401, dtype=torch.float64)
        fine = fine.clamp(self.lower, self.upper)
        return torch.maximum(found, (sign * (function(self.case, fine) - slope * fine)).amax(1, keepdim=True))

    def rounding(self, slope: Tensor) -> Tensor:
        """What evaluating f(x) - slope x may be off by."""
        return 4e-16 * (self.value.abs() + (slope.double() * self.x).abs()).amax(1, keepdim=True)


def extremes(case: Case, pre: Interval, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(lowest, highest) of f(x) - slope x that grids find, and what evaluating them may be off by."""
    sampled = Sampled(case, pre)
    return -sampled.highest(slope, -1.0), sampled.highest(slope), sampled.rounding(slope)


HANDFUL = [
    (-1.31, 1.03), (0.27, 1.17), (-0.83, -0.67), (-4.0, 3.5), (-2.9, -0.4), (-9.0, 2.0), (-2.0, 9.0), (0.5, 4.0),
    (-5.0, -3.5), (3.2, 5.0), (-30.0, 12.0), (-1.0, 60.0), (50.0, 52.0), (-61.0, -59.0), (0.7, 0.7),
]  # fmt: skip


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
def test_a_handful_of_intervals_is_enclosed_and_touched(case: Case):
    """All at once what the tests below look into: this one takes milliseconds."""
    pre = interval(admit(case, torch.tensor(HANDFUL, dtype=torch.float64)))
    x = pre.lower + (pre.upper - pre.lower) * torch.linspace(0, 1, 3001, dtype=torch.float64)
    value = function(case, x)
    jumps = "broken" in case.name or "negative" in case.name or case in STEPS

    def above(height: Tensor, values: Tensor) -> None:
        """As high as the highest of the values, but for rounding, and (unless f jumps) as close as a grid can tell."""
        size = 1 + values.abs().amax(1, keepdim=True) + height.abs()
        gap = (height - values).amin(1, keepdim=True) / size
        assert float(gap.min()) > -1e-14
        assert jumps or float(gap.max()) < 1e-3

    lower, upper = reach_of(case, pre)
    above(upper, value)
    above(-lower, -value)
    slope, offset, error = band_of(case, pre)
    above(offset + error, value - slope * x)
    above(error - offset, slope * x - value)
    for sign in (1.0, -1.0):
        slope, offset = lines_of(case, pre, sign)
        above(sign * offset, sign * (value - slope * x))


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_reach_is_the_range(case: Case, dtype: torch.dtype):
    pre = intervals(case, dtype)
    lower, upper = (end.double() for end in reach_of(case, pre))
    lowest, highest, _ = extremes(case, pre, torch.zeros_like(pre.lower))
    assert bool((lower <= lowest).all() and (highest <= upper).all())
    if "broken" in case.name or "negative" in case.name:
        return  # softplus with a jump
    slack = 20 * torch.finfo(dtype).eps
    if case.name in ("sin", "cos"):
        slack = 1e-2  # of a far interval the grid sees little
        near = (pre.lower.abs() < 100) & (pre.upper.abs() < 100)
        lower, upper, lowest, highest = (end[near] for end in (lower, upper, lowest, highest))
    least = max(slack, 1e-8) if dtype == torch.float64 else slack
    torch.testing.assert_close(lower, lowest, rtol=slack, atol=least)
    torch.testing.assert_close(upper, highest, rtol=slack, atol=least)


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_band_encloses(case: Case, dtype: torch.dtype):
    pre = intervals(case, dtype)
    band = Band(*(part.double() for part in band_of(case, pre)))
    lowest, highest, rounding = extremes(case, pre, band.slope)
    assert bool(torch.isfinite(band.error).all())
    assert bool((highest <= band.offset + band.error + rounding).all())
    assert bool((lowest >= band.offset - band.error - rounding).all())


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_the_band_is_the_tightest_of_its_slope(case: Case):
    if "broken" in case.name or "negative" in case.name:
        pytest.skip("softplus with a jump: the curve and the straight part are enclosed together")
    pre = intervals(case, widest=100.0)
    band = band_of(case, pre)
    if case.name in ("sin", "cos"):
        keep = (pre.upper - pre.lower < 6.2).squeeze(1)
        pre, band = Interval(*(end[keep] for end in pre)), Band(*(part[keep] for part in band))
    lowest, highest, _ = extremes(case, pre, band.slope)
    size = 1 + highest.abs() + lowest.abs() + band.slope.abs() * torch.maximum(pre.lower.abs(), pre.upper.abs())
    half = (highest - lowest) / 2
    jump = math.log1p(math.exp(-20.0)) if "softplus" in case.name else 0.0
    assert bool((band.error <= 1.0001 * half + 1e-14 * size + jump).all())


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_lines_enclose(case: Case, dtype: torch.dtype):
    pre = intervals(case, dtype)
    middle = (pre.lower + pre.upper).double() / 2
    band, sampled = Band(*(part.double() for part in band_of(case, pre))), Sampled(case, pre)
    for sign in (1.0, -1.0):
        slope, offset = (part.double() for part in lines_of(case, pre, sign))
        # RSIP adds the line up in its own precision: allow it that one rounding.
        rounding = sampled.rounding(slope) + torch.finfo(dtype).eps * (offset.abs() + 4e-16)
        assert bool((sign * offset - sampled.highest(slope, sign) >= -rounding).all())
        height, edge = slope * middle + offset, band.slope * middle + band.offset + sign * band.error
        far = torch.maximum(pre.lower.abs(), pre.upper.abs()).double()
        size = 1 + (slope.abs() + band.slope.abs()) * far + offset.abs() + band.offset.abs() + band.error
        assert bool((sign * (height - edge) <= 20 * torch.finfo(dtype).eps * size).all())


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_two_lines_could_not_do_much_better(case: Case):
    """The areas over the least possible ones: parallel lines cost up to a factor of 2, as they do for ReLU."""
    if "broken" in case.name or "negative" in case.name:
        pytest.skip("softplus with a jump: the curve and the straight part are enclosed together")
    for width in (0.01, 0.3, 2.0, 10.0):
        parallel, free = ratios(case, width)
        assert parallel.numel() == 0 or float(parallel.max()) <= 2.0
        assert free.numel() == 0 or float(free.max()) <= (1.5 if case.name in ("tan", "sinh") else 1.4)


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_the_slope_is_that_of_a_chord(case: Case):
    """Between the ends, or between points a little inside where the curve bends both ways."""
    if "broken" in case.name or "negative" in case.name:
        pytest.skip("softplus with a jump: the slope is the curve's")
    pre = intervals(case, widest=6.0)
    width = pre.upper - pre.lower
    inset = width * (0.5 - math.sqrt(3) / 4)
    slope, off = band_of(case, pre).slope, []
    for a, b in ((pre.lower, pre.upper), (pre.lower + inset, pre.upper - inset)):
        off.append((slope - (function(case, b) - function(case, a)) / (b - a)).abs())
    keep = (width > 0.01) & ((width < 6.2) | torch.tensor(case.name not in ("sin", "cos")))
    assert bool((torch.minimum(*off) < 1e-7 * (1 + slope.abs()))[keep].all())


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_interval_is_enclosed(case: Case, data: st.DataObject):
    ends = st.floats(-50, 50, allow_subnormal=False)
    pairs = data.draw(st.lists(st.tuples(ends, ends, st.floats(0, 1)), min_size=1, max_size=8))
    pairs = torch.tensor(pairs, dtype=torch.float64)
    pre = interval(admit(case, pairs[:, :2]))
    x = (pre.lower + pairs[:, 2:] * (pre.upper - pre.lower)).clamp(pre.lower, pre.upper)
    value = function(case, x)
    slope, offset, error = band_of(case, pre)
    rounding = 4e-16 * (value.abs() + (slope * x).abs() + offset.abs())
    assert bool(((value - slope * x - offset).abs() <= error + rounding).all())
    lower, upper = reach_of(case, pre)
    assert bool(((lower <= value) & (value <= upper)).all())


@pytest.mark.parametrize("case", [*CURVED, *STEPS], ids=name_of)
def test_gradients_stay_finite_at_the_edges(case: Case):
    """l = u, l = 0, u = 0, kinks, far away, one side out of the domain: 0/0 must not hide behind a `where`."""
    ends = (-1e30, -1e4, *SPOTS, 800.0, 1e4, 1e30)
    pairs = torch.tensor([[a, b] for a in ends for b in ends if a <= b], dtype=torch.float64)
    lower, upper = (pairs[:, i : i + 1].clone().requires_grad_(True) for i in (0, 1))
    for parts in (reach_of(case, Interval(lower, upper)), band_of(case, Interval(lower, upper))):
        total = sum(torch.where(part.detach().isfinite(), part, 0.0).sum() for part in parts)
        for gradient in torch.autograd.grad(total, (lower, upper), allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_gradients_are_those_of_the_bounds(case: Case):
    """Against finite differences, away from kinks: the turns are held fixed, the extremes do not move with them."""
    pairs = [[-1.31, 1.03], [0.27, 1.17], [-0.83, -0.67], [-0.11, 0.41], [-4.0, 9.0], [0.31, 0.3105], [-2.9, -0.4]]
    if case.name in ("sin", "cos"):
        pairs[4] = [-1.0, 4.0]
    pre = interval(admit(case, torch.tensor(pairs, dtype=torch.float64)))
    lower, upper = (end.clone().requires_grad_(True) for end in pre)
    assert torch.autograd.gradcheck(
        lambda *ends: (*reach_of(case, Interval(*ends)), *band_of(case, Interval(*ends))),
        (lower, upper),
        atol=1e-5,
        rtol=1e-3,
    )


@pytest.mark.parametrize("case", [c for c in CURVED if c.domain != (-math.inf, math.inf)], ids=name_of)
@pytest.mark.parametrize("pair", [(-1.5, 2.0), (-3.0, -2.0), (math.nan, 1.0), (1.0, math.nan), (-math.inf, math.inf)])
def test_out_of_the_domain_nothing_is_certified(case: Case, pair: tuple[float, float]):
    if pair == (-3.0, -2.0) and not function(case, torch.tensor([-2.5])).isnan():
        pytest.skip("the function is defined there")
    pre = interval([pair])
    args, kwargs = arguments(case)
    lower, upper = reach_of(case, pre)
    assert not bool(lower.isfinite() & upper.isfinite())
    x = Symbolic(torch.ones(1, 2, 1).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
    lower, upper = concretise(rule_for(case.target).ssip(x, *args, pre=pre, **kwargs))
    assert not upper < math.inf
    form = Form(torch.tensor([[[1.0], [-1.0]]]).double(), torch.zeros(1, 2).double())
    got = rule_for(case.target).rsip(form, InputShape((1,)), *args, pre=pre, **kwargs)
    assert not bool((got.const < math.inf).any())


@pytest.mark.parametrize("name", ["log", "sqrt", "rsqrt", "pow 1.5"])
def test_what_is_no_number_stays_none(name: str):
    """The root of a negative number, clamped, is no number, whereas a clamped infinite interval would be finite."""
    case = next(case for case in CURVED if case.name == name)
    pre = interval([(-0.1, 1.0), (math.nan, 1.0), (1.0, math.nan)])
    assert bool(torch.stack(reach_of(case, pre)).isnan().all())
    assert bool(band_of(case, pre).error.isnan().all())


HIDING = {"clamp": lambda d, x: d(aten.relu.default, d(aten.clamp.default, x, -1.0, 1.0))}
HIDING |= {
    name: lambda d, x, op=op: d(op, x) for name, op in (("relu", aten.relu.default), ("sign", aten.sign.default))
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("method", list(METHODS))
def test_no_method_certifies_past_an_undefined_value(method: str, hide: Callable[..., Any]):
    """log of what may be negative, then what could make a number of it: the logits look bounded, and must not."""
    r = draws(4)
    drawing = Drawing(1, 2)
    value = drawing(aten.linear.default, drawing.flat(drawing.x), r(3, 2), r(3))
    value = drawing(aten.log.default, value)
    net = BoundedModel(drawing.logits(hide(drawing, value), r), Problem(BiasField(1, 0.4, additive=True)), method)
    images = torch.rand(3, 1, 2, dtype=torch.float64)
    lower, upper = net.bounds(images, torch.eye(3, dtype=torch.float64).expand(3, -1, -1))
    assert not bool((upper < math.inf).any())
    assert not bool((lower > -math.inf).any())


def test_there_is_a_number_in_every_domain():
    places = ((-math.inf, math.inf), (0.0, math.inf), (-1.0, 1.0), (-4.0, -1.0))
    curves = [Curve(torch.abs, nowhere, start=start, stop=stop) for start, stop in places]
    assert [curve.somewhere for curve in curves] == [1.0, 1.0, 0.0, -2.5]


def test_at_a_pole_the_interval_is_infinite():
    by_name = {case.name: case for case in CURVED}
    for name in ("reciprocal", "pow -3"):
        assert reach_of(by_name[name], interval([(-1.0, 1.0)])) == (-math.inf, math.inf)
    assert reach_of(by_name["pow -2"], interval([(-1.0, 1.0)])) == (0, math.inf)
    assert reach_of(by_name["log"], interval([(0.0, 1.0)])) == (-math.inf, math.inf)
    assert reach_of(by_name["rsqrt"], interval([(0.0, 1.0)])) == (0, math.inf)
    assert reach_of(by_name["exp"], interval([(0.0, 1000.0)])) == (0, math.inf)
    for name in ("reciprocal", "log", "rsqrt"):
        slope, offset, error = band_of(by_name[name], interval([(0.0, 1.0)]))
        assert (float(slope), float(offset), float(error)) == (0.0, 0.0, math.inf)


@pytest.mark.parametrize(("name", "sign"), [("exp", 1.0), ("log_sigmoid", -1.0)])
def test_each_end_is_rounded_by_its_own_size(name: str, sign: float):
    """In float32 from a value near 0 to a large one: of that one's rounding the small one knows nothing."""
    case = next(case for case in CURVED if case.name == name)
    ends = sign * torch.linspace(5, 60, 300)
    pre = interval(torch.stack([torch.full_like(ends, -20 * sign), ends], 1).sort(1).values, torch.float32)
    lower, upper = (end.double() for end in reach_of(case, pre))
    first, last = function(case, pre.lower), function(case, pre.upper)
    assert bool(((lower < first) & (last < upper)).all())
    for bound, value in ((lower, first), (upper, last)):
        torch.testing.assert_close(bound, value, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "bend", "pair"),
    [
        ("square", 1.0, (-7.0, 7.0)),
        ("square", 1.0, (-7.1, -7.0)),
        ("square", 1.0, (7.0, 7.1)),
        ("sqrt", -1.0, (1.0, 100.0)),
        ("log_sigmoid", -1.0, (-100.0, 1.0)),
        ("log_sigmoid", -1.0, (-100.0, -50.0)),
    ],
)
def test_edges_are_rounded_by_what_was_added_up(name: str, bend: float, pair: tuple[float, float]):
    """In float32: the edge that goes through the ends stands off by a few ulps of all that was rounded on the way."""
    case = next(case for case in CURVED if case.name == name)
    pre = interval(torch.tensor(pair) * torch.linspace(0.9, 1.1, 100).unsqueeze(1), torch.float32)
    slope, offset, error = (part.double() for part in band_of(case, pre))
    gaps = torch.stack([function(case, end) - slope * end for end in pre])
    beyond = offset + error - gaps.amax(0) if bend > 0 else gaps.amin(0) - (offset - error)
    size = offset.abs() + error + slope.abs() * torch.stack(pre).abs().amax(0)
    ulps = beyond / (size * torch.finfo(torch.float32).eps)
    assert float(ulps.min()) > 4 and float(ulps.max()) < 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_values_keep_their_sign(dtype: torch.dtype):
    """The sum of exponentials has a logarithm: a lower bound may not be rounded through 0."""
    by_name = {case.name: case for case in CURVED}
    pre = interval([(-60.0, 10.0), (-80.0, -80.0), (1e-9, 1e9)], dtype)
    assert bool((reach_of(by_name["exp"], Interval(*(end[:2] for end in pre))).lower > 0).all())
    for name in ("sqrt", "rsqrt", "reciprocal", "pow -2"):
        assert bool((reach_of(by_name[name], Interval(*(end[2:] for end in pre))).lower > 0).all())
    lower, upper = reach_of(by_name["exp"], interval([(-2000.0, -1000.0)], dtype))
    assert lower == 0 and upper > 0, "what underflows is more than 0"


def test_infinite_inputs_leave_the_range_of_what_is_bounded():
    by_name = {case.name: case for case in CURVED}
    pre = interval([(-math.inf, math.inf)])
    quarter = math.pi / 2
    for name, least, most in (("sin", -1, 1), ("erf", -1, 1), ("hardsigmoid", 0, 1), ("atan", -quarter, quarter)):
        assert reach_of(by_name[name], pre) == (least, most)
        slope, offset, error = band_of(by_name[name], pre)
        assert (float(slope), float(offset), float(error)) == (0.0, (most + least) / 2, (most - least) / 2)
    assert reach_of(by_name["gelu"], pre) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("name", "far", "least", "most"), [("pow 3", 6e12, -math.inf, math.inf), ("hardsigmoid", 3e38, 0.0, 1.0)]
)
def test_ends_too_far_apart_are_infinitely_far(name: str, far: float, least: float, most: float):
    """In float32: the ends and what the function makes of them are finite, but their difference is not."""
    case = next(case for case in CURVED if case.name == name)
    pre = interval([(-far, far)], torch.float32)
    assert reach_of(case, pre) == (least, most)
    slope, offset, error = band_of(case, pre)
    assert float(slope) == 0 and float(offset + error) == most and float(offset - error) == least


@pytest.mark.parametrize("case", [c for c in CURVED if c.name in ("gelu", "gelu-tanh", "silu", "mish")], ids=name_of)
def test_the_pieces_end_where_the_curve_bends(case: Case):
    """What the rules know of a curve without formulas: where f' = 0, and that f' is monotone between the bends."""
    from robnet_fx.rules import gelu, silu

    known = {
        "gelu": (gelu._CURVES["none"], gelu._exact_derivative),
        "gelu-tanh": (gelu._CURVES["tanh"], gelu._tanh_derivative),
        "silu": (silu._SILU, silu._silu_derivative),
        "mish": (silu._MISH, silu._mish_derivative),
    }
    curve, derivative = known[case.name]
    x = torch.linspace(-4.5, 4.5, 4001, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(function(case, x).sum(), x)
    torch.testing.assert_close(derivative(x.detach()), expected, rtol=1e-10, atol=1e-12)
    assert abs(float(derivative(torch.tensor(curve.still, dtype=torch.float64)))) < 1e-14
    turning = (expected.diff()[1:] * expected.diff()[:-1] < 0).nonzero().flatten() + 1
    edges = torch.tensor(curve.turns.bends, dtype=torch.float64)
    torch.testing.assert_close(x.detach()[turning], edges, rtol=0, atol=4.1e-3)


@pytest.mark.parametrize("case", CURVED, ids=name_of)
def test_unstable_marks_what_has_an_error(case: Case):
    args, kwargs = arguments(case)
    pre = intervals(case)
    marked = rule_for(case.target).unstable(pre, *args, **kwargs)
    low, high = next((ends for name, ends in BENT.items() if case.name.startswith(name)), (-math.inf, math.inf))
    assert torch.equal(marked, (pre.lower < pre.upper) & (pre.lower < high) & (low < pre.upper))
    slope, offset, error = band_of(case, pre)
    size = 1 + offset.abs() + slope.abs() * torch.maximum(pre.lower.abs(), pre.upper.abs())
    assert bool((marked | (error <= 4e-15 * size) | ~torch.tensor("softplus" not in case.name)).all())


def test_a_step_is_level():
    pre = interval([(-2.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (1.0, 2.0)])
    band = torch.cat(band_of(next(case for case in STEPS if case.name == "sign"), pre), 1)
    assert band.tolist() == [[0, -1, 0], [0, -0.5, 0.5], [0, 0, 1], [0, 0, 0], [0, 0.5, 0.5], [0, 1, 0]]
    assert rule_for(aten.sign.default).unstable(pre).flatten().tolist() == [False, True, True, False, True, False]


def test_prelu_gives_every_channel_its_slope():
    r = draws(3)
    a, b = r(2, 3, 2), r(2, 3, 2)
    pre = Interval(torch.minimum(a, b), torch.maximum(a, b))
    weight = 2 * r(3)
    rule = rule_for(aten.prelu.default)
    whole = rule.ibp(pre, weight)
    for channel in range(3):
        part = Interval(*(end[:, channel : channel + 1] for end in pre))
        alone = rule.ibp(part, weight[channel : channel + 1])
        for got, expected in zip(whole, alone, strict=True):
            torch.testing.assert_close(got[:, channel : channel + 1], expected)
    x = Symbolic(r(2, 4, 3, 2), r(2, 3, 2), r(2, 3, 2).abs())
    rows = Form(r(2, 5, 3, 2), r(2, 5))
    weight.requires_grad_(True)
    forward, backward = rule.ssip(x, weight, pre=pre), rule.rsip(rows, InputShape((3, 2)), weight, pre=pre)
    total = sum(part.sum() for part in (*forward, *backward))
    (gradient,) = torch.autograd.grad(total, weight)
    assert bool((gradient.isfinite() & (gradient != 0)).all())


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_far_away_a_wave_is_between_its_crests(name: str, sign: float):
    """In float32 there is no number near a crest at 10^6: the one found would miss it by 10^-4."""
    case = next(case for case in CURVED if case.name == name)
    starts = 1e6 + torch.arange(40, dtype=torch.float64)
    pre = interval((sign * torch.stack([starts, starts + 2], 1)).sort(1).values, torch.float32)
    x = pre.lower.double() + torch.linspace(0, 1, 2001, dtype=torch.float64) * (pre.upper - pre.lower).double()
    values = function(case, x)
    lower, upper = (end.double() for end in reach_of(case, pre))
    assert bool(((lower <= values) & (values <= upper)).all())
    slope, offset, error = (part.double() for part in band_of(case, pre))
    assert bool(((values - slope * x - offset).abs() <= error).all())
    limit = torch.finfo(torch.float32).eps ** -0.5
    ends = sign * torch.tensor([[limit - 1, limit + 1], [limit - 0.1, limit + 0.1], [limit - 0.2, limit - 0.1]])
    width = torch.sub(*reversed(reach_of(case, interval(ends.double().sort(1).values, torch.float32)))).flatten()
    assert bool((width[:2] == 2).all()) and float(width[2]) < 1, "one end beyond the limit is enough"


def test_the_tangent_is_bounded_in_every_branch_and_over_no_pole():
    (case,) = (case for case in CURVED if case.name == "tan")
    branch = math.pi * torch.arange(-30, 31, dtype=torch.float64)
    inside = interval(torch.stack([branch - 1.2, branch + 0.9], 1))
    lowest, highest, rounding = extremes(case, inside, band_of(case, inside).slope)
    band = band_of(case, inside)
    assert bool((highest <= band.offset + band.error + rounding).all())
    assert bool((lowest >= band.offset - band.error - rounding).all())
    assert bool((band.error < 2).all())
    pole = branch + math.pi / 2
    for before, after in ((1e-6, 1e-6), (0.5, 0.1), (0.1, 3.0), (1.0, 2.5), (1.0, 3.0), (5.0, 2.0)):
        over = reach_of(case, interval(torch.stack([pole - before, pole + after], 1)))
        assert bool((over.lower == -math.inf).all() and (over.upper == math.inf).all())


def test_steps_far_apart_are_followed():
    pre = interval([(-0.3, 0.4), (-2.4, 7.7), (0.2, 0.9)])
    by_name = {case.name: band_of(case, pre) for case in STEPS}
    assert by_name["floor"].slope.flatten().tolist() == [0, 1, 0]
    assert by_name["floor"].offset.flatten().tolist() == [-0.5, -0.5, 0]
    assert by_name["ceil"].offset.flatten().tolist() == [0.5, 0.5, 1]
    assert by_name["round"].error.flatten().tolist() == pytest.approx([0, 0.5, 0.5])
    assert by_name["sign"].slope.flatten().tolist() == [0, 0, 0]
    floor = next(case for case in STEPS if case.name == "floor")
    error = band_of(floor, interval([(-1e4, 2.0), (-2.0, 1e4)], torch.float32)).error  # rounded by the farther end
    assert error.flatten().tolist() == pytest.approx([0.5 + 8 * 2**-23 * 10001] * 2)


def test_atan_and_erf_never_leave_their_range():
    pre = Interval(torch.tensor([[-1e300]], dtype=torch.float64), torch.tensor([[1e300]], dtype=torch.float64))
    for op, most in ((torch.ops.aten.atan.default, math.pi / 2), (torch.ops.aten.erf.default, 1.0)):
        lower, upper = rule_for(op).ibp(pre)
        assert float(lower) == -most
        assert float(upper) == most
