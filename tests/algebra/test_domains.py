"""The abstract values' own operations, against loops."""

from __future__ import annotations

import itertools

import torch

from robnet_fx.algebra import domains
from robnet_fx.algebra.domains import Form, Interval, Symbolic
from robnet_fx.testing import all_corners
from tests.soundness import draws

B, D, K, S = 2, 3, 4, (2, 3)


def symbolic(seed: int = 1) -> Symbolic:
    r = draws(seed)
    return Symbolic(r(B, D, *S), r(B, *S), r(B, *S).abs())


def form(seed: int = 2) -> Form:
    r = draws(seed)
    return Form(r(B, K, *S), r(B, K))


def test_fold_and_unfold_are_inverse_and_keep_the_batch_slow():
    x = draws(0)(B, D, *S)
    folded = domains.fold(x)
    assert folded.shape == (B * D, *S)
    assert torch.equal(folded[1 * D + 2], x[1, 2])
    assert torch.equal(domains.unfold(folded, x), x)


def test_contract_is_the_inner_product():
    f, x = form(), symbolic().const
    got = domains.contract(f.coef, x)
    for b, k in itertools.product(range(B), range(K)):
        torch.testing.assert_close(got[b, k], (f.coef[b, k] * x[b]).sum())
    torch.testing.assert_close(domains.contract(f.coef, x[:1])[1], (f.coef[1] * x[0]).sum((1, 2)))


def test_concretise_is_the_exact_reach():
    x = symbolic()
    got = domains.concretise(x)
    corners = torch.einsum("nd,bd...->nb...", all_corners(D), x.coef) + x.const
    torch.testing.assert_close(got.upper, (corners + x.slack).amax(0))
    torch.testing.assert_close(got.lower, (corners - x.slack).amin(0))


def test_intersect_takes_the_tighter_ends():
    a = Interval(torch.tensor([[0.0, -1.0, 2.0]]), torch.tensor([[3.0, 1.0, 5.0]]))
    b = Interval(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[2.0, 4.0, 9.0]]))
    got = domains.intersect(a, b)
    assert got.lower.tolist() == [[1.0, -1.0, 3.0]]
    assert got.upper.tolist() == [[2.0, 1.0, 5.0]]


def test_intersect_of_a_symbolic_value_is_that_of_its_interval():
    x = symbolic()
    whole = Interval(torch.full_like(x.const, -0.5), torch.full_like(x.const, 0.5))
    got, expected = domains.intersect(whole, x), domains.intersect(whole, domains.concretise(x))
    assert torch.equal(got.lower, expected.lower) and torch.equal(got.upper, expected.upper)


def test_intersect_orders_ends_that_rounding_crossed():
    a = Interval(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    b = Interval(torch.tensor([[1.0 + 1e-6]]), torch.tensor([[2.0]]))
    got = domains.intersect(a, b)
    assert float(got.lower) == 1.0
    assert float(got.upper) > 1.0


def test_narrowed_moves_an_interval_into_what_is_known():
    """An end that is no number is not known; an interval beside what is known becomes its nearer end."""
    nan = torch.nan
    own = Interval(torch.tensor([-1.0, -1.0, nan, 3.0, -4.0]), torch.tensor([1.0, 1.0, 1.0, 4.0, -3.0]))
    known = Interval(torch.tensor([nan, -0.5, 0.0, 1.0, 1.0]), torch.tensor([0.5, nan, 0.5, 2.0, 2.0]))
    got = domains.narrowed(own, {"x": known}, "x")
    torch.testing.assert_close(got.lower, torch.tensor([-1.0, -0.5, nan, 2.0, 1.0]), equal_nan=True)
    torch.testing.assert_close(got.upper, torch.tensor([0.5, 1.0, 0.5, 2.0, 1.0]))
    inf = torch.full((5,), torch.inf)
    for left in (Interval(-inf, inf), Interval(own.lower * nan, own.upper * nan)):
        assert_same(domains.narrowed(own, {"x": left}, "x"), own)
    assert bool((domains.narrowed(Interval(-inf, inf), {"x": Interval(-inf, -inf)}, "x").upper == -torch.inf).all())
    assert domains.narrowed(own, {"x": known}, "y") is own
    assert domains.narrowed(own, None, "x") is own


def assert_same(a: Interval, b: Interval) -> None:
    for ours, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_a_box_is_that_given_or_the_default_for_all():
    given, default = draws(5)(B, D), draws(6)(D)
    assert domains.or_default(given, default) is given
    assert torch.equal(domains.or_default(None, default), default.unsqueeze(0))


def test_upper_over_box_is_the_largest_value_at_a_corner():
    r = draws(7)
    g = Form(r(B, K, D), r(B, K))
    for boxes in (1, B):
        center, radius = r(boxes, D), r(boxes, D).abs()
        corners = center + radius * all_corners(D).unsqueeze(1)  # [N, 1 or B, D]
        values = torch.einsum("bkd,nbd->nbk", g.coef, corners.expand(-1, B, -1)) + g.const
        torch.testing.assert_close(domains.upper_over_box(g, center, radius), values.amax(0))


def test_merge_adds_what_came_along_two_paths():
    a, b = form(3), form(4)
    got = domains.merge(a, b)
    torch.testing.assert_close(got.coef, a.coef + b.coef)
    torch.testing.assert_close(got.const, a.const + b.const)


def test_upper_by_interval_is_the_exact_maximum():
    f = form()
    r = draws(5)
    middle, reach = r(B, *S), r(B, *S).abs()
    corners = all_corners(6).reshape(-1, 1, *S) * reach + middle
    expected = (torch.einsum("bk...,nb...->nbk...", f.coef, corners).flatten(3).sum(3) + f.const).amax(0)
    torch.testing.assert_close(domains.upper_by_interval(f, Interval(middle - reach, middle + reach)), expected)


def test_substitute_is_the_form_of_the_symbolic_value():
    f, x = form(), symbolic()
    got = domains.substitute(f, x)
    assert got.coef.shape == (B, D, K)
    for b, k in itertools.product(range(B), range(K)):
        for d in range(D):
            torch.testing.assert_close(got.coef[b, d, k], (f.coef[b, k] * x.coef[b, d]).sum())
        torch.testing.assert_close(got.const[b, k], (f.coef[b, k] * x.const[b]).sum() + f.const[b, k])
        torch.testing.assert_close(got.slack[b, k], (f.coef[b, k].abs() * x.slack[b]).sum())


def test_add_symbolic_adds_every_part():
    a, b = symbolic(6), symbolic(7)
    for got, x, y in zip(domains.add_symbolic(a, b), a, b, strict=True):
        torch.testing.assert_close(got, x + y)


def test_upper_by_symbolic_is_the_upper_end():
    x = symbolic()
    assert torch.equal(domains.upper_by_symbolic(x), domains.concretise(x).upper)


def test_both_sides_of_a_spec():
    spec = draws(8)(B, K, 3)
    rows = domains.two_sided(spec)
    assert torch.equal(rows[:, :K], spec)
    assert torch.equal(rows[:, K:], -spec)
    value = draws(9)(B, 3, 1)
    lower, upper = domains.split_sides((rows @ value).squeeze(2))
    torch.testing.assert_close(lower, (spec @ value).squeeze(2))
    torch.testing.assert_close(upper, (spec @ value).squeeze(2))
    lower, upper = domains.split_sides(torch.tensor([[2.0, 5.0, 1.0, -3.0]]))  # of two rows, then of their negatives
    assert lower.tolist() == [[-1.0, 3.0]]
    assert upper.tolist() == [[2.0, 5.0]]


def test_tighter_is_the_lower_upper_bound():
    assert domains.tighter(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])).tolist() == [1.0, 3.0]


def test_form_of_a_spec_has_no_constant():
    rows = draws(10)(B, K, *S)
    got = domains.form_of(rows)
    assert torch.equal(got.coef, rows)
    assert got.const.shape == (B, K)
    assert got.const.dtype == rows.dtype
    assert bool((got.const == 0).all())
