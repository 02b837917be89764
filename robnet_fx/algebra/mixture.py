"""Two forms that lie above the same rows: every mixture of them does too, and one of these is lowest over the box.

Over the box a mixture `w a + (1 - w) b`, w in [0, 1], is at most `const + g . center + |g| . radius` of itself. That is
convex in w and linear between the places where a coefficient of g changes its sign. So the least value lies at 0, at 1,
or at the first of these places from which on it rises.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, contract, upper_over_box


def mixed(a: Form, b: Form, center: Tensor, radius: Tensor) -> Form:
    """Of all mixtures of two forms of the same rows over the coefficients, row by row the one with the lowest bound
    over the box; of a form whose bound is no number nothing is taken. Differentiable."""
    first, second = (upper_over_box(form, center, radius) for form in (a, b))
    better = ((first <= second) | second.isnan()).to(first.dtype)
    w = torch.where(first.isfinite() & second.isfinite(), weight(a, b, center, radius), better)
    return Form(_between(a.coef, b.coef, w.unsqueeze(2)), _between(a.const, b.const, w))


def _between(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """`w a + (1 - w) b`, where nothing is taken of either one also if that is no number."""
    return torch.where(w == 1, a, torch.where(w == 0, b, w * a + (1 - w) * b))


def weight(a: Form, b: Form, center: Tensor, radius: Tensor) -> Tensor:
    """`[B, K]`: how much of `a` the best mixture has."""
    gap = a.coef - b.coef
    turn, start = gap * radius.unsqueeze(1), b.coef * radius.unsqueeze(1)
    moves = turn != 0
    places = torch.where(moves, -start / torch.where(moves, turn, 1.0), 2.0)  # where a coefficient is 0
    places, order = places.sort(2)
    inside = (places > 0) & (places < 1)
    gains = torch.where(inside, 2 * turn.abs().gather(2, order), 0.0)
    middle = contract(gap, center) + a.const - b.const
    slope = middle + torch.where(start != 0, start.sign() * turn, turn.abs()).sum(2)  # just behind w = 0
    after = (slope.unsqueeze(2) + gains.cumsum(2)) >= 0
    place = places.gather(2, after.to(places.dtype).argmax(2, keepdim=True)).squeeze(2)
    return torch.where(slope >= 0, 0.0, torch.where(after.any(2), place, 1.0))


def corner(form: Form) -> Tensor:
    """`[B, K, D]`: the corner of the coefficients' box, in units of t, where a form is highest."""
    return form.coef.detach().sign()
