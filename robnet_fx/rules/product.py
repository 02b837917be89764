"""Products of two bounded values, element by element and of matrices.

With both inputs written as centre plus deviation, x y = x_c y + y_c x - x_c y_c + (x - x_c) (y - y_c): affine in x
and y but for the last term, at most the product of the radii. The planes are parallel, so SSIP and RSIP share them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, contract
from robnet_fx.algebra.ops import matrix_product, product
from robnet_fx.rules.registry import Rule, register

Pair = tuple[Interval, Interval]


def bilinear(
    name: str, times: Callable[[Tensor, Tensor], Tensor], corners: Callable[[Interval, Interval], Interval]
) -> Rule:
    """The rule of a product `times` that is linear in either factor; `corners` is its interval over a box."""

    def ibp(x: Interval, y: Interval) -> Interval:
        return corners(x, y)

    def ssip(x: Symbolic, y: Symbolic, *, pre: Pair) -> Symbolic:
        (xc, xr), (yc, yr) = _centre(pre[0]), _centre(pre[1])
        coef = times(x.coef, yc.unsqueeze(1)) + times(xc.unsqueeze(1), y.coef)
        const = times(x.const, yc) + times(xc, y.const) - times(xc, yc)
        slack = times(x.slack, yc.abs()) + times(xc.abs(), y.slack) + times(xr, yr)
        return Symbolic(coef, const, slack)

    def rsip(form: Form, x: InputShape, y: InputShape, *, pre: Pair) -> tuple[Form, Form]:
        (xc, xr), (yc, yr) = _centre(pre[0]), _centre(pre[1])
        const = contract(form.coef.abs(), times(xr, yr)) - contract(form.coef, times(xc, yc))
        left, right = _pull(times, form.coef, xc, yc)
        return Form(left, form.const + const), Form(right, torch.zeros_like(const))

    return Rule(name, ibp, ssip, rsip, "product", inputs=(0, 1), joint=True)


def _centre(x: Interval) -> tuple[Tensor, Tensor]:
    return (x.lower + x.upper) / 2, (x.upper - x.lower) / 2


def _pull(times: Callable[[Tensor, Tensor], Tensor], rows: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The rows `[B, K, *S]` through both partial products: by autograd, on inputs repeated for each row."""
    shape = rows.shape[:2]
    xs, ys = (value.unsqueeze(1).expand(*shape, *value.shape[1:]) for value in (x, y))
    left = torch.func.vjp(lambda v: times(v, ys), xs)[1](rows)[0]
    right = torch.func.vjp(lambda v: times(xs, v), ys)[1](rows)[0]
    return left, right


def _elementwise_corners(x: Interval, y: Interval) -> Interval:
    ends = [a * b for a in x for b in y]
    lower = torch.minimum(torch.minimum(ends[0], ends[1]), torch.minimum(ends[2], ends[3]))
    upper = torch.maximum(torch.maximum(ends[0], ends[1]), torch.maximum(ends[2], ends[3]))
    return Interval(lower, upper)


def _matrix_corners(x: Interval, y: Interval) -> Interval:
    """Each of the summed products by centre and radius: |x y - x_c y_c| <= |x_c| y_r + x_r |y_c| + x_r y_r."""
    (xc, xr), (yc, yr) = _centre(x), _centre(y)
    middle = xc @ yc
    reach = xc.abs() @ yr + xr @ (yc.abs() + yr)
    return Interval(middle - reach, middle + reach)


register(__name__, bilinear("product", torch.mul, _elementwise_corners), product)
register(__name__, bilinear("matrix_product", torch.matmul, _matrix_corners), matrix_product)
