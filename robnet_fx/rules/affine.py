"""Affine operations: from the operation itself, and where its weights have signs from |W|, all three rules follow."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic, contract, fold, unfold
from robnet_fx.rules.registry import Refusal, Rule

Function = Callable[..., Tensor]


def affine(
    name: str,
    f: Function,
    lin: Function | None = None,
    abs_f: Function | None = None,
    transpose: Callable[..., Any] | None = None,
    *,
    inputs: tuple[int, ...] = (0,),
    joint: bool = False,
    sums: bool = False,
    offset: tuple[int, ...] = (),
    supports: Refusal | None = None,
) -> Rule:
    """The rule of `y = f(x, ...) = W x + b`, for one bounded input or several.

    `lin` is W without b (default: f itself); `abs_f` is |W| without b, left out where W >= 0, as for pooling and moves.
    `transpose(g [N, *S_out], *args)` is W^T g with a `InputShape` where x was, left out where autograd's will do.
    `sums` is said of matrices and kernels, see `Rule`.
    `offset` are the arguments that belong to b where they are constant (add, cat, where): W is f with these set to 0.
    """
    slope = lin or f
    magnitude = abs_f or slope
    pure = lin is None and not offset  # f has no b

    def part(function: Function, args: Any, kwargs: Any, domain: type, pick: Callable[[Any], Tensor]) -> Tensor:
        return function(*_place(args, domain, pick, offset), **kwargs)

    def whole(args: Any, kwargs: Any, domain: type, pick: Callable[[Any], Tensor]) -> Tensor:
        return f(*_place(args, domain, pick), **kwargs)

    def ibp(*args: Any, **kwargs: Any) -> Interval:
        if abs_f is None:  # W >= 0: monotone, so the ends map to the ends
            return Interval(*(whole(args, kwargs, Interval, itemgetter(end)) for end in (0, 1)))
        middle = whole(args, kwargs, Interval, lambda x: (x.lower + x.upper) / 2)
        reach = part(magnitude, args, kwargs, Interval, lambda x: (x.upper - x.lower) / 2)
        return Interval(middle - reach, middle + reach)

    def ssip(*args: Any, **kwargs: Any) -> Symbolic:
        like = _bounded(args, Symbolic)[0].coef
        coef = unfold(part(slope, args, kwargs, Symbolic, lambda x: fold(x.coef)), like)
        const = whole(args, kwargs, Symbolic, lambda x: x.const)
        return Symbolic(coef, const, part(magnitude, args, kwargs, Symbolic, lambda x: x.slack))

    def rsip(form: Form, *args: Any, **kwargs: Any) -> Form | tuple[Form, ...]:
        rows = fold(form.coef)
        const = form.const
        if not pure:
            const = const + contract(form.coef, whole(args, kwargs, InputShape, lambda s: rows.new_zeros(1, *s.dims)))
        if transpose is not None:
            pulled = (transpose(rows, *args, **kwargs),)
        else:
            starts = [rows.new_zeros(rows.shape[0], *shape.dims) for shape in _bounded(args, InputShape)]

            def along(*xs: Tensor) -> Tensor:
                values = iter(xs)
                return part(slope, args, kwargs, InputShape, lambda _: next(values))

            pulled = torch.func.vjp(along, *starts)[1](rows)
        consts = [const] + [torch.zeros_like(const)] * (len(pulled) - 1)
        forms = tuple(Form(unfold(g, form.coef), c) for g, c in zip(pulled, consts, strict=True))
        return forms[0] if len(forms) == 1 else forms

    return Rule(
        name,
        ibp,
        ssip,
        rsip,
        "affine",
        inputs=inputs,
        joint=joint,
        sums=sums,
        supports=supports,
    )


def _bounded(args: Any, domain: type) -> list[Any]:
    """The values of `domain` among the arguments, lists included, in order."""
    if isinstance(args, domain):
        return [args]
    if isinstance(args, (list, tuple)):
        return [value for arg in args for value in _bounded(arg, domain)]
    return []


def _place(args: Any, domain: type, pick: Callable[[Any], Tensor], zero: tuple[int, ...] = ()) -> Any:
    """The arguments with every value of `domain` replaced by `pick(value)`, and constants at `zero` by 0."""
    return [_put(arg, domain, pick, position in zero) for position, arg in enumerate(args)]


def _put(arg: Any, domain: type, pick: Callable[[Any], Tensor], zero: bool) -> Any:
    if isinstance(arg, domain):
        return pick(arg)
    if isinstance(arg, (list, tuple)):
        return type(arg)([_put(a, domain, pick, zero) for a in arg])
    if zero and isinstance(arg, (Tensor, int, float)):
        return torch.zeros_like(arg) if isinstance(arg, Tensor) else 0
    return arg
