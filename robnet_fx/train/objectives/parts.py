"""Which part of the box a training step bounds: one around a field that the network copes with badly.

A verdict that splits proves parts of the box, so the bound that training lowers may be that of a part. For pixels this
is SABR (Müller et al., "Certified Training: Small Boxes are All You Need", ICLR 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Box
from robnet_fx.train.objectives.base import Batch
from robnet_fx.verify.ascent import climb

_COMPARED = 16  # parts at least, where epochs are compared


def check_tau(tau: float) -> None:
    """`UsageError` unless a part of a box can have `tau` times its radii."""
    if not (math.isfinite(tau) and 0 < tau <= 1):
        raise UsageError(f"tau is a share of the radii, above 0 and at most 1, not {tau}")


@dataclass(frozen=True)
class Weakest:
    """The part of each sample's box that is bounded, and how it is found.

    The widest coefficient is cut into `cuts` equal pieces; the one with the largest margin at its middle is kept. In it
    `steps` of signed gradient ascent on the margin lead to a point; the part has `tau` times every radius and lies
    around that point, moved inside as far as it must be. `cuts=1, tau=1` is the whole box. Raises `UsageError`.
    """

    cuts: int = 1
    tau: float = 1.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.cuts < 1 or self.steps < 0:
            raise UsageError(f"a part needs cuts >= 1 and steps >= 0, not {self.cuts} and {self.steps}")
        check_tau(self.tau)

    @property
    def boxes(self) -> int:
        """Where parts are trained on, as many as it takes to get down to their size."""
        return 1 if self.cuts == self.tau == 1 else max(_COMPARED, 2 * self.cuts)

    def find(self, batch: Batch, chosen: Tensor) -> tuple[Box, Tensor]:
        """(the parts `[B, D]` each, a point `[B, D]` in each of them), for the samples chosen, `bool [B]`; the others
        have the whole box and its middle. To be called without gradients, as `wanted` is."""
        net, index = batch.net, chosen.nonzero().squeeze(1)
        center, radius = (value.expand(len(chosen), -1).clone() for value in (net.center, net.radius))
        point = center.clone()
        if len(index):
            images, labels = batch.images[index], batch.labels[index]
            box = self._cut(batch, images, labels, Box(center[index], radius[index]))
            t = torch.zeros_like(box.center)
            if self.steps:
                t = climb(net, images, labels, t[None], self.steps, box=box)
            point[index] = box.center + box.radius * t
            center[index] = box.center + box.radius * t.clamp(self.tau - 1, 1 - self.tau)
            radius[index] = self.tau * box.radius
        return Box(center, radius), point

    def _cut(self, batch: Batch, images: Tensor, labels: Tensor, box: Box) -> Box:
        """Of the cuts of the widest coefficient the one with the largest margin at its middle."""
        if self.cuts == 1:
            return box
        widest = int(batch.net.radius.argmax())
        step = torch.zeros_like(batch.net.radius)
        step[widest] = batch.net.radius[widest] / self.cuts
        best, height = box.center, torch.full_like(labels, -torch.inf, dtype=images.dtype)
        for place in range(1 - self.cuts, self.cuts, 2):
            middle = box.center + place * step
            margin = worst_margin(batch.net.perturbed(middle, images), labels)
            higher = margin > height
            best = torch.where(higher.unsqueeze(1), middle, best)
            height = torch.where(higher, margin, height)
        radius = box.radius.clone()
        radius[:, widest] /= self.cuts
        return Box(best, radius)
