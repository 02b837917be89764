"""Softmax: its interval is the corners', its slopes those at the centre, and its band what two sigmoids leave."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robnet_fx import BiasField
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from robnet_fx.testing import check_sound
from tests.rules.around import IMAGE, names, traced
from tests.rules.boxes import RADII, B, box, identity, points, position
from tests.soundness import Drawing, draws

aten = torch.ops.aten
RULE = rule_for(aten.softmax.int)
WIDTHS = pytest.mark.parametrize("radius", RADII)
SIZES = pytest.mark.parametrize("size", [2, 3, 6, 30])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


@SIZES
@WIDTHS
@DTYPES
def test_the_interval_is_that_of_the_corners(size: int, radius: float, dtype: torch.dtype):
    pre = box(radius, size, dtype=dtype)
    lower, upper = (end.double() for end in RULE.ibp(pre, 1))
    values = points(pre).softmax(-1)
    assert bool((lower <= values.amin(0)).all() and (values.amax(0) <= upper).all())
    kind = torch.finfo(dtype)
    close = {"rtol": 1e4 * kind.eps, "atol": 10 * kind.tiny}
    torch.testing.assert_close(lower, values.amin(0), **close)
    torch.testing.assert_close(upper, values.amax(0), **close)
    assert bool((lower >= 0).all() and (upper <= 1).all())


def test_one_logit_above_all_others_loses_nothing():
    """What is left of the sum beside it is found without it, down to where numbers end."""
    ends = torch.tensor([[[50.0, 0.0, -1.0, -600.0]], [[51.0, 0.5, -1.0, -550.0]]]).double()
    pre = Interval(*ends)
    lower, upper = RULE.ibp(pre, -1)
    torch.testing.assert_close(lower[0, 1:], pre.lower[0, 1:].exp() / math.exp(51), rtol=1e-11, atol=0)
    torch.testing.assert_close(upper[0, 1:], pre.upper[0, 1:].exp() / math.exp(50), rtol=1e-11, atol=0)
    assert float(lower[0, 0]) <= 1 / (1 + 2 * math.exp(-50)) <= float(upper[0, 0])


@DTYPES
def test_ends_that_are_far_off_or_infinite(dtype: torch.dtype):
    most, inf = torch.finfo(dtype).max, math.inf
    rows = [
        ((-inf, -inf, -inf), (inf, inf, inf), (0, 0, 0), (1, 1, 1)),
        ((-most, -most, 0), (most, most, 0), (0, 0, 0), (1, 1, 1)),
        ((-inf, 0, 0), (0, 0, 0), (0, 1 / 3, 1 / 3), (1 / 3, 1 / 2, 1 / 2)),
        ((0, 0, 0), (inf, 0, 0), (1 / 3, 0, 0), (1, 1 / 3, 1 / 3)),
        ((0, -inf, -inf), (1, 0, 0), (1 / 3, 0, 0), (1, 1 / 2, 1 / 2)),
        ((0, 1e4, -1e4), (1, 1e4, -1e4), (0, 1, 0), (0, 1, 0)),
    ]
    ends = [torch.tensor(column, dtype=dtype) for column in zip(*rows, strict=True)]
    pre = Interval(ends[0], ends[1])
    lower, upper = RULE.ibp(pre, 1)
    close = {"rtol": 1e-5, "atol": 1e-30}
    torch.testing.assert_close(lower, ends[2], **close)
    torch.testing.assert_close(upper, ends[3], **close)
    # What comes from in front is not a number either: none of it is left.
    nothing = Symbolic(torch.full((6, 2, 3), inf).to(dtype), torch.full((6, 3), math.nan).to(dtype), ends[1] * 0 + inf)
    coef, const, slack = RULE.ssip(nothing, 1, pre=pre)
    assert not bool(coef.any())
    torch.testing.assert_close(const - slack, lower, **close)
    torch.testing.assert_close(const + slack, upper, **close)
    form = RULE.rsip(
        Form(torch.eye(3).expand(6, 3, 3).to(dtype), ends[0].new_zeros(6, 3)), InputShape((3,)), 1, pre=pre
    )
    assert bool(form.coef.isfinite().all())
    assert not bool(form.coef[:5].any())  # of logits that far apart in the last one a line may do
    torch.testing.assert_close(form.const[:5], upper[:5], **close)


def test_what_is_not_a_number_stays_so():
    pre = Interval(torch.tensor([[0.0, math.nan, 1.0]]), torch.tensor([[1.0, math.nan, 1.0]]))
    ones = torch.ones(1, 3)
    bounds = [*RULE.ibp(pre, 1), *RULE.ssip(Symbolic(ones.unsqueeze(1), ones, ones), 1, pre=pre)[1:]]
    bounds.append(RULE.rsip(Form(ones.unsqueeze(1), ones[:, :1]), InputShape((3,)), 1, pre=pre).const)
    assert all(bool(bound.isnan().all()) for bound in bounds)


def test_a_single_logit_has_all():
    pre = Interval(torch.tensor([[-3.0]]), torch.tensor([[4.0]]))
    lower, upper = RULE.ibp(pre, 1)
    _, const, slack = RULE.ssip(identity(pre), 1, pre=pre)
    torch.testing.assert_close(torch.cat([lower, upper, const, slack]).flatten(), torch.tensor([1.0, 1.0, 1.0, 0.0]))


@SIZES
@WIDTHS
@DTYPES
@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_no_point_of_the_box_leaves_the_band(size: int, radius: float, dtype: torch.dtype, spread: float):
    pre = box(radius, size, spread, dtype)
    x = points(pre)
    values = x.softmax(-1)
    coef, const, slack = (part.double() for part in RULE.ssip(identity(pre), 1, pre=pre))
    gap = values - torch.einsum("nbd,bd...->nb...", position(pre, x), coef) - const
    tiny = torch.finfo(dtype).eps
    assert bool((gap.abs() <= slack + tiny).all())
    rows = draws(2)(B, 5, size)
    form = RULE.rsip(Form(rows.to(dtype), torch.ones(B, 5, dtype=dtype)), InputShape((size,)), 1, pre=pre)
    above = torch.einsum("nbs,bks->nbk", x, form.coef.double()) + form.const.double()
    reached = torch.einsum("nbs,bks->nbk", values, rows.to(dtype).double()) + 1
    noise = tiny * (1 + rows.abs().sum(2)) * (1 + torch.maximum(-pre.lower, pre.upper).double().amax(1, keepdim=True))
    assert bool((reached <= above + noise).all())


@pytest.mark.parametrize("shift", [-1e4, 1e4])
@pytest.mark.parametrize("radius", [1e-2, 0.3])
def test_logits_far_from_zero_are_rounded_by_their_size(shift: float, radius: float):
    pre = Interval(*(end + shift for end in box(radius, 6, dtype=torch.float32)))
    x = points(pre)
    coef, const, slack = (part.double() for part in RULE.ssip(identity(pre), 1, pre=pre))
    gap = x.softmax(-1) - torch.einsum("nbd,bd...->nb...", position(pre, x), coef) - const
    assert bool((gap.abs() <= slack).all())
    assert bool(coef.any(1).any(1).all())  # none of them by a constant alone


def reference(pre: Interval, batch: int, i: int) -> tuple[float, float]:
    """(middle, radius) of the band about the tangent at the centre: number by number, by looking along the curves."""
    lower, upper = (end[batch].tolist() for end in pre)
    c = [(first + last) / 2 for first, last in zip(lower, upper, strict=True)]
    r = [(last - first) / 2 for first, last in zip(lower, upper, strict=True)]
    others = [j for j in range(len(c)) if j != i]
    total = sum(math.exp(c[j]) for j in others)
    shares = {j: math.exp(c[j]) / total for j in others}
    z, slope = c[i] - math.log(total), math.exp(c[i]) * total / (math.exp(c[i]) + total) ** 2
    reach = r[i] + sum(shares[j] * r[j] for j in others)
    bend = min(max(r) ** 2 / 2, sum(shares[j] * (math.exp(r[j]) - 1 - r[j]) for j in others))
    interval = RULE.ibp(pre, 1)
    least, most = float(interval.lower[batch, i]), float(interval.upper[batch, i])
    line = torch.linspace(-reach, reach, 100001, dtype=torch.float64)
    highest = ((z + line).sigmoid().clamp(max=most) - slope * line).max()
    lowest = ((z + line - bend).sigmoid().clamp(min=least) - slope * line).min()
    return float(highest + lowest) / 2, float(highest - lowest) / 2


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("radius", [0.03, 0.3, 1.0])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_band_is_what_two_sigmoids_leave(size: int, radius: float, spread: float):
    pre = box(radius, size, spread)
    level = RULE.ibp(pre, 1)
    line = RULE.ssip(identity(pre), 1, pre=pre)
    taken = 0
    for batch, i in itertools.product(range(B), range(size)):
        middle, reach = reference(pre, batch, i)
        half = float(level.upper[batch, i] - level.lower[batch, i]) / 2
        if reach < 0.999 * half:  # at the centre the line has the height of the band's middle
            taken += 1
            torch.testing.assert_close(float(line.const[batch, i]), middle, rtol=0, atol=1e-4 * reach + 1e-14)
            torch.testing.assert_close(float(line.slack[batch, i]), reach, rtol=1e-4, atol=1e-14)
        elif reach > 1.001 * half:
            assert not bool(line.coef[batch, :, i].any())
            torch.testing.assert_close(line.const[batch, i], (level.upper + level.lower)[batch, i] / 2)
            torch.testing.assert_close(float(line.slack[batch, i]), half)
    assert taken > 0.5 * B


def jacobian(pre: Interval) -> Tensor:
    share = ((pre.lower + pre.upper) / 2).softmax(-1)
    return torch.diag_embed(share) - share.unsqueeze(-1) * share.unsqueeze(-2)


@SIZES
def test_the_slopes_are_those_at_the_centre_and_the_error_is_of_second_order(size: int):
    slacks = []
    for radius in (1e-2, 1e-3):
        pre = box(radius, size)
        x = identity(pre)
        got = RULE.ssip(x, 1, pre=pre)
        torch.testing.assert_close(got.coef, x.coef @ jacobian(pre), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got.const, x.const.softmax(-1), rtol=0, atol=radius**2)
        rows = draws(4)(B, 3, size)
        form = RULE.rsip(Form(rows, torch.zeros(B, 3).double()), InputShape((size,)), 1, pre=pre)
        torch.testing.assert_close(form.coef, rows @ jacobian(pre), rtol=1e-9, atol=1e-12)
        at_centre = (form.coef @ x.const.unsqueeze(2) + form.const.unsqueeze(2)).squeeze(2)
        middle = (rows @ got.const.unsqueeze(2)).squeeze(2) + (rows.abs() @ got.slack.unsqueeze(2)).squeeze(2)
        torch.testing.assert_close(at_centre, middle)
        slacks.append(got.slack)
    assert bool((slacks[0] > 90 * slacks[1]).all() and (slacks[0] < 110 * slacks[1] + 1e-10).all())


def test_slack_in_front_is_carried_by_the_absolute_slopes():
    pre, r = box(0.01, 4, 0.5), draws(3)
    coef, const, slack = r(B, 2, 4), r(B, 4), 1e-4 * r(B, 4).abs()
    got = RULE.ssip(Symbolic(coef, const, slack), 1, pre=pre)
    none = RULE.ssip(Symbolic(coef, const, 0 * slack), 1, pre=pre)
    torch.testing.assert_close(got.slack - none.slack, (slack.unsqueeze(1) @ jacobian(pre).abs()).squeeze(1))
    torch.testing.assert_close(got.coef, coef @ jacobian(pre))
    at_centre = none.const + ((pre.lower + pre.upper) / 2 - const).unsqueeze(1).matmul(jacobian(pre)).squeeze(1)
    torch.testing.assert_close(at_centre, RULE.ssip(identity(pre), 1, pre=pre).const)


def test_a_constant_where_slack_alone_is_wider():
    pre = box(0.01, 4, 0.5)
    level = RULE.ibp(pre, 1)
    x = identity(pre)
    coef, const, slack = RULE.ssip(Symbolic(x.coef, x.const, torch.ones_like(x.const)), 1, pre=pre)
    assert not bool(coef.any())
    torch.testing.assert_close(const - slack, level.lower)
    torch.testing.assert_close(const + slack, level.upper)


@SIZES
def test_a_point_is_exact(size: int):
    pre = box(0.0, size)
    value = pre.lower.softmax(-1)
    ones = torch.ones(B, 1, size).double()
    lower, upper = RULE.ibp(pre, 1)
    _, const, slack = RULE.ssip(identity(pre), 1, pre=pre)
    form = RULE.rsip(Form(ones, ones[:, :, 0]), InputShape((size,)), 1, pre=pre)
    total = (form.coef * pre.lower.unsqueeze(1)).sum(2) + form.const
    for bound in (lower, upper, const - slack, const + slack):
        torch.testing.assert_close(bound, value, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(total, 2 * ones[:, :, 0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.1, 1.0, 20.0, 1e4, 1e300])
@pytest.mark.parametrize("spread", [1.0, 1e3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradients_are_finite(radius: float, spread: float, size: int):
    pre = Interval(*(end.requires_grad_() for end in box(radius, size, spread)))
    x = Symbolic(*(part.detach().requires_grad_() for part in identity(box(min(radius, 1e4), size, spread))))
    rows = draws(5)(B, 3, size).requires_grad_()
    bounds = [*RULE.ibp(pre, 1), *RULE.ssip(x, 1, pre=pre)]
    bounds += RULE.rsip(Form(rows, rows[..., 0]), InputShape((size,)), 1, pre=pre)
    grads = torch.autograd.grad(sum((bound * bound).sum() for bound in bounds), [*pre, *x, rows])
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_gradients_are_finite_where_hardly_anything_is_left_to_the_others():
    """One sample for each distance, across the one where float32's numbers end."""
    others = torch.linspace(-120, -60, 601).unsqueeze(1)
    ends = torch.cat([0 * others, others, others - 2], 1) + torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)
    pre = Interval(*ends.requires_grad_())
    (grad,) = torch.autograd.grad(sum(part.sum() for part in RULE.ssip(identity(pre), 1, pre=pre)), ends)
    assert bool(grad.isfinite().all())


def test_gradients_are_right():
    pre, x = box(0.3, 4, 1.0), identity(box(0.3, 4, 1.0))
    inputs = [part[:6].clone().requires_grad_() for part in (*pre, x.coef, x.const, x.slack + 1e-4)]

    def bounds(lower: Tensor, upper: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        known = Interval(lower, upper)
        form = RULE.rsip(Form(parts[0], parts[1]), InputShape((4,)), 1, pre=known)
        return (*RULE.ibp(known, 1), *RULE.ssip(Symbolic(*parts), 1, pre=known), *form)

    assert torch.autograd.gradcheck(bounds, inputs)


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
@pytest.mark.parametrize("op", [aten.softmax.int, aten._softmax.default])
def test_the_axis_is_the_value_s_own(axis: int, op):
    """`[B, 3, 4]` as `[B, 3]` or `[B, 4]` many times over."""
    r = draws(6)
    centre, half = r(5, 3, 4), 0.1 * r(5, 3, 4).abs()
    pre, x = Interval(centre - half, centre + half), Symbolic(r(5, 2, 3, 4), r(5, 3, 4), 0.01 * r(5, 3, 4).abs())
    form = Form(r(5, 7, 3, 4), r(5, 7))
    last = axis in (2, -1)

    def lines(value: Tensor) -> Tensor:
        """The axis last, all others one with the batch; D or K in between."""
        value = value if last else value.transpose(-1, -2)
        return value.movedim(1, -2).flatten(0, -3) if value.dim() == 4 else value.flatten(0, 1)

    rule, extra = rule_for(op), () if op is aten.softmax.int else (False,)
    flat = Interval(*map(lines, pre))
    for got, expected in zip(rule.ibp(pre, axis, *extra), RULE.ibp(flat, 1), strict=True):
        torch.testing.assert_close(lines(got), expected)
    for got, expected in zip(
        rule.ssip(x, axis, *extra, pre=pre), RULE.ssip(Symbolic(*map(lines, x)), 1, pre=flat), strict=True
    ):
        torch.testing.assert_close(lines(got), expected)
    got = rule.rsip(form, InputShape((3, 4)), axis, *extra, pre=pre)
    rows = lines(form.coef)
    expected = RULE.rsip(Form(rows, torch.zeros(rows.shape[:2]).double()), InputShape(rows.shape[2:]), 1, pre=flat)
    torch.testing.assert_close(lines(got.coef), expected.coef)
    torch.testing.assert_close(got.const - form.const, expected.const.reshape(5, -1, 7).sum(1))


FUNCTIONS = {
    "channels": lambda m, x: F.softmax(x, 1) + F.softmax(3 * x, -1),
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x.flip(1), x.roll(1, 2), scale=2.0),
    "sharp": lambda m, x: F.softmax(30 * x, 2) * x,
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("eps", [0.01, 0.5])
def test_no_coefficient_leaves_a_bound(name: str, eps: float):
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    check_sound(traced(FUNCTIONS[name]), BiasField(1, eps, additive=True), images, climbs=1)


def test_it_is_not_written_out():
    graph = traced(FUNCTIONS["attention"])
    net = check_sound(graph, BiasField(0, 0.01), torch.rand(1, *IMAGE).double(), methods=("ibp",), climbs=0)["ibp"]
    assert [name for name in names(net.clean) if name in ("softmax", "exp")] == ["softmax"]


def test_along_the_batch_it_is_refused():
    drawing = Drawing(3)
    graph = drawing.logits(drawing(aten.softmax.int, drawing.x, 0), draws(0))
    with pytest.raises(NotImplementedError, match="along the batch axis"):
        check_sound(graph, BiasField(0, 0.1), torch.rand(2, 3).double(), climbs=0)
