"""Error symbols: what relaxations leave open, unit by unit, as more variables of the unit box.

The columns of a symbolic value are its D coefficients and behind them one for each error symbol that is kept so far:
`coef [B, D + E, *S]`. Every rule treats them alike, so an error passes through the weights, not through their absolute
values, and cancels where paths meet. A symbol has one column in the whole graph, each sample its own; a value is 0 in
the columns that have nothing to do with it, and ends where later ones begin. So values are aligned by filling up the
shorter ones.

Where a sample has no column left, the symbols that matter least become slack again and new errors get their columns.
No column may stand for two symbols in values that still meet, so a symbol that goes leaves every value that is read
later.

Source: affine arithmetic; with every error kept the values are zonotopes (Singh et al. 2018, DeepZ), and what makes way
is replaced by its box, as where the order of a zonotope is reduced (Girard 2005).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic


class Born(NamedTuple):
    """A value whose errors have become symbols, how many columns of each sample are in use by now, `used [B]`, and the
    other values that are read later, which may have lost symbols to slack."""

    value: Symbolic
    used: Tensor
    live: tuple[Symbolic, ...]


def in_use(x: Symbolic) -> Tensor:
    """`[B]`: the columns in use before any symbol is born, all that a value has then, D."""
    return torch.full(x.const.shape[:1], x.coef.shape[1], device=x.const.device)


def born(x: Symbolic, used: Tensor, most: int, dimensions: int, live: tuple[Symbolic, ...] = ()) -> Born:
    """The slack of units as symbols, in at most `most` columns of a sample, the first `dimensions` being coefficients.

    Whatever its slack came from, a unit is `slack * t` off the rest of its form, for some t in [-1, 1]; t is the
    symbol. A slack that is not finite stays what it is. `live` are the other values that are read later. While there is
    room for all, symbols take the columns from `used` on, the largest first; where there is not, see `exchanged`, and
    all columns are in use.
    """
    error = _errors(x)
    if kernels.traced():  # no size may depend on numbers
        return exchanged(x, error, most, dimensions, live)
    count = (error > 0).sum(1)
    if max((used + count).tolist(), default=0) > most:
        return exchanged(x, error, max(most, int(used.max())), dimensions, live)
    return _all_born(x, error, count, used, live)


def born_or_none(x: Symbolic, used: Tensor, most: int, dimensions: int, live: tuple[Symbolic, ...] = ()) -> Born:
    """`born`, but a sample that lacks room for an error loses all its symbols, and gets no others: more columns are in
    use than there are. From there on it costs what no symbols do."""
    error = _errors(x)
    count = (error > 0).sum(1)
    out = used + count > most
    if not bool(out.any()):
        return _all_born(x, error, count, used, live)
    used, count = torch.where(out, dimensions, used), torch.where(out, 0, count)
    x, *rest = (_without_any(value, out, dimensions, max(used.tolist())) for value in (x, *live))
    made = _all_born(x, error, count, used, tuple(rest))
    return made._replace(used=torch.where(out, most + 1, made.used))


def _errors(x: Symbolic) -> Tensor:
    """The slack `[B, numbers of S]` that may become symbols."""
    slack = kernels.flat(x.slack, 1)
    return torch.where(slack.isfinite(), slack, 0.0)


def _all_born(x: Symbolic, error: Tensor, count: Tensor, used: Tensor, live: tuple[Symbolic, ...]) -> Born:
    """The `count [B]` largest errors of each sample as symbols, in the columns from `used` on."""
    if not (room := max(count.tolist(), default=0)):
        return Born(x, used, live)
    size, unit = error.topk(room, 1)
    rank = torch.arange(room, device=used.device)
    new = rank < count.unsqueeze(1)
    columns = max([x.coef.shape[1], *(used + count).tolist()])
    x = _placed(_taken(x, unit, new), columns, size, unit, used.unsqueeze(1) + rank, new)
    return Born(x, used + count, live)


def exchanged(x: Symbolic, error: Tensor, most: int, dimensions: int, live: tuple[Symbolic, ...]) -> Born:
    """The largest errors `[B, numbers of S]` in the columns of the symbols that matter least, while they matter more.

    A symbol matters as much as it would add to slack, the sum of its |column| in all values together: a column that is
    free, or that no value needs any more, does not matter. Columns that change are those of the symbols that are born.
    """
    room = min(most - dimensions, error.shape[1])
    with torch.no_grad():
        weights = [_weight(value.coef, most)[:, dimensions:] for value in (x, *live)]
        least, place = torch.stack(weights).sum(0).topk(room, 1, largest=False)
    size, unit = error.topk(room, 1)
    new = size > least  # the largest error against the least symbol and so on: true up to some rank
    if not kernels.traced():
        room = int(new.sum(1).max())
    size, unit, place, new = size[:, :room], unit[:, :room], place[:, :room] + dimensions, new[:, :room]
    x, *rest = (_without(value, place, new) for value in (_taken(x, unit, new), *live))
    used = torch.full(error.shape[:1], most, device=error.device)
    return Born(_placed(x, most, size, unit, place, new), used, tuple(rest))


def _weight(coef: Tensor, most: int) -> Tensor:
    """`[B, N, *S] -> [B, most]`: the sum of each |column|, 0 for those that a value does not have yet."""
    stored = kernels.flat(coef.permute(kernels.as_stored(coef)), 2)
    return torch.nn.functional.pad(torch.linalg.vector_norm(stored, 1, 2), (0, most - coef.shape[1]))


def _without(x: Symbolic, place: Tensor, gone: Tensor) -> Symbolic:
    """A value whose columns at `place [B, R]` are slack where they are `gone`, in the same order of memory."""
    order = kernels.as_stored(x.coef)
    stored = x.coef.permute(order)
    gone = (gone & (place < stored.shape[1])).reshape(*gone.shape, *[1] * (stored.dim() - 2))
    index = place.clamp(max=stored.shape[1] - 1).reshape(gone.shape).expand(*place.shape, *stored.shape[2:])
    lost = torch.where(gone, stored.gather(1, index), 0.0)
    left = stored.scatter_add(1, index, -lost)
    return Symbolic(kernels.unordered(left, order), x.const, x.slack + kernels.unordered(lost, order).abs().sum(1))


def _without_any(x: Symbolic, out: Tensor, dimensions: int, columns: int) -> Symbolic:
    """A value of which the samples that are `out [B]` have no symbol, with at most so many columns."""
    symbols = x.coef[:, dimensions:]
    if not symbols.shape[1]:
        return x
    gone = out.reshape(-1, *[1] * (x.const.dim() - 1))
    slack = x.slack + torch.where(gone, symbols.abs().sum(1), 0.0)
    kept = torch.arange(x.coef.shape[1], device=out.device) < dimensions
    kept = (kept | ~out.unsqueeze(1))[:, :columns].reshape(len(out), -1, *[1] * (x.const.dim() - 1))
    return Symbolic(torch.where(kept, x.coef[:, :columns], 0.0), x.const, slack)


def _taken(x: Symbolic, unit: Tensor, new: Tensor) -> Symbolic:
    """A value without the slack of the units `[B, R]` where they are `new`."""
    slack = kernels.flat(x.slack, 1)
    left = slack.scatter(1, unit, torch.where(new, 0.0, slack.gather(1, unit)))
    return x._replace(slack=left.reshape(x.slack.shape))


def _placed(x: Symbolic, columns: int, size: Tensor, unit: Tensor, place: Tensor, new: Tensor) -> Symbolic:
    """A value with so many columns, and errors of these sizes and units in the columns `place`, all `[B, R]`, where
    they are `new`."""
    return x._replace(coef=put(x.coef, columns, torch.where(new, place, 0), unit, torch.where(new, size, 0.0)))


def aligned(*values: Symbolic) -> tuple[Symbolic, ...]:
    """Values that meet, each with as many columns as the longest."""
    columns = max(value.coef.shape[1] for value in values)
    return tuple(value._replace(coef=widened(value.coef, columns)) for value in values)


def widened(coef: Tensor, columns: int) -> Tensor:
    """`[B, N, *S] -> [B, columns, *S]`, zeros behind the N, in the same order of memory."""
    if coef.shape[1] == columns:
        return coef
    order = kernels.as_stored(coef)
    return kernels.unordered(_longer(coef.permute(order), columns), order)


def put(coef: Tensor, columns: int, place: Tensor, unit: Tensor, size: Tensor) -> Tensor:
    """`widened`, and of each sample `size` added in its column `place` at number `unit` of S; all three `[B, M]`.

    One pass: the numbers go into the copy that widening makes, which autograd allows where that is no view.
    """
    order = kernels.as_stored(coef)
    made = _longer(coef.permute(order), columns)
    sample = torch.arange(place.shape[0], device=place.device).unsqueeze(1)
    axes = torch.unravel_index(unit, coef.shape[2:])
    made.index_put_((sample, place, *(axes[axis - 2] for axis in order[2:])), size, accumulate=True)
    return kernels.unordered(made, order)


def _longer(stored: Tensor, columns: int) -> Tensor:
    """A copy with zeros behind, for which no memory is filled twice."""
    nothing = stored.new_zeros(()).expand(stored.shape[0], columns - stored.shape[1], *stored.shape[2:])
    return torch.cat([stored, nothing], 1)
