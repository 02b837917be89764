"""The abstract values that bounds graphs pass from node to node, and the few operations they share.

Index letters: B batch, D dimensions of the perturbation, K rows of the spec, S the value's own shape (any rank).
The unknown is `t` in `[-1, 1]^D`; the perturbation maps it to physical coefficients `center + radius * t`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, atleast_2d, cat, eye, maximum, minimum

from robnet_fx.algebra import kernels


class Interval(NamedTuple):
    """lower <= value <= upper, element by element; both `[B, *S]`."""

    lower: Tensor
    upper: Tensor


class Symbolic(NamedTuple):
    """value = sum_d coef_d t_d + const ± slack: the parallel (shared-slope) form of SSIP.

    `coef [B, D, *S]`, `const [B, *S]`, `slack [B, *S]` >= 0.
    """

    coef: Tensor
    const: Tensor
    slack: Tensor


class Form(NamedTuple):
    """Rows of RSIP: spec · logits <= <coef, value> + const, with `coef [B, K, *S]` and `const [B, K]`."""

    coef: Tensor
    const: Tensor


class InputShape(NamedTuple):
    """Stands in a backward rule's arguments where the source node had a bounded input: that input's S."""

    dims: tuple[int, ...]


def fold(x: Tensor) -> Tensor:
    """`[B, N, *S] -> [B * N, *S]`, so that an operation meets its own rank and only one leading axis."""
    return x.flatten(0, 1)


def unfold(x: Tensor, like: Tensor) -> Tensor:
    """Undo `fold`: `[B * N, *S] -> [B, N, *S]` with the B and N of `like`."""
    return x.reshape(like.shape[0], like.shape[1], *x.shape[1:])


def contract(coef: Tensor, value: Tensor) -> Tensor:
    """`<coef [B, K, *S], value [B or 1, *S]> -> [B, K]`."""
    return kernels.contract(coef, value)


def concretise(x: Symbolic) -> Interval:
    """The interval of a symbolic value: over the unit box, `|coef|` summed is its reach."""
    radius = kernels.reach(x.coef) + x.slack
    return Interval(x.const - radius, x.const + radius)


def influence(x: Symbolic) -> Tensor:
    """`[B, D]`: the sum of each column's |coef| over all numbers of a value."""
    return x.coef.flatten(2).abs().sum(2)


def intersect(a: Interval, b: Interval | Symbolic) -> Interval:
    """Both bounds hold, so the tighter ends do; rounding may cross two ends that meet, hence the re-ordering."""
    if isinstance(b, Symbolic):
        b = concretise(b)
    lower, upper = maximum(a.lower, b.lower), minimum(a.upper, b.upper)
    return Interval(minimum(lower, upper), maximum(lower, upper))


def narrowed(found: Interval, known: Mapping[str, Interval] | None, name: str) -> Interval:
    """An interval moved into what is known of the value of that name, if anything is; an end that is NaN is not known.

    Unlike those of `intersect` the ends never leave what is known, however they are rounded.
    """
    if known is None or name not in known:
        return found
    low = known[name].lower.nan_to_num(-math.inf, math.inf, -math.inf)
    high = known[name].upper.nan_to_num(math.inf, math.inf, -math.inf)
    return Interval(*(minimum(maximum(end, low), high) for end in found))


def merge(a: Form, b: Form) -> Form:
    """Add two forms over one value: what reaches it along two paths is counted along both."""
    return Form(a.coef + b.coef, a.const + b.const)


def upper_by_interval(form: Form, x: Interval) -> Tensor:
    """`[B, K]`: the largest value of the form while `x` stays in its interval."""
    return contract(form.coef.clamp(min=0), x.upper) + contract(form.coef.clamp(max=0), x.lower) + form.const


def or_default(given: Tensor | None, default: Tensor) -> Tensor:
    """The middle or the half widths of a box: those given, `[1 or B, D]`, or the default `[D]` for all samples."""
    return atleast_2d(default if given is None else given)


def upper_over_box(form: Form, center: Tensor, radius: Tensor) -> Tensor:
    """`[B, K]`: the largest value of a form over coefficients in the box, `g . center + |g| . radius + const`."""
    return contract(form.coef, center) + contract(form.coef.abs(), radius) + form.const


def substitute(form: Form, x: Symbolic) -> Symbolic:
    """The form over a symbolic value as a symbolic value of shape K: `coef [B, D, K]`, `const`, `slack [B, K]`."""
    rows, columns = kernels.flat(form.coef, 2), kernels.flat(x.coef, 2)
    coef = (rows @ columns.transpose(1, 2)).transpose(1, 2)
    return Symbolic(coef, contract(form.coef, x.const) + form.const, contract(form.coef.abs(), x.slack))


def add_symbolic(a: Symbolic, b: Symbolic) -> Symbolic:
    """The sum of two symbolic values of one shape; shared coefficients cancel, slacks add up."""
    return Symbolic(a.coef + b.coef, a.const + b.const, a.slack + b.slack)


def upper_by_symbolic(x: Symbolic) -> Tensor:
    """The largest value over the unit box."""
    return concretise(x).upper


def two_sided(spec: Tensor) -> Tensor:
    """`[B, K, N] -> [B, 2K, N]`: a lower bound of a row is the negated upper bound of the negated row."""
    return cat([spec, -spec], 1)


def split_sides(upper: Tensor) -> Interval:
    """Undo `two_sided` on the upper bounds: `[B, 2K] -> (lower, upper) [B, K]`."""
    rows = upper.shape[1] // 2  # sliced, not chunked: an export keeps the number of rows free
    return Interval(-upper[:, rows:], upper[:, :rows])


def tighter(a: Tensor, b: Tensor) -> Tensor:
    """The lower of two upper bounds."""
    return minimum(a, b)


def units_of(x: Symbolic) -> Tensor:
    """The rows `[1, K, *S]` that pick the K numbers of a value one by one."""
    shape = x.const.shape[1:]
    return eye(shape.numel(), dtype=x.const.dtype, device=x.const.device).reshape(1, -1, *shape)


def as_value(x: Symbolic, shape: Sequence[int]) -> Symbolic:
    """A symbolic value of shape K as one of the shape that `units_of` picked it from."""
    return Symbolic(*(part.reshape(*part.shape[:-1], *shape) for part in x))


def form_of(rows: Tensor) -> Form:
    """The rows of a spec `[B, K, *S]` as a form over the value they speak of."""
    return Form(rows, rows.new_zeros(rows.shape[:2]))
