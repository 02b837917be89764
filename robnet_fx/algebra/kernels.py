"""The few passes over large tensors that bounds spend their time in, each with the plain form it must equal beside it.

Autograd keeps and re-reads every intermediate result of a plain form, and on a CPU some of PyTorch's own operations run
at a fraction of memory speed: a sum over axis 1, and `where`, which is the derivative of a clamp. A kernel goes through
axis 1 slice by slice, so that what it works on stays in the cache, and knows its own derivative. On other devices, and
while a graph is compiled or exported, the plain forms run: there a compiler fuses them.

Index letters as in `domains`; N is D or K.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten

_CACHE = 2**16  # numbers of a tensor that several passes are made over


def reach_plain(coef: Tensor) -> Tensor:
    """`coef [B, N, *S] -> [B, *S]`: the largest value of `sum_n coef_n t_n` over the unit box."""
    return coef.abs().sum(1)


def scale_plain(coef: Tensor, slope: Tensor) -> Tensor:
    """`coef [B, N, *S] * slope [B, *S]`."""
    return coef * slope.unsqueeze(1)


def flat(x: Tensor, axes: int) -> Tensor:
    """All but the first `axes` axes as one, also where there are none: `[B, N, *S] -> [B, N, numbers of S]`."""
    return x.flatten(axes) if x.dim() > axes else x.unsqueeze(axes)


def contract_plain(coef: Tensor, value: Tensor) -> Tensor:
    """`<coef [B, N, *S], value [B or 1, *S]> -> [B, N]`."""
    return flat(coef * value.unsqueeze(1), 2).sum(2)


def choose_plain(
    coef: Tensor, lower_slope: Tensor, lower_offset: Tensor | None, upper_slope: Tensor, upper_offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Coefficients `[B, N, *S]` of f(x) as coefficients of x and `[B, N]` what is left over: the upper line where they
    are positive, the lower one where negative. No `lower_offset` is an offset of 0."""
    up = coef.relu()
    down = coef - up
    const = contract_plain(up, upper_offset)
    if lower_offset is not None:
        const = const + contract_plain(down, lower_offset)
    return up * upper_slope.unsqueeze(1) + down * lower_slope.unsqueeze(1), const


def chord_plain(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the line through a ReLU's ends: 1 and 0 where it is on, 0 and 0 where it is off, and NaN
    where an end is. The offset is both slope |l| and (1 - slope) u: the larger, for a slope may round to 0 or 1."""
    low, high = lower.clamp(max=0), upper.clamp(min=0)
    open_ = (low < 0) & (high > 0)
    half = torch.where(open_, high / 2 - low / 2, 1.0)  # halved, for the width may overflow where its ends do not
    nothing = (low + high) * 0
    slope = torch.where(open_, high / 2 / half, (high > 0).to(high.dtype) + nothing)
    return slope, torch.where(open_, torch.maximum(slope * -low, high * (1 - slope)), nothing)


_plain = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """The plain forms meanwhile: for whoever traces operations, and cannot have the sizes he meets built in."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def traced() -> bool:
    """Whether somebody traces what is done, who cannot have the sizes and numbers he meets built in."""
    return torch.compiler.is_compiling() or _plain.get()


def by_hand(x: Tensor) -> bool:
    """Whether a loop is better for a tensor than one operation of PyTorch's: on a CPU, and nobody traces it."""
    return x.device.type == "cpu" and not traced() and x.shape[1:2] != (0,)


def reach(coef: Tensor) -> Tensor:
    """`reach_plain`."""
    made: Tensor = _Reach.apply(coef) if by_hand(coef) else reach_plain(coef)
    return made


def scale(coef: Tensor, slope: Tensor) -> Tensor:
    """`scale_plain`."""
    made: Tensor = _Scale.apply(coef, slope) if by_hand(coef) else scale_plain(coef, slope)
    return made


def contract(coef: Tensor, value: Tensor) -> Tensor:
    """`contract_plain`."""
    fits = by_hand(coef) and len(value) in (1, len(coef))  # the plain form also takes rows that all samples share
    made: Tensor = _Contract.apply(coef, value) if fits else contract_plain(coef, value)
    return made


def choose(
    coef: Tensor, lower_slope: Tensor, lower_offset: Tensor | None, upper_slope: Tensor, upper_offset: Tensor
) -> tuple[Tensor, Tensor]:
    """`choose_plain`."""
    fits = by_hand(coef) and len(upper_slope) == len(coef)  # the plain form also takes rows that all samples share
    form = _Choose.apply if fits else choose_plain
    coef, const = form(coef, lower_slope, lower_offset, upper_slope, upper_offset)
    return coef, const


def chord(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """`chord_plain`."""
    form = _Chord.apply if by_hand(lower) else chord_plain
    slope, offset = form(lower, upper)
    return slope, offset


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """`sum_n a_n b_n`, `[B, *S]`."""
    total = a[:, 0] * b[:, 0]
    for x, y in zip(a.unbind(1)[1:], b.unbind(1)[1:], strict=True):
        total.addcmul_(x, y)
    return total


def parts_for_cache(x: Tensor, axis: int = 1) -> tuple[Tensor, ...]:
    """A tensor along an axis, as much at once as the cache takes: one row of a large value, many of a small one."""
    return x.split(max(1, _CACHE * x.shape[axis] // max(1, x.numel())), axis)


def as_stored(x: Tensor) -> list[int]:
    """The axes of `[B, N, *S]` with those of S in the order of memory: flattening S then copies nothing."""
    strides = x.stride()
    return [0, 1, *sorted(range(2, x.dim()), key=lambda axis: -strides[axis])]


def unordered(stored: Tensor, order: list[int]) -> Tensor:
    """Undo `permute(order)`."""
    return stored.permute([order.index(axis) for axis in range(len(order))])


def _columns(rows: Tensor, like: Tensor) -> Tensor:
    """`[B, N] -> [B, N, 1, ...]`, to be multiplied with values of the shape of `like [B, N, *S]`."""
    return rows.reshape(*rows.shape, *[1] * (like.dim() - 2))


class _Reach(Function):
    @staticmethod
    def forward(ctx: Any, coef: Tensor) -> Tensor:
        ctx.save_for_backward(coef)
        total = coef[:, 0].abs()
        for part in coef.unbind(1)[1:]:
            total += part.abs()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (coef,) = ctx.saved_tensors
        made = torch.empty_like(coef)
        for part, out in zip(coef.unbind(1), made.unbind(1), strict=True):
            torch.sgn(part, out=out).mul_(grad)
        return made


class _Scale(Function):
    @staticmethod
    def forward(ctx: Any, coef: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(coef, slope)
        return scale_plain(coef, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        coef, slope = ctx.saved_tensors
        over_coef, over_slope = ctx.needs_input_grad
        return scale_plain(grad, slope) if over_coef else None, _dot(grad, coef) if over_slope else None


class _Contract(Function):
    @staticmethod
    def forward(ctx: Any, coef: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(coef, value)
        if len(value) == 1:
            order = as_stored(coef)
            return flat(coef.permute(order), 2) @ value[:, None].permute(order).flatten()
        return torch.cat([contract_plain(rows, value) for rows in parts_for_cache(coef)], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        coef, value = ctx.saved_tensors
        columns = _columns(grad, coef)
        over_coef = value.unsqueeze(1) * columns if ctx.needs_input_grad[0] else None
        over_value = _dot(coef, columns).sum_to_size(value.shape) if ctx.needs_input_grad[1] else None
        return over_coef, over_value


class _Choose(Function):
    @staticmethod
    def forward(
        ctx: Any,
        coef: Tensor,
        lower_slope: Tensor,
        lower_offset: Tensor | None,
        upper_slope: Tensor,
        upper_offset: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(coef, lower_slope, lower_offset, upper_slope, upper_offset)
        slope, rise = lower_slope.unsqueeze(1), (upper_slope - lower_slope).unsqueeze(1)
        drop = upper_offset if lower_offset is None else upper_offset - lower_offset
        made, consts = torch.empty_like(coef), []
        for rows, out in zip(parts_for_cache(coef), parts_for_cache(made), strict=True):
            up = rows.relu()
            torch.mul(rows, slope, out=out).addcmul_(up, rise)
            const = contract_plain(up, drop)
            if lower_offset is not None:
                const += contract_plain(rows, lower_offset)
            consts.append(const)
        return made, torch.cat(consts, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, const_grad: Tensor) -> tuple[Tensor | None, ...]:
        coef, lower_slope, lower_offset, upper_slope, upper_offset = ctx.saved_tensors
        rise = upper_slope - lower_slope
        drop = upper_offset if lower_offset is None else upper_offset - lower_offset
        made = torch.empty_like(coef)
        over_lines = any(ctx.needs_input_grad[1:])
        slopes, offsets = torch.zeros_like(upper_slope), torch.zeros_like(upper_offset)
        columns = _columns(const_grad, coef)
        for row, g, column, out in zip(coef.unbind(1), grad.unbind(1), columns.unbind(1), made.unbind(1), strict=True):
            above = torch.mul(g, rise).addcmul_(drop, column)
            aten.threshold_backward.grad_input(above, row, 0.0, grad_input=out).addcmul_(g, lower_slope)
            if lower_offset is not None:
                out.addcmul_(lower_offset, column)
            if over_lines:
                up = torch.relu(row)
                slopes.addcmul_(g, up)
                offsets.addcmul_(up, column)
        over_lower_slope = _dot(grad, coef).sub_(slopes) if ctx.needs_input_grad[1] else None
        over_lower_offset = _dot(coef, columns).sub_(offsets) if ctx.needs_input_grad[2] else None
        return made, over_lower_slope, over_lower_offset, slopes, offsets


class _Chord(Function):
    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = lower.clamp(max=0), upper.clamp(min=0)
        slope = (low / high).neg_().add_(1).reciprocal_()  # 1 / (1 - l / u): u - l may overflow where its ends do not
        slope.masked_fill_(low == high, 0)  # both are 0
        ctx.save_for_backward(high, slope)
        return slope, torch.maximum((low * slope).neg_(), (1 - slope).mul_(high))

    @staticmethod
    def backward(ctx: Any, over_slope: Tensor, over_offset: Tensor) -> tuple[Tensor, Tensor]:
        high, slope = ctx.saved_tensors
        rest = 1 - slope
        shut = (slope * rest) == 0  # on or off: the line does not move
        over_slope = (over_slope * slope).div_(high)
        over_lower = torch.addcmul(over_slope, over_offset, slope, value=-1).mul_(slope)
        over_upper = over_slope.addcmul_(over_offset, rest).mul_(rest)
        return over_lower.masked_fill_(shut, 0), over_upper.masked_fill_(shut, 0)
