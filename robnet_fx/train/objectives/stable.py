"""Errors of relaxations over sampled parts of the box, for networks whose bounds say nothing yet.

Xiao et al., "Training for Faster Adversarial Robustness Verification via Inducing ReLU Stability" (ICLR 2019), lower
how many units may change sign, by interval bounds. Those of a deep network are far from true; here the intervals are
those of values that were seen, the errors those of each operation's own relaxation, and no bound is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robnet_fx.bounds.sampled import sampled_errors
from robnet_fx.errors import UsageError
from robnet_fx.train.objectives.base import Batch, Objective, Outcome
from robnet_fx.train.objectives.parts import check_tau
from robnet_fx.verify.ascent import climb


@dataclass(frozen=True)
class Stable(Objective):
    """The cross entropy at an adversary's point, and `weight` times the errors of relaxations over a part around it.

    `steps` of signed gradient ascent on the margin start at a random point of each sample's box. The part has `tau`
    times every radius and lies around the point that was reached, moved inside as far as it must be; the errors are
    those over the range of values at this point and at `points` random corners of the part (`bounds.sampled`), summed
    over the units of a node, meant over nodes. Raises `UsageError`.
    """

    tau: float = 0.5
    points: int = 3
    steps: int = 1
    weight: float = 2.0

    bounded = False

    def __post_init__(self) -> None:
        if self.points < 1 or self.steps < 0:
            raise UsageError(f"stable needs points >= 1 and steps >= 0, not {self.points} and {self.steps}")
        check_tau(self.tau)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UsageError(f"weight must be finite and at least 0, not {self.weight}")

    def weights(self, alpha: float) -> dict[str, float]:
        """Cross entropy + alpha * (adversarial + weight * error)."""
        return {"standard": 1.0, "adversarial": alpha, "error": alpha * self.weight}

    def accumulate(self, batch: Batch) -> Outcome:
        """The gradients of both losses, of all samples; nobody is bounded."""
        with torch.no_grad():
            points = self.sample(batch)
        totals = batch.nothing()
        size = batch.part or len(batch.images)
        for images, labels, own in zip(
            batch.images.split(size), batch.labels.split(size), points.split(size, 1), strict=True
        ):
            logits, errors = sampled_errors(batch.net.perturbed, own, images)
            errors = [error for error in errors if error.requires_grad]  # the clip's are what they are
            losses = {
                "adversarial": cross_entropy(logits[0], labels, reduction="sum"),
                "error": sum(errors, logits.new_zeros(len(images))).sum() / max(len(errors), 1),
            }
            batch.descend(losses, totals)
        nobody = torch.zeros_like(batch.right)
        return Outcome(totals, nobody, nobody)

    def sample(self, batch: Batch) -> Tensor:
        """Coefficients `[1 + points, B, D]`: the adversary's points, then corners of the parts around them."""
        net, images = batch.net, batch.images
        start = 2 * torch.rand(1, len(images), len(net.center), dtype=images.dtype, device=images.device) - 1
        worst = climb(net, images, batch.labels, start, self.steps)
        signs = torch.randint(0, 2, (self.points, *worst.shape), device=images.device) * 2 - 1
        corners = worst.clamp(self.tau - 1, 1 - self.tau) + self.tau * signs
        return net.center + net.radius * torch.cat([worst.unsqueeze(0), corners])
