"""Gradient ascent in the coefficients of a perturbation: what an attack climbs by, and a training step may."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Box

Height = Callable[[Tensor, Tensor], Tensor]
STEPS, RESTARTS = 40, 4
"""Of an attack, unless said."""

_FIRST_STEP, _LAST_STEP = 0.5, 0.01  # in units of the radius, shrinking geometrically


def starting_points(dimensions: int, restarts: int, seed: int) -> Tensor:
    """`[restarts, D]` float64 in [-1, 1]: the centre of the box, then random corners and inner points in turn."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(restarts, dimensions, dtype=torch.float64, generator=generator) * 2 - 1
    points[1::2] = torch.where(points[1::2] < 0, -1.0, 1.0)
    points[0] = 0
    return points


def climb(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    starts: Tensor,
    steps: int,
    *,
    box: Box | None = None,
    until_fooled: bool = False,
) -> Tensor:
    """The worst point `t [B, D]` of the unit box that was met, by signed gradient ascent on the margin.

    labels `[B]`: worst is where the largest other logit minus the label's is highest. `until_fooled`: a sample rests at
    the first point whose margin is not below 0, which is all an attack asks for. Otherwise as `ascend`.
    """
    until = 0.0 if until_fooled else torch.inf
    return ascend(net, images, lambda logits, who: worst_margin(logits, labels[who]), starts, steps, box, until)


def ascend(
    net: BoundedModel,
    images: Tensor,
    height: Height,
    starts: Tensor,
    steps: int,
    box: Box | None = None,
    until: float = torch.inf,
) -> Tensor:
    """The highest point `t [B, D]` of the unit box that was met, by signed gradient ascent.

    images `[B, C, *spatial]` in [0, 1] and in the dtype of `net`. The coefficients at `t` are
    `box.center + box.radius * t`; `box` is `[1 or B, D]` each, that of `net` if not given. `height(logits [b, classes],
    samples [b])` is what rises, `[b]`. From each of `starts`, `[R, D]` in [-1, 1] for all samples alike or
    `[R, B, D]`, it takes `steps` steps that shrink from 1/2 to 1/100 of the radius; with 0 steps it judges the starts.
    A sample rests at the first point that is not below `until`.

    The network runs in eval semantics whatever its mode, and no parameter's gradient is touched, so that a training
    step may climb in between. What is not a number is never highest: where all are, `t` is the first start.
    """
    center, radius = (net.center, net.radius) if box is None else box
    center, radius = center.expand(len(images), -1), radius.expand(len(images), -1)
    points = starts.to(images).reshape(len(starts), -1, starts.shape[-1]).expand(-1, len(images), -1)
    best = points[0].clone()
    highest = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
    for start in points:
        t = start.clone()
        for step in range(steps + 1):
            alive = (highest < until).nonzero().squeeze(1)
            if not len(alive):
                return best
            here = t[alive].requires_grad_()
            with torch.enable_grad():
                logits = net.perturbed(center[alive] + radius[alive] * here, images[alive])
                now = height(logits, alive)
                slope = torch.autograd.grad(now.sum(), here)[0] if step < steps else torch.zeros_like(here)
            higher = now.detach() > highest[alive]
            risen = alive[higher]
            best[risen], highest[risen] = here.detach()[higher], now.detach()[higher]
            size = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / max(steps - 1, 1))
            t[alive] = (here.detach() + size * slope.sign()).clamp(-1, 1)
    return best
