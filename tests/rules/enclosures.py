"""Elementwise rules used as the graphs use them: SSIP of the identity reads off the band, RSIP of ±1 the two lines."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from robnet_fx.rules.relaxation import Band
from tests.rules.cases import Case
from tests.soundness import draws

_ENDLESS = (-math.inf, math.inf)
SAFE = {  # beyond, float32 ends
    "exp": (-math.inf, 80.0),
    "expm1": (-math.inf, 80.0),
    "sinh": (-80.0, 80.0),
    "cosh": (-80.0, 80.0),
}


def arguments(case: Case) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = case.call(draws(0), None)
    return args[1:], kwargs


def function(case: Case, x: Tensor) -> Tensor:
    args, kwargs = arguments(case)
    return case.target(x.double(), *args, **kwargs)


def reach_of(case: Case, pre: Interval) -> Interval:
    args, kwargs = arguments(case)
    return rule_for(case.target).ibp(pre, *args, **kwargs)


def band_of(case: Case, pre: Interval) -> Band:
    """The parallel lines SSIP stands on: its result for the identity."""
    args, kwargs = arguments(case)
    ones = torch.ones_like(pre.lower)
    x = Symbolic(ones.unsqueeze(1), 0 * ones, 0 * ones)
    got = rule_for(case.target).ssip(x, *args, pre=pre, **kwargs)
    return Band(got.coef.squeeze(1), got.const, got.slack)


def interval(pairs: Any, dtype: torch.dtype = torch.float64) -> Interval:
    pair = torch.as_tensor(pairs, dtype=torch.float64).to(dtype)
    return Interval(pair[:, :1], pair[:, 1:])


def lines_of(case: Case, pre: Interval, sign: float) -> tuple[Tensor, Tensor]:
    """(slope, offset) of the upper line (sign 1) or the lower one (-1) RSIP stands on; `pre` is `[B, 1]`."""
    args, kwargs = arguments(case)
    form = Form(torch.full_like(pre.lower, sign).unsqueeze(1), torch.zeros_like(pre.lower))
    got = rule_for(case.target).rsip(form, InputShape((1,)), *args, pre=pre, **kwargs)
    return sign * got.coef.squeeze(1), sign * got.const


def admit(case: Case, pairs: Tensor) -> Tensor:
    """The pairs in order, moved into the domain."""
    low, high = case.domain[0] + 1e-3, case.domain[1] - 1e-3
    if low > -math.inf and high < math.inf:
        pairs = low + (high - low) * (1 + pairs / (1 + pairs.abs())) / 2
    elif low > -math.inf:
        pairs = low + pairs.abs()
    elif high < math.inf:
        pairs = high - pairs.abs()
    least, most = SAFE.get(case.name, _ENDLESS)
    low, high = max(low, least), min(high, most)
    return pairs.clamp(low, high).sort(1).values
