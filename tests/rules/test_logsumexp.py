"""Log-sum-exp: its interval is that of the ends, its band and lines hold everywhere, and nothing overflows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robnet_fx import BiasField
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from robnet_fx.testing import check_sound
from tests.rules.around import IMAGE, traced
from tests.rules.boxes import RADII, B, box, identity, points, position
from tests.soundness import Drawing, draws

aten = torch.ops.aten
RULE = rule_for(aten.logsumexp.default)
WIDTHS = pytest.mark.parametrize("radius", RADII)
SIZES = pytest.mark.parametrize("size", [1, 2, 30])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def lines(pre: Interval) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(slopes, offset) from below and from above, as RSIP uses them."""
    made = []
    for sign in (-1.0, 1.0):
        rows = torch.full((len(pre.lower), 1), sign, dtype=pre.lower.dtype)
        form = RULE.rsip(Form(rows, 0 * rows), InputShape(pre.lower.shape[1:]), [1], pre=pre)
        made += [sign * form.coef[:, 0], sign * form.const[:, 0]]
    return tuple(part.double() for part in made)


@SIZES
@WIDTHS
@DTYPES
@pytest.mark.parametrize("shift", [0.0, -1e4])
def test_nothing_leaves_the_bounds(size: int, radius: float, dtype: torch.dtype, shift: float):
    pre = Interval(*(end + shift for end in box(radius, size, dtype=dtype)))
    x = points(pre)
    values = x.logsumexp(-1)
    lower, upper = (end.double() for end in RULE.ibp(pre, [1]))
    assert bool((lower <= values.amin(0)).all() and (values.amax(0) <= upper).all())
    tiny = torch.finfo(dtype).eps * (1 + abs(shift) + 10 * radius)
    torch.testing.assert_close(lower, pre.lower.double().logsumexp(-1), rtol=0, atol=100 * tiny)
    torch.testing.assert_close(upper, pre.upper.double().logsumexp(-1), rtol=0, atol=100 * tiny)
    coef, const, slack = (part.double() for part in RULE.ssip(identity(pre), [1], pre=pre))
    gap = values - torch.einsum("nbd,bd->nb", position(pre, x), coef) - const
    assert bool((gap.abs() <= slack).all())
    below, low, above, high = lines(pre)
    noise = 4 * size * tiny
    assert bool((values >= (x * below).sum(-1) + low - noise).all())
    assert bool((values <= (x * above).sum(-1) + high + noise).all())


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("radius", [1e-3, 1e-2, 0.3, 1.0, 4.0])
def test_the_lines_are_the_two_tangents(size: int, radius: float):
    """At the centre: one is the value there, the other the logarithm of the sum of the chords."""
    pre = box(radius, size)
    centre, half = (pre.lower + pre.upper) / 2, (pre.upper - pre.lower) / 2
    below, low, above, high = lines(pre)
    torch.testing.assert_close((centre * below).sum(1) + low, centre.logsumexp(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(below, centre.softmax(1))
    chords = ((centre - half).exp() + (centre + half).exp()) / 2
    torch.testing.assert_close((centre * above).sum(1) + high, chords.sum(1).log(), rtol=0, atol=1e-12)
    steep = ((centre + half).exp() - (centre - half).exp()) / (2 * half)
    torch.testing.assert_close(above, steep / chords.sum(1, keepdim=True))
    coef, const, slack = RULE.ssip(identity(pre), [1], pre=pre)
    assert bool(((centre * above).sum(1) + high <= const + slack + 1e-12).all()), "closer than the band"
    level = RULE.ibp(pre, [1])
    bend = torch.minimum((centre.softmax(1) * (half.expm1() - half)).sum(1), half.amax(1) ** 2 / 2)
    line = bend < level.upper - level.lower
    torch.testing.assert_close(slack[line], bend[line] / 2, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(coef[line], (half * below)[line])
    torch.testing.assert_close(const[line], (centre.logsumexp(1) + bend / 2)[line])
    torch.testing.assert_close(slack[~line], (level.upper - level.lower)[~line] / 2)


def test_slack_in_front_is_carried_by_the_shares():
    pre, r = box(0.01, 4, 0.5), draws(3)
    coef, const, slack = r(B, 2, 4), r(B, 4), 1e-4 * r(B, 4).abs()
    got = RULE.ssip(Symbolic(coef, const, slack), [1], pre=pre)
    none = RULE.ssip(Symbolic(coef, const, 0 * slack), [1], pre=pre)
    share = ((pre.lower + pre.upper) / 2).softmax(1)
    torch.testing.assert_close(got.slack - none.slack, (share * slack).sum(1))
    torch.testing.assert_close(got.coef, (share.unsqueeze(1) * coef).sum(2))
    at_centre = RULE.ssip(identity(pre), [1], pre=pre).const
    torch.testing.assert_close(none.const - at_centre, (share * (const - (pre.lower + pre.upper) / 2)).sum(1))
    wide = RULE.ssip(Symbolic(coef, const, torch.ones_like(slack)), [1], pre=pre)
    level = RULE.ibp(pre, [1])
    assert not bool(wide.coef.any())
    torch.testing.assert_close(wide.const + wide.slack, level.upper)
    torch.testing.assert_close(wide.const - wide.slack, level.lower)


def test_ends_that_are_far_off_infinite_or_no_number():
    inf, most = math.inf, torch.finfo(torch.float32).max / 2
    rows = [
        ((0, 0), (inf, 0)),
        ((-inf, 0), (0, 0)),
        ((-most, 0), (most, 0)),
        ((-inf, -inf), (0, 0)),
        ((-1e37, 0), (-1e37, 1)),
    ]
    pre = Interval(*(torch.tensor(ends, dtype=torch.float32) for ends in zip(*rows, strict=True)))
    lower, upper = RULE.ibp(pre, [1])
    torch.testing.assert_close(lower, pre.lower.logsumexp(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(upper, pre.upper.logsumexp(1), rtol=1e-5, atol=1e-5)
    below, low, above, high = lines(pre)
    assert not bool(below[:4].any() or above[:4].any()), "constants"
    torch.testing.assert_close(low[1:3], lower[1:3].double())
    torch.testing.assert_close(high[1:3], upper[1:3].double())
    assert bool((high[0].isinf() | high[0].isnan()) & (low[3].isinf() | low[3].isnan()))
    assert float(below[4, 1]) == 1 and float(low[4].abs()) < 1e-5, "what is masked is not rounded with the others"
    nan = Interval(torch.tensor([[0.0, math.nan]]), torch.tensor([[1.0, math.nan]]))
    ones = torch.ones(1, 2)
    bounds = [*RULE.ibp(nan, [1]), RULE.ssip(Symbolic(ones.unsqueeze(1), ones, ones), [1], pre=nan).const]
    bounds += [lines(nan)[1], lines(nan)[3]]
    assert all(bool(bound.isnan().all()) for bound in bounds)


@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.1, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_gradients_are_finite(radius: float, spread: float):
    pre = Interval(*(end.requires_grad_() for end in box(radius, 5, spread)))
    x = Symbolic(*(part.detach().requires_grad_() for part in identity(box(radius, 5, spread))))
    rows = draws(5)(B, 3).requires_grad_()
    bounds = [
        *RULE.ibp(pre, [1]),
        *RULE.ssip(x, [1], pre=pre),
        *RULE.rsip(Form(rows, rows), InputShape((5,)), [1], pre=pre),
    ]
    grads = torch.autograd.grad(sum((bound * bound).sum() for bound in bounds), [*pre, *x, rows])
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_gradients_are_right():
    pre, x = box(0.3, 4, 1.0), identity(box(0.3, 4, 1.0))
    inputs = [part[:6].clone().requires_grad_() for part in (*pre, x.coef, x.const, x.slack + 1e-4)]

    def bounds(lower: Tensor, upper: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        known = Interval(lower, upper)
        form = RULE.rsip(Form(parts[0][..., 0] + 0.3, parts[1]), InputShape((4,)), [1], pre=known)
        return (*RULE.ibp(known, [1]), *RULE.ssip(Symbolic(*parts), [1], pre=known), *form)

    assert torch.autograd.gradcheck(bounds, inputs)


@pytest.mark.parametrize("axes", [[1], [2], [-1], [1, 2], [-2, 3]])
@pytest.mark.parametrize("keepdim", [False, True])
def test_over_axes_it_is_that_of_their_numbers(axes: list[int], keepdim: bool):
    r = draws(6)
    centre, half = r(5, 2, 3, 4), 0.1 * r(5, 2, 3, 4).abs()
    pre, x = Interval(centre - half, centre + half), Symbolic(r(5, 6, 2, 3, 4), centre, 0.01 * half)
    gone = sorted(axis % 4 for axis in axes)
    kept = [axis for axis in (1, 2, 3) if axis not in gone]

    def flat(value: Tensor, more: int = 0) -> Tensor:
        """The kept axes one with the batch, the others last; D or K in between."""
        order = [0, *(axis + more for axis in kept), *[1] * more, *(axis + more for axis in gone)]
        value = value.permute(order).flatten(1 + len(kept) + more)
        return value.flatten(0, len(kept))

    flat_pre = Interval(*map(flat, pre))
    flat_x = Symbolic(flat(x.coef, 1), flat(x.const), flat(x.slack))
    shape = [1 if axis in gone else centre.shape[axis] for axis in (1, 2, 3) if keepdim or axis not in gone]
    for got, expected in zip(RULE.ibp(pre, axes, keepdim), RULE.ibp(flat_pre, [1]), strict=True):
        torch.testing.assert_close(got, expected.reshape(5, *shape))
    got, expected = RULE.ssip(x, axes, keepdim, pre=pre), RULE.ssip(flat_x, [1], pre=flat_pre)
    torch.testing.assert_close(got.const, expected.const.reshape(5, *shape))
    torch.testing.assert_close(got.slack, expected.slack.reshape(5, *shape))
    torch.testing.assert_close(got.coef.movedim(1, -1).reshape(-1, 6), expected.coef)
    rows = r(5, 7, *shape)
    form = RULE.rsip(Form(rows, rows.new_zeros(5, 7)), InputShape((2, 3, 4)), axes, keepdim, pre=pre)
    columns = rows.movedim(1, -1).reshape(-1, 7)
    alone = RULE.rsip(Form(columns, 0 * columns), InputShape(flat_pre.lower.shape[1:]), [1], pre=flat_pre)
    torch.testing.assert_close(flat(form.coef, 1), alone.coef)
    torch.testing.assert_close(form.const, alone.const.reshape(5, -1, 7).sum(1))


FUNCTIONS = {
    "pooled": lambda m, x: (10 * x).logsumexp((2, 3))[..., None, None] / 10 + x,
    "hot": lambda m, x: (20 * x + 900).logsumexp(1, keepdim=True) - 900 + x,
    "log_softmax": lambda m, x: x * x.log_softmax(1),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_coefficient_leaves_a_bound(name: str):
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    nets = check_sound(traced(FUNCTIONS[name]), BiasField(1, 0.1, additive=True), images, climbs=1)
    assert all(bool(net.margins(images, torch.tensor([0, 1]))[:, 2].isfinite().all()) for net in nets.values())


def test_along_the_batch_it_is_refused():
    drawing = Drawing(3)
    value = drawing(aten.logsumexp.default, drawing.x, [1], True)
    graph = drawing.logits(value, draws(0))
    next(node for node in graph.graph.nodes if node.target is aten.logsumexp.default).args = (drawing.x, [0], True)
    with pytest.raises(NotImplementedError, match="along the batch axis"):
        check_sound(graph, BiasField(0, 0.1), torch.rand(2, 3).double(), climbs=0)
