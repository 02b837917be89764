"""Max pooling: every window follows the input with the highest lower bound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, fold, unfold
from robnet_fx.rules.conv import each
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Lines, through

aten = torch.ops.aten


def max_pool_rule(dims: int, pool: Callable[..., Tensor]) -> Rule:
    """The rule of `max_pool{dims}d(x, kernel, stride, padding, dilation)`.

    In a window let j be the input with the highest lower bound and U the highest upper bound of the others. Then
    x_j <= max <= x_j + max(0, highest upper bound of x_i - x_j), which SSIP can tell from its coefficients, and, for
    RSIP, max <= the chord of max(x_j, U) over `pre`.
    """

    def ibp(x: Interval, *args: Any) -> Interval:
        return Interval(pool(x.lower, *args), pool(x.upper, *args))

    def ssip(x: Symbolic, *args: Any, pre: Interval) -> Symbolic:
        lower = windows(pre.lower, dims, *args, fill=-math.inf)
        best = lower.argmax(1, keepdim=True)

        def chosen(value: Tensor) -> Tensor:
            return _take(windows(value, dims, *args), best)

        coef = unfold(_take(windows(fold(x.coef), dims, *args), best.repeat_interleave(x.coef.shape[1], 0)), x.coef)
        const, slack = chosen(x.const), chosen(x.slack)
        consts = windows(x.const, dims, *args, fill=-math.inf)
        slacks = windows(x.slack, dims, *args)
        coefs = windows(fold(x.coef), dims, *args)
        gap = torch.zeros_like(const)
        for i in range(consts.shape[1]):
            reach = (unfold(coefs[:, i], x.coef) - coef).abs().sum(1) + slacks[:, i] + slack
            above = consts[:, i] - const + reach
            gap = torch.where(best[:, 0] == i, gap, torch.maximum(gap, above))
        uppers = windows(pre.upper, dims, *args, fill=-math.inf).scatter(1, best, -math.inf).amax(1)
        gap = torch.minimum(gap, (uppers - _take(lower, best)).clamp(min=0))
        return Symbolic(coef, const + gap / 2, slack + gap / 2)

    def rsip(form: Form, x: InputShape, *args: Any, pre: Interval) -> Form:
        lower = windows(pre.lower, dims, *args, fill=-math.inf)
        upper = windows(pre.upper, dims, *args, fill=-math.inf)
        best = lower.argmax(1, keepdim=True)
        low, high = _take(lower, best), _take(upper, best)
        others = upper.scatter(1, best, -math.inf).amax(1)
        beaten = others <= low  # nothing in the window reaches x_j: the maximum is x_j
        others = torch.where(beaten, low, others)
        point = high <= low  # NaN is none
        half = torch.where(point, 1.0, high / 2 - low / 2)  # halved, for the width may overflow where its ends do not
        rise = torch.where(point, 0.0, (torch.maximum(high, others) / 2 - others / 2) / half)
        slope = torch.where(beaten, 1.0, rise)
        ones, zeros = torch.ones_like(slope), torch.zeros_like(slope)
        picked = through(form, Lines(ones, zeros, slope, torch.where(beaten, zeros, others - slope * low)))
        rows = fold(picked.coef)
        index = best.repeat_interleave(picked.coef.shape[1], 0)
        start = rows.new_zeros(rows.shape[0], *x.dims)
        (pulled,) = torch.func.vjp(lambda v: _take(windows(v, dims, *args), index), start)[1](rows)
        return Form(unfold(pulled, form.coef), picked.const)

    def refusal(node: fx.Node, bounded: list[fx.Node]) -> str | None:
        if len(bounded[0].meta["shape"]) != dims + 1:
            return "it pools without a channel axis"
        return None

    return Rule(f"max_pool{dims}d", ibp, ssip, rsip, "maximum", supports=refusal, straight=True)


def windows(
    x: Tensor,
    dims: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
    *,
    fill: float = 0.0,
) -> Tensor:
    """`[N, C, *spatial] -> [N, window, C, *out]`: what every output of a pooling sees, `fill` where it sees padding."""
    kernel, padding, dilation = (each(value, dims) for value in (kernel, padding, dilation))
    stride = each(stride, dims) if stride else kernel
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    outs: list[int] = []
    widths: list[int] = []
    for n, span, s, p in zip(x.shape[2:], spans, stride, padding, strict=True):
        steps = n + 2 * p - span
        out = (-(-steps // s) if ceil_mode else steps // s) + 1
        out -= (out - 1) * s >= n + p  # no window begins in the padding at the far end
        outs.append(out)
        widths = [p, max(p, (out - 1) * s + span - n - p), *widths]
    padded = F.pad(x, widths, value=fill) if any(widths) else x
    views = []
    for offsets in itertools.product(*(range(k) for k in kernel)):
        view = padded
        for axis, (offset, out, s, d) in enumerate(zip(offsets, outs, stride, dilation, strict=True), start=2):
            view = view[(slice(None),) * axis + (slice(offset * d, offset * d + (out - 1) * s + 1, s),)]
        views.append(view)
    return torch.stack(views, 1)


def _take(stacked: Tensor, index: Tensor) -> Tensor:
    """`[N, window, ...]` at `index [N, 1, ...]` along the window axis."""
    return stacked.gather(1, index).squeeze(1)


register(__name__, max_pool_rule(1, F.max_pool1d), aten.max_pool1d.default)
register(__name__, max_pool_rule(2, F.max_pool2d), aten.max_pool2d.default)
register(__name__, max_pool_rule(3, F.max_pool3d), aten.max_pool3d.default)
