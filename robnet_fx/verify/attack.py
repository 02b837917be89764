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
from robnet_fx.verify.ascent import RESTARTS, STEPS, climb, starting_points
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.verdict import classify


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
    steps: int = STEPS,
    restarts: int = RESTARTS,
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
    starts = starting_points(len(net.center), restarts, seed).to(net.center)

    def search(own: slice) -> tuple[Tensor]:
        pictures, targets, best = images[own], labels[own].to(starts.device), []
        with full_precision(), progress.task("attacking", len(pictures)) as task:
            for part in batches(len(pictures), batch_size):
                own_pictures = to_float(pictures[part], net.center)
                best.append(climb(net, own_pictures, targets[part], starts, steps, until_fooled=True).cpu())
                task.advance(len(best[-1]))
        return (torch.cat(best),)

    (worst,) = ranks.spread(len(images), search)
    return _confirm(in_dtype(net, torch.float64), images, labels, worst, batch_size)


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
