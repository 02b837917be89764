"""Operations on samples, where a sample has several windows: `[B, windows, *S]`, each window worked by itself.

Coefficients `[B, D or K, windows, *S]` are so many samples to the operation in whatever order they lie, and an affine
rule works coefficients, constants and slack each by itself; so none of them is moved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, fold, unfold
from robnet_fx.algebra.ops import WINDOWED, windowed
from robnet_fx.rules import conv, moves, norm  # noqa: F401  (they enter the rules of samples)
from robnet_fx.rules.registry import Rule, register, rule_for

aten = torch.ops.aten


def windows_of(rule: Rule) -> Rule:
    """The rule of an affine operation's windows."""

    def ibp(x: Interval, *args: Any) -> Interval:
        made = rule.ibp(Interval(*map(fold, x)), *args)
        return Interval(*(unfold(end, x.lower) for end in made))

    def ssip(x: Symbolic, *args: Any) -> Symbolic:
        made = rule.ssip(Symbolic(_samples(x.coef), fold(x.const), fold(x.slack)), *args)
        coef = made.coef.reshape(*x.coef.shape[:3], *made.coef.shape[2:])
        return Symbolic(coef, unfold(made.const, x.const), unfold(made.slack, x.const))

    def rsip(form: Form, x: InputShape, *args: Any) -> Form:
        rows = _samples(form.coef)
        made = rule.rsip(Form(rows, rows.new_zeros(rows.shape[:2])), InputShape(x.dims[1:]), *args)
        coef = made.coef.reshape(*form.coef.shape[:3], *made.coef.shape[2:])
        return Form(coef, form.const + made.const.reshape(form.coef.shape[:3]).sum(2))

    return Rule(f"{rule.name}_windows", ibp, ssip, rsip, "affine", sums=rule.sums, supports=rule.supports)


def _samples(coef: Tensor) -> Tensor:
    """`[B, N, windows, *S] -> [1, B * N * windows, *S]`"""
    return coef.flatten(0, 2).unsqueeze(0)


for _target in WINDOWED:
    _rule = rule_for(_target)
    assert _rule is not None
    register(__name__, windows_of(_rule), windowed(_target))
