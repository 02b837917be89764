"""Affine rules against the dense matrix: all three bounds are *equal* to what W and b say, not merely sound.

W and b are read off the operation itself, value by value, so nothing of the rules is used twice.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.rules import rule_for
from tests.rules.cases import AFFINE, Case, name_of
from tests.soundness import draws

B, D, K = 2, 3, 4


def dense(case: Case) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """(W [N_out, N_in], b [N_out], S_out) of the operation over all its bounded inputs, one after the other."""
    sizes = [math.prod(shape) for shape in case.shapes]
    probes = torch.cat([torch.zeros(1, sum(sizes)), torch.eye(sum(sizes))]).double()
    out = apply(case, probes)
    b = out[0].flatten()
    return (out[1:].flatten(1) - b).T, b, tuple(out.shape[1:])


def apply(case: Case, flat: Tensor) -> Tensor:
    """The operation itself on `[N, N_in]`."""
    args, kwargs = case.call(draws(2), *split(case, flat))
    return case.target(*args, **kwargs)


def split(case: Case, flat: Tensor) -> list[Tensor]:
    """`[..., N_in]` to one `[..., *S]` for each bounded input."""
    parts = flat.split([math.prod(shape) for shape in case.shapes], -1)
    return [part.reshape(*flat.shape[:-1], *shape) for part, shape in zip(parts, case.shapes, strict=True)]


def run(case: Case, function: Any, *inputs: Any, first: tuple[Any, ...] = ()) -> Any:
    args, kwargs = case.call(draws(2), *inputs)
    return function(*first, *args, **kwargs)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", AFFINE, ids=name_of)
def test_ibp_is_the_exact_interval(case: Case):
    weight, bias, shape = dense(case)
    r = draws(3)
    middle, reach = r(B, weight.shape[1]), r(B, weight.shape[1]).abs()
    lower, upper = middle - reach, middle + reach
    inputs = [Interval(low, high) for low, high in zip(split(case, lower), split(case, upper), strict=True)]
    got = run(case, rule_for(case.target).ibp, *inputs)
    assert got.lower.shape == got.upper.shape == (B, *shape)
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    close(got.upper, upper @ up.T + lower @ down.T + bias)
    close(got.lower, lower @ up.T + upper @ down.T + bias)


@pytest.mark.parametrize("case", AFFINE, ids=name_of)
def test_ssip_moves_coefficients_constants_and_slacks(case: Case):
    weight, bias, shape = dense(case)
    r = draws(4)
    coef, const, slack = r(B, D, weight.shape[1]), r(B, weight.shape[1]), r(B, weight.shape[1]).abs()
    inputs = [Symbolic(*parts) for parts in zip(*(split(case, part) for part in (coef, const, slack)), strict=True)]
    got = run(case, rule_for(case.target).ssip, *inputs)
    assert got.coef.shape == (B, D, *shape)
    assert got.const.shape == got.slack.shape == (B, *shape)
    close(got.coef, coef @ weight.T)
    close(got.const, const @ weight.T + bias)
    close(got.slack, slack @ weight.abs().T)


@pytest.mark.parametrize("case", AFFINE, ids=name_of)
def test_rsip_is_the_transpose_and_its_constant_the_bias(case: Case):
    weight, bias, shape = dense(case)
    r = draws(5)
    rows, const = r(B, K, len(bias)), r(B, K)
    form = Form(rows.reshape(B, K, *shape), const)
    got = run(case, rule_for(case.target).rsip, *(InputShape(s) for s in case.shapes), first=(form,))
    forms = [got] if len(case.shapes) == 1 else list(got)
    assert [tuple(form.coef.shape) for form in forms] == [(B, K, *s) for s in case.shapes]
    close(torch.cat([form.coef.flatten(2) for form in forms], 2), rows @ weight)
    close(sum(form.const for form in forms), const + rows @ bias)


@pytest.mark.parametrize("case", AFFINE, ids=name_of)
def test_the_operation_is_affine(case: Case):
    """The dense matrix stands for the operation: it predicts it elsewhere."""
    weight, bias, _ = dense(case)
    x = draws(6)(3, weight.shape[1])
    close(apply(case, x), x @ weight.T + bias)


@pytest.mark.parametrize(("dims", "dilation", "stride"), [*itertools.product((1, 2, 3), (1, 2), (1, 2, 3))])
def test_a_transposed_convolution_gives_back_every_size(dims: int, dilation: int, stride: int):
    """Whatever rows at the far edge no window reached: the pulled-back form has the input's shape."""
    op = getattr(torch.ops.aten, f"conv{dims}d").default
    for size, padding in itertools.product((4, 5, 6), (0, 1)):
        r = draws(7)
        weight = r(2, 1, *[2] * dims)
        x = r(1, 1, size, *[4] * (dims - 1)).requires_grad_(True)
        options = ([stride] * dims, [padding] * dims, [dilation] * dims, 1)
        y = op(x, weight, None, *options)
        form = Form(r(1, *y.shape), torch.zeros(1, 1, dtype=torch.float64))
        got = rule_for(op).rsip(form, InputShape(tuple(x.shape[1:])), weight, None, *options)
        (expected,) = torch.autograd.grad((form.coef[:, 0] * y).sum(), x)
        close(got.coef, expected)


def test_a_sum_does_not_lose_its_small_part_in_a_wide_interval():
    """The eps of a normalisation, beside a variance of which next to nothing is known: the root needs it."""
    wide = Interval(torch.zeros(1, 1), torch.full((1, 1), 1e12))
    for op in (torch.ops.aten.add.Tensor, torch.ops.aten.add.Scalar):
        assert float(rule_for(op).ibp(wide, 1e-6).lower) == pytest.approx(1e-6)
