"""Boxes of logits, points of them, and the symbolic value that has a coefficient for each logit."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval, Symbolic
from tests.soundness import draws

B = 30
RADII = (1e-6, 1e-3, 0.03, 0.3, 1.0, 4.0, 30.0)


def box(radius: float, size: int, spread: float = 2.0, dtype: torch.dtype = torch.float64) -> Interval:
    """Boxes `[B, size]` of several widths each; in the last one logits coincide."""
    r = draws(size)
    centre, half = spread * r(B, size), radius * (0.2 + r(B, size).abs())
    centre[-1] = centre[-1, 0]
    return Interval((centre - half).to(dtype), (centre + half).to(dtype))


def points(pre: Interval) -> Tensor:
    """`[N, B, size]`: corners, all of few and some of many, those with one logit against all others, inner points."""
    lower, upper = (end.double() for end in pre)
    size = lower.shape[-1]
    signs = torch.randint(0, 2, (200, size)) if size > 7 else torch.tensor([*itertools.product((0, 1), repeat=size)])
    weights = torch.cat([signs, torch.eye(size), 1 - torch.eye(size), torch.rand(50, size)]).double().unsqueeze(1)
    return lower + weights * (upper - lower)


def identity(pre: Interval) -> Symbolic:
    """Each logit its own coefficient, so that a point of the box is one of t."""
    radius = (pre.upper - pre.lower) / 2
    return Symbolic(torch.diag_embed(radius), pre.lower + radius, torch.zeros_like(radius))


def position(pre: Interval, x: Tensor) -> Tensor:
    radius = (pre.upper.double() - pre.lower.double()) / 2
    return (x - pre.lower.double() - radius) / torch.where(radius > 0, radius, 1.0)
