"""The best mixture of two forms over a box."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, upper_over_box
from robnet_fx.algebra.mixture import corner, mixed, weight
from tests.soundness import draws

BATCH, ROWS, D = 3, 200, 5


def asked(seed: int = 1) -> tuple[Form, Form, Tensor, Tensor]:
    """Forms whose bounds are close, so that mixtures of all shares are best somewhere; some numbers are 0."""
    r = draws(seed)
    a, b = (Form(r(BATCH, ROWS, D), 0.5 * r(BATCH, ROWS)) for _ in range(2))
    a.coef[0, :20] = b.coef[0, :20]
    a.coef[:, :40:3, 1], b.coef[:, :40:2, 1], a.coef[:, :30, 3] = 0, 0, 0
    return a, b, 0.3 * r(BATCH, D), r(BATCH, D).abs()


def between(a: Form, b: Form, share: Tensor) -> Form:
    """The mixture with so much `[B, K]` of the first."""
    return Form(
        share.unsqueeze(2) * a.coef + (1 - share.unsqueeze(2)) * b.coef, share * a.const + (1 - share) * b.const
    )


def test_no_mixture_is_lower():
    a, b, center, radius = asked()
    w = weight(a, b, center, radius)
    least = upper_over_box(mixed(a, b, center, radius), center, radius)
    torch.testing.assert_close(least, upper_over_box(between(a, b, w), center, radius))
    grid = torch.stack(
        [upper_over_box(between(a, b, w.new_full(w.shape, t / 400)), center, radius) for t in range(401)]
    )
    assert bool((least <= grid + 1e-12).all())
    assert bool((w == 0).any()) and bool((w == 1).any()) and bool(((w > 0) & (w < 1)).any())
    torch.testing.assert_close(least, grid.amin(0), atol=0.02, rtol=0)  # of the grid's own coarseness


def test_a_mixture_lies_above_what_both_lie_above():
    a, b, center, radius = asked(2)
    got = mixed(a, b, center, radius)
    for seed in range(20):
        at = center + radius * (2 * torch.rand(BATCH, D, generator=torch.Generator().manual_seed(seed)).double() - 1)
        low, high = (pick(*((f.coef * at.unsqueeze(1)).sum(2) + f.const for f in (a, b))) for pick in BOTH)
        value = (got.coef * at.unsqueeze(1)).sum(2) + got.const
        assert bool((value >= low - 1e-12).all()) and bool((value <= high + 1e-12).all())


BOTH = (torch.minimum, torch.maximum)


def test_one_box_serves_all_samples_and_order_does_not_matter():
    a, b, center, radius = asked(3)
    one = center[:1], radius[:1]
    every = one[0].expand(BATCH, -1), one[1].expand(BATCH, -1)
    torch.testing.assert_close(mixed(a, b, *one), mixed(a, b, *every))
    torch.testing.assert_close(*(upper_over_box(mixed(*pair, *one), *one) for pair in ((a, b), (b, a))))


def test_a_form_that_is_no_number_is_not_taken():
    center, radius = torch.zeros(1, 2).double(), torch.ones(1, 2).double()
    nan, inf = torch.nan, torch.inf
    bad = [[nan, 0.0], [inf, 0.0], [1.0, -inf], [0.0, 1.0]]
    a = Form(torch.tensor([bad]).double(), torch.tensor([[0, 0, 0, inf]]).double())
    b = Form(torch.full((1, 4, 2), 2.0).double(), torch.ones(1, 4).double())
    for got in (mixed(a, b, center, radius), mixed(b, a, center, radius)):
        torch.testing.assert_close(got, b, rtol=0, atol=0)


def test_gradients_are_those_of_the_least_bound():
    r = draws(5)
    a, b = (Form(r(2, 6, 4), 0.1 * r(2, 6)) for _ in range(2))
    center, radius = r(2, 4), r(2, 4).abs() + 0.1
    shares = weight(a, b, center, radius)
    assert bool(((shares > 0) & (shares < 1)).any())

    def least(*parts: Tensor) -> Tensor:
        return upper_over_box(mixed(Form(*parts[:2]), Form(*parts[2:4]), *parts[4:]), *parts[4:])

    inputs = [part.clone().requires_grad_() for part in (*a, *b, center, radius)]
    assert torch.autograd.gradcheck(least, inputs)


def test_the_corner_is_where_a_form_is_highest():
    a, _, center, radius = asked(4)
    at = center.unsqueeze(1) + radius.unsqueeze(1) * corner(a)
    torch.testing.assert_close((a.coef * at).sum(2) + a.const, upper_over_box(a, center, radius))
