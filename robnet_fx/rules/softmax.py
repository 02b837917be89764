"""Softmax along an axis: one number is the sigmoid of its own logit less that of the others together.

s_i = sigmoid(x_i - a_i) with a_i = log sum_{j != i} exp(x_j), which rises with every x_j: the interval follows, and it
is finite however wide the logits are. About the centre c of a box, a_i is convex and lies between its tangent and
`bend` above it. So sigmoid(z - bend) <= s_i <= sigmoid(z) for a z that is affine in x, and the slopes of softmax at c
have the band that these two curves, cut off at the interval, leave about the line. The bend is the most that
log sum_j q_j exp(v_j) - sum_j q_j v_j can be for |v_j| <= r_j, with the shares q of the others in their own sum: no
more than max_j r_j^2 / 2 (Hoeffding's lemma), nor than sum_j q_j (exp(r_j) - 1 - r_j). Where a constant has the smaller
error, it is taken.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, contract
from robnet_fx.rules.curved import rounding
from robnet_fx.rules.refusals import keeps_batch
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import between

aten = torch.ops.aten

WIDEST = 16.0  # a radius beyond which no line is tried: a constant is better, and squares could overflow


class Tangent(NamedTuple):
    """s(x) = share (x - <share, x>) + offset ± error; the error is infinite where no line is of use."""

    share: Tensor
    offset: Tensor
    error: Tensor


def ibp(x: Interval, axis: int, *_: Any) -> Interval:
    """The interval of each number, from the ends of its logit less the others'."""
    return _interval(*_logits(x, axis))


def ssip(x: Symbolic, axis: int, *_: Any, pre: Interval) -> Symbolic:
    """About the tangent at the centre, or a constant where that has less slack."""
    axis = _from_end(axis, x.const)
    level, line = _interval(*_logits(pre, axis)), _tangent(pre, axis)
    share = line.share
    slack = share * ((1 - 2 * share) * x.slack + _mean(share, x.slack, axis)) + line.error
    most = (level.upper - level.lower) / 2
    use = slack < most  # else a constant has less slack even before the coefficients count; NaN takes it too
    rows = share.unsqueeze(1)
    coef = rows * (x.coef - _mean(rows, x.coef, axis))
    const = share * (x.const - _mean(share, x.const, axis)) + line.offset
    return Symbolic(
        torch.where(use.unsqueeze(1), coef, 0.0),
        torch.where(use, const, (level.lower + level.upper) / 2),
        torch.where(use, slack, most),
    )


def rsip(form: Form, x: InputShape, axis: int, *_: Any, pre: Interval) -> Form:
    """By the same band as SSIP."""
    axis = _from_end(axis, pre.lower)
    level, line = _interval(*_logits(pre, axis)), _tangent(pre, axis)
    most = (level.upper - level.lower) / 2
    use = line.error < most
    offset = torch.where(use, line.offset, (level.lower + level.upper) / 2)
    const = contract(form.coef, offset) + contract(form.coef.abs(), torch.where(use, line.error, most))
    scaled = torch.where(use, line.share, 0.0).unsqueeze(1) * form.coef
    return Form(scaled - line.share.unsqueeze(1) * scaled.sum(axis, keepdim=True), form.const + const)


def _from_end(axis: int, value: Tensor) -> int:
    """The axis counted from the end, where coefficients have it too."""
    return axis % value.dim() - value.dim()


def _mean(share: Tensor, value: Tensor, axis: int) -> Tensor:
    return (share * value).sum(axis, keepdim=True)


def _logits(x: Interval, axis: int) -> Interval:
    """The ends of x_i - a_i, a few ulps further out."""
    ends = []
    for own, others, sign in ((x.lower, x.upper, -1.0), (x.upper, x.lower, 1.0)):
        together = _log_sum_of_others(others, axis)
        ends.append(own - together + sign * rounding(own.abs() + together.abs()))
    return Interval(*ends)


def _interval(lower: Tensor, upper: Tensor) -> Interval:
    low, high = lower.sigmoid(), upper.sigmoid()
    return Interval((low - rounding(low)).clamp(min=0), (high + rounding(high)).clamp(max=1))


def _tangent(pre: Interval, axis: int) -> Tangent:
    width = (pre.upper - pre.lower).amax(axis, keepdim=True)
    lower, upper = (torch.where(width <= 2 * WIDEST, end, 0.0) for end in pre)  # NaN is not
    radius = (upper - lower) / 2
    centre = lower + radius
    z = centre - _log_sum_of_others(centre, axis)
    share, rest = z.sigmoid(), (-z).sigmoid()
    known = (width <= 2 * WIDEST) & (rest > 0)
    over = torch.where(known, rest, 1.0)
    reach = radius + _sum_of_others(share * radius, axis) / over
    bend = _sum_of_others(share * (radius.expm1() - radius), axis) / over
    bend = torch.minimum(bend, radius.amax(axis, keepdim=True) ** 2 / 2)

    def gap(point: Tensor) -> Tensor:
        return point.sigmoid() - share * rest * (point - z)

    # The slope is that of the sigmoid at ±z: the gap falls, rises from -|z| to |z|, and falls again.
    turn, logits = z.detach().abs(), _logits(Interval(lower, upper), axis)
    first, last = z - reach, torch.minimum(z + reach, logits.upper)
    highest = torch.maximum(gap(first), gap(between(turn, first, last)))
    first, last = logits.lower, torch.maximum(z + reach - bend, logits.lower)
    lowest = torch.minimum(gap(last), gap(between(-turn, first, last))) - share * rest * bend

    farthest = torch.where(share > 0, centre.abs(), 0.0).amax(axis, keepdim=True)  # what has no share is not rounded
    size = (highest + share) * (1 + farthest)
    error = (highest - lowest) / 2 + rounding(size)
    offset = (highest + lowest) / 2 - share * (centre - _mean(share, centre, axis))
    return Tangent(share, offset, torch.where(known, error, math.inf))


def bend_of(share: Tensor, radius: Tensor, axes: list[int]) -> Tensor:
    """The most that log-sum-exp can lie above its tangent at the centre of a box, where it has these shares."""
    bend = (share * (radius.expm1() - radius)).sum(axes, keepdim=True)
    return torch.minimum(bend, radius.amax(axes, keepdim=True) ** 2 / 2)


def _log_sum_of_others(x: Tensor, axis: int) -> Tensor:
    """a_i: for the largest x_i summed without it, and for the rest by subtraction, which at most halves the sum."""
    largest, top = _largest(x, axis), x.amax(axis, keepdim=True)
    shift = torch.where(top.isfinite(), top, 0.0).detach()
    powers = (x - shift).exp()
    left = torch.where(largest, 1.0, powers.sum(axis, keepdim=True) - powers)
    below = x.masked_fill(largest, -math.inf).logsumexp(axis, keepdim=True)
    together = torch.where(largest, below, torch.where(top == math.inf, top, shift + left.log()))
    return together.clamp(min=torch.finfo(x.dtype).min)  # of no others


def _sum_of_others(x: Tensor, axis: int) -> Tensor:
    """sum_{j != i} x_j of numbers >= 0, in the same way."""
    largest = _largest(x, axis)
    below = x.masked_fill(largest, 0).sum(axis, keepdim=True)
    return torch.where(largest, below, x.sum(axis, keepdim=True) - x)


def _largest(x: Tensor, axis: int) -> Tensor:
    """Where along the axis one of the largest numbers stands, and only one."""
    return torch.zeros_like(x, dtype=torch.bool).scatter(axis, x.argmax(axis, keepdim=True), True)


register(
    __name__,
    Rule("softmax", ibp, ssip, rsip, "softmax", supports=keeps_batch(1)),
    aten.softmax.int,
    aten._softmax.default,
)
