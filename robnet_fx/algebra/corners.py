"""Where in the box a symbolic value is highest, and what others are there: RSIP's lines can be tight at that place.

A value's *course* is its form without errors, how it runs with the D coefficients alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic


def error(x: Symbolic, dimensions: int) -> Tensor:
    """`[B, *S]`: what of a value's radius is due to relaxations, symbols and slack."""
    return kernels.reach(x.coef[:, dimensions:]) + x.slack


def course(x: Symbolic, dimensions: int) -> Symbolic:
    """A value without its errors: how it runs with the D coefficients. Nothing of it takes gradients."""
    coef = x.coef[:, :dimensions].detach().clone()  # of its own, for the errors shall not be kept with it
    return Symbolic(coef, x.const.detach(), torch.zeros_like(x.const))


def corner(x: Symbolic, dimensions: int) -> Tensor:
    """`[B, K, D]`: the corner of the coefficients' box, in units of t, where a symbolic value of shape K is highest."""
    return x.coef[:, :dimensions].detach().sign().transpose(1, 2)


def at(x: Symbolic, corners: Tensor) -> Tensor:
    """`[B, K, *S]`: a value's course at each of the corners `[B, K, D]`, in the order of memory of its columns."""
    order = kernels.as_stored(x.coef)
    stored = x.coef.permute(order)
    moved = (corners @ kernels.flat(stored, 2)).reshape(*corners.shape[:2], *stored.shape[2:])
    return kernels.unordered(moved, order) + x.const.unsqueeze(1)
