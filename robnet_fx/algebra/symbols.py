"""Error symbols: what relaxations leave open, unit by unit, as more variables of the unit box.

The columns of a symbolic value are its D coefficients and behind them one for each error symbol that is born so far:
`coef [B, D + E, *S]`. Every rule treats them alike, so an error passes through the weights, not through their absolute
values, and cancels where paths meet. A symbol has one column in the whole graph, each sample its own; a value is 0 in
the columns that were in use when it was made and have nothing to do with it, and ends where later ones begin. So values
are aligned by filling up the shorter one.

Source: affine arithmetic; with every error kept the values are zonotopes (Singh et al. 2018, DeepZ).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic


class Born(NamedTuple):
    """A value whose errors have become symbols, and how many columns of each sample are in use by now, `used [B]`."""

    value: Symbolic
    used: Tensor


def in_use(x: Symbolic) -> Tensor:
    """`[B]`: the columns in use before any symbol is born, all that a value has then, D."""
    return torch.full(x.const.shape[:1], x.coef.shape[1], device=x.const.device)


def born(x: Symbolic, used: Tensor, most: int) -> Born:
    """The slack of units as symbols, the largest first, until a sample has `most` columns in use.

    Whatever its slack came from, a unit is `slack * t` off the rest of its form, for some t in [-1, 1]; t is the
    symbol. A slack that is not finite stays what it is.
    """
    slack = kernels.flat(x.slack, 1)
    error = torch.where(slack.isfinite(), slack, 0.0)
    count = torch.minimum((error > 0).sum(1), most - used)
    if kernels.traced():  # no size may depend on numbers
        columns, room = most, min(error.shape[1], most)
    else:
        columns, room = max(int((used + count).max()), x.coef.shape[1]), int(count.max())
    if not room:
        return Born(Symbolic(widened(x.coef, columns), x.const, x.slack), used)
    size, unit = error.topk(room, 1)
    rank = torch.arange(room, device=used.device)
    new = rank < count.unsqueeze(1)
    place = torch.where(new, used.unsqueeze(1) + rank, 0)
    coef = put(x.coef, columns, place, unit, torch.where(new, size, 0.0))
    left = slack.scatter(1, unit, torch.where(new, 0.0, slack.gather(1, unit)))
    return Born(Symbolic(coef, x.const, left.reshape(x.slack.shape)), used + count)


def padded(x: Symbolic, like: Symbolic) -> Symbolic:
    """A value with as many columns as a later one has."""
    return Symbolic(widened(x.coef, like.coef.shape[1]), x.const, x.slack)


def widened(coef: Tensor, columns: int) -> Tensor:
    """`[B, N, *S] -> [B, columns, *S]`, zeros behind the N, in the same order of memory."""
    if coef.shape[1] == columns:
        return coef
    order = kernels.as_stored(coef)
    return _unordered(_longer(coef.permute(order), columns), order)


def put(coef: Tensor, columns: int, place: Tensor, unit: Tensor, size: Tensor) -> Tensor:
    """`widened`, and of each sample `size` added in its column `place` at number `unit` of S; all three `[B, M]`.

    One pass: the numbers go into the copy that widening makes, which autograd allows where that is no view.
    """
    order = kernels.as_stored(coef)
    made = _longer(coef.permute(order), columns)
    sample = torch.arange(place.shape[0], device=place.device).unsqueeze(1)
    axes = torch.unravel_index(unit, coef.shape[2:])
    made.index_put_((sample, place, *(axes[axis - 2] for axis in order[2:])), size, accumulate=True)
    return _unordered(made, order)


def _longer(stored: Tensor, columns: int) -> Tensor:
    """A copy with zeros behind, for which no memory is filled twice."""
    nothing = stored.new_zeros(()).expand(stored.shape[0], columns - stored.shape[1], *stored.shape[2:])
    return torch.cat([stored, nothing], 1)


def _unordered(stored: Tensor, order: list[int]) -> Tensor:
    """Undo `permute(order)`."""
    return stored.permute([order.index(axis) for axis in range(len(order))])
