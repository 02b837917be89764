"""The sign, a function of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.domains import Interval
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, elementwise, monotone

aten = torch.ops.aten


def _unstable(pre: Interval) -> Tensor:
    return torch.sign(pre.lower) < torch.sign(pre.upper)


def band(pre: Interval) -> Band:
    """Level, from the lower end's step to the upper end's."""
    first, last = torch.sign(pre.lower), torch.sign(pre.upper)
    return Band(torch.zeros_like(first), (first + last) / 2, (last - first) / 2)


register(elementwise("sign", monotone(torch.sign), band, unstable=_unstable), aten.sign.default)
