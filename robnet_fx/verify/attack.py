"""Gradient ascent in the coefficients: fields of the box that fool the network, an upper limit on any certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches, check, to_float
from robnet_fx.machine import ranks
from robnet_fx.machine.precision import full_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.verify.certificate import in_dtype
from robnet_fx.verify.verdict import classify

_FIRST_STEP, _LAST_STEP = 0.5, 0.01  # in units of the radius, shrinking geometrically


@dataclass(frozen=True)
class AttackResult:
    """`[N]` on the CPU: correct unperturbed, and fooled by some field of the box (the margin there is >= 0).

    `coefficients [N, D]` float64 is the worst field found, in physical units; `margin [N]` the largest other logit
    minus the label's under it.
    """

    correct: Tensor
    adversarial: Tensor
    coefficients: Tensor
    margin: Tensor

    @property
    def accuracy(self) -> float:
        """The share of images correct unperturbed and under every field that was tried."""
        return float((self.correct & ~self.adversarial).double().mean())


def attack(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 40,
    restarts: int = 4,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress = SILENT,
) -> AttackResult:
    """Search the box of `net` for fields that fool it, by signed gradient ascent on the margin with shrinking steps.

    images `[N, C, *spatial]` uint8 or float in [0, 1], labels `[N]`. The first start is the centre of the box, the
    others are random corners and points, the same for every sample: a sample's result does not hang on its
    neighbours. A sample that is fooled leaves the batch. The climb runs in the dtype of `net`; what was found counts
    only if it fools the same network in float64, the arithmetic of `certify`.
    """
    check(images, labels, net.classes)
    if steps < 0 or restarts < 1:
        raise UsageError(f"an attack needs steps >= 0 and restarts >= 1, not {steps} and {restarts}")
    starts = _starts(len(net.center), restarts, seed).to(net.center)

    def search(own: slice) -> tuple[Tensor]:
        pictures, targets, best = images[own], labels[own].to(starts.device), []
        with full_precision(), progress.task("attacking", len(pictures)) as task:
            for part in batches(len(pictures), batch_size):
                best.append(_climb(net, to_float(pictures[part], net.center), targets[part], starts, steps).cpu())
                task.advance(len(best[-1]))
        return (torch.cat(best),)

    (worst,) = ranks.spread(len(images), search)
    return _confirm(in_dtype(net, torch.float64), images, labels, worst, batch_size)


def _starts(dimensions: int, restarts: int, seed: int) -> Tensor:
    """`[restarts, D]` in [-1, 1]: the centre, then corners and inner points in turn."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(restarts, dimensions, dtype=torch.float64, generator=generator) * 2 - 1
    points[1::2] = torch.where(points[1::2] < 0, -1.0, 1.0)
    points[0] = 0
    return points


def _climb(net: BoundedModel, images: Tensor, labels: Tensor, starts: Tensor, steps: int) -> Tensor:
    """`[B, D]`: the worst point of the unit box that was met."""
    best = starts[0].repeat(len(images), 1)
    highest = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
    for start in starts:
        t = start.repeat(len(images), 1)
        for step in range(steps + 1):
            alive = (highest < 0).nonzero().squeeze(1)
            if not len(alive):
                return best
            here = t[alive].requires_grad_()
            with torch.enable_grad():
                logits = net.perturbed(net.center + net.radius * here, images[alive])
                margin = worst_margin(logits, labels[alive])
                slope = torch.autograd.grad(margin.sum(), here)[0] if step < steps else torch.zeros_like(here)
            higher = margin.detach() > highest[alive]
            risen = alive[higher]
            best[risen], highest[risen] = here.detach()[higher], margin.detach()[higher]
            size = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / max(steps - 1, 1))
            t[alive] = (here.detach() + size * slope.sign()).clamp(-1, 1)
    return best


@torch.no_grad()
def _confirm(net: BoundedModel, images: Tensor, labels: Tensor, t: Tensor, batch_size: int) -> AttackResult:
    """Judge the points `t [N, D]` of the unit box by the network they are given."""
    _, right = classify(net, images, labels, batch_size=batch_size)
    coefficients = net.center + net.radius * t.to(net.center)
    margins = []
    for part in batches(len(images), batch_size):
        logits = net.perturbed(coefficients[part], to_float(images[part], net.center))
        margins.append(worst_margin(logits, labels[part].to(logits.device)).cpu())
    margin = torch.cat(margins)
    return AttackResult(right, ~(margin < 0), coefficients.cpu(), margin)
