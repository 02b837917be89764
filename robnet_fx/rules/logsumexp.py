"""Log-sum-exp over axes: convex, and it rises with every x_j, so its interval is that of the ends.

About the centre c of a box, with the shares p of softmax there, it lies above its tangent by at most the `bend` that
softmax has too: the parallel band. From above a chord of each exponential is closer: the logarithm of the sum of the
chords is concave, so its own tangent at c is an upper line. With r the radii it passes log sum_j exp(c_j) cosh r_j
there. All exponentials are of what lies below the largest one, so that nothing overflows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, contract
from robnet_fx.rules.curved import rounding
from robnet_fx.rules.refusals import keeps_batch
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.softmax import WIDEST, bend_of

aten = torch.ops.aten


class Box(NamedTuple):
    """A box about its centre, a point where it is too wide for lines, with the shares and the value at the centre."""

    centre: Tensor
    radius: Tensor
    share: Tensor
    value: Tensor
    noise: Tensor  #: what rounding may do to a line
    known: Tensor


def ibp(x: Interval, axes: list[int], keepdim: bool = False) -> Interval:
    """The interval: that of the ends."""
    low, high = (end.logsumexp(axes, keepdim) for end in x)
    return Interval(low - rounding(1 + low.abs()), high + rounding(1 + high.abs()))


def _box(pre: Interval, axes: list[int]) -> Box:
    width = (pre.upper - pre.lower).amax(axes, keepdim=True)
    known = width <= 2 * WIDEST  # NaN is not
    lower, upper = (torch.where(known, end, 0.0) for end in pre)
    radius = (upper - lower) / 2
    centre = lower + radius
    value = centre.logsumexp(axes, keepdim=True)
    share = (centre - value).exp()
    noise = rounding(1 + value.abs() + (share * radius).sum(axes, keepdim=True))
    return Box(centre, radius, share, value, noise, known)


def ssip(x: Symbolic, axes: list[int], keepdim: bool = False, *, pre: Interval) -> Symbolic:
    """About the tangent at the centre, or a constant where that has less slack."""
    axes = _from_end(axes, x.const)
    box, level = _box(pre, axes), ibp(pre, axes, True)
    bend = bend_of(box.share, box.radius, axes)
    slack = (box.share * x.slack).sum(axes, keepdim=True) + bend / 2 + box.noise
    most = (level.upper - level.lower) / 2
    use = box.known & (slack < most)  # else a constant has less slack even before the coefficients count
    coef = (box.share.unsqueeze(1) * x.coef).sum(axes, keepdim=True)
    const = box.value + (box.share * (x.const - box.centre)).sum(axes, keepdim=True) + bend / 2
    made = Symbolic(
        torch.where(use.unsqueeze(1), coef, 0.0),
        torch.where(use, const, (level.lower + level.upper) / 2),
        torch.where(use, slack, most),
    )
    return made if keepdim else Symbolic(*(part.squeeze(axes) for part in made))


def rsip(form: Form, x: InputShape, axes: list[int], keepdim: bool = False, *, pre: Interval) -> Form:
    """The chords' tangent from above and the tangent from below, or the ends where `pre` is too wide."""
    axes = _from_end(axes, pre.lower)
    box, level = _box(pre, axes), ibp(pre, axes, True)
    heights = box.centre + _log_cosh(box.radius)
    height = heights.logsumexp(axes, keepdim=True)
    slope = (heights - height).exp() * _flattening(box.radius)
    known = box.known
    upper = torch.where(known, height - (slope * box.centre).sum(axes, keepdim=True) + box.noise, level.upper)
    lower = torch.where(known, box.value - (box.share * box.centre).sum(axes, keepdim=True) - box.noise, level.lower)
    coef = form.coef.reshape(*form.coef.shape[:2], *level.lower.shape[1:])
    up, down = coef.clamp(min=0), coef.clamp(max=0)
    rows = up * torch.where(known, slope, 0.0).unsqueeze(1) + down * torch.where(known, box.share, 0.0).unsqueeze(1)
    return Form(rows, form.const + contract(up, upper) + contract(down, lower))


def _from_end(axes: list[int], value: Tensor) -> list[int]:
    """The axes counted from the end, where coefficients have them too."""
    return [axis % value.dim() - value.dim() for axis in axes]


def _log_cosh(radius: Tensor) -> Tensor:
    return radius + torch.log1p(torch.exp(-2 * radius)) - math.log(2)


def _flattening(radius: Tensor) -> Tensor:
    """tanh(r) / r: what a chord's slope is less than its height."""
    wide = radius > 0
    return torch.where(wide, torch.tanh(radius) / torch.where(wide, radius, 1.0), 1.0)


register(
    __name__,
    Rule("logsumexp", ibp, ssip, rsip, "softmax", supports=keeps_batch(1)),
    aten.logsumexp.default,
)
