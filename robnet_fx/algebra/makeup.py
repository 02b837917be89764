"""What the width of a symbolic value is made of: the coefficients of the perturbation, error symbols, and slack."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from robnet_fx.algebra import kernels, symbols
from robnet_fx.algebra.domains import Symbolic


class Makeup(NamedTuple):
    """Half the width of a value by where it comes from, `[B, *S]` each, and how many symbols of a sample it has, `[B]`.

    `kept` counts the symbols whose column is not 0 everywhere in the value.
    """

    coefficients: Tensor
    symbols: Tensor
    slack: Tensor
    kept: Tensor


def makeup(x: Symbolic, dimensions: int) -> Makeup:
    """The makeup of a value whose first `dimensions` columns are those of the perturbation."""
    errors = x.coef[:, dimensions:]
    kept = kernels.flat(errors != 0, 2).any(2).sum(1)
    return Makeup(kernels.reach(x.coef[:, :dimensions]), kernels.reach(errors), x.slack, kept)


def columns(x: Symbolic) -> Tensor:
    """`[B, D + E]`: what each column adds to half the widths of all units together."""
    return kernels.flat(x.coef.abs(), 2).sum(2)


def born(before: Symbolic, after: Symbolic) -> Tensor:
    """`[B, D + E]`: which columns of a relaxed value the birth of its symbols has changed: those they have now."""
    old, new = symbols.widened(before.coef, after.coef.shape[1]), after.coef
    return kernels.flat(old != new, 2).any(2)
