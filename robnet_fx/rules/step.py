"""Functions of steps: the sign, and rounding down, up and to the nearest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.registry import Rule, register
from robnet_fx.rules.relaxation import Band, elementwise, monotone

aten = torch.ops.aten


def _sign(x: Tensor) -> Tensor:
    """The sign; PyTorch's says 0 for NaN, which would be a verdict."""
    return torch.where(x.isnan(), x, torch.sign(x))


def stepped(name: str, f: Callable[[Tensor], Tensor], near: float | None = None) -> Rule:
    """The rule of a non-decreasing f of steps; `near` is the c for which x + c - 1/2 <= f(x) <= x + c + 1/2."""

    def unstable(pre: Interval) -> Tensor:
        return f(pre.lower) < f(pre.upper)

    def band(pre: Interval) -> Band:
        """Level, from the lower end's step to the upper end's; along x where these are two or more apart."""
        first, last = f(pre.lower), f(pre.upper)
        level = Band(torch.zeros_like(first), (first + last) / 2, (last - first) / 2)
        if near is None:
            return level
        size = torch.maximum(-pre.lower, pre.upper)
        rounding = 8 * torch.finfo(size.dtype).eps * (1 + size.detach())
        along = Band(torch.ones_like(first), torch.full_like(first, near), 0.5 + rounding)
        steep = last - first >= 2
        return Band(*(torch.where(steep, a, b) for a, b in zip(along, level, strict=True)))

    return elementwise(name, monotone(f), band, unstable=unstable)


register(stepped("sign", _sign), aten.sign.default)
register(stepped("floor", torch.floor, -0.5), aten.floor.default)
register(stepped("ceil", torch.ceil, 0.5), aten.ceil.default)
register(stepped("round", torch.round, 0.0), aten.round.default)
