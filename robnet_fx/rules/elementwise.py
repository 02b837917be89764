"""Elementwise operations: from a relaxation, all three rules follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules.registry import Rule
from robnet_fx.rules.relaxation import Relaxation, Slopes, through, through_rows


def elementwise(name: str, relaxation: Relaxation, straight: bool = False) -> Rule:
    """The rule of an elementwise f, `straight` where it is made of straight pieces. `rsip` takes lines of slopes from
    outside as keyword `slopes`, and as keyword `at` a point `[B, K, *S]` where the lines of each row shall be tight, if
    f's can be chosen so."""

    def ibp(pre: Interval, *args: Any, **kwargs: Any) -> Interval:
        return relaxation.reach(pre, *args, **kwargs)

    def ssip(x: Symbolic, *args: Any, pre: Interval, **kwargs: Any) -> Symbolic:
        slope, offset, error = relaxation.band(pre, *args, **kwargs)
        coef = kernels.scale(x.coef, slope)
        return Symbolic(coef, torch.addcmul(offset, slope, x.const), torch.addcmul(error, slope.abs(), x.slack))

    def rsip(
        form: Form,
        x: InputShape,
        *args: Any,
        pre: Interval,
        slopes: Slopes | None = None,
        at: Tensor | None = None,
        **kwargs: Any,
    ) -> Form:
        if at is None or relaxation.at is None:
            return through(form, relaxation.enclosure(pre, *args, slopes=slopes, **kwargs))
        return through_rows(form, relaxation.at(pre, at, *args, **kwargs))

    return Rule(name, ibp, ssip, rsip, "elementwise", relaxation=relaxation, straight=straight)
