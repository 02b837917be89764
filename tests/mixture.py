"""An objective unlike equation 6 in everything the trainer may not take for granted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.train.objectives import Batch, Found, Objective, Wanted
from robnet_fx.verify.ascent import climb, starting_points


@dataclass(frozen=True)
class Mixture(Objective):
    """`share` of the cross entropy over upper margins and the rest of that at the end of a climb, for all samples, with
    half of the standard one; how many samples survive the climb is shown beside."""

    share: float = 0.5
    steps: int = 2

    def weights(self, alpha: float) -> dict[str, float]:
        return {
            "standard": 0.5,
            "robust": alpha * self.share,
            "adversarial": alpha * (1 - self.share),
            "surviving": 0.0,
        }

    def wanted(self, batch: Batch) -> Wanted:
        net = batch.net
        starts = starting_points(len(net.center), 2, 0)
        t = climb(net, batch.images, batch.labels, starts, self.steps)
        return Wanted(torch.ones_like(batch.right), points=net.center + net.radius * t)

    def losses(self, found: Found) -> dict[str, Tensor]:
        assert found.logits is not None
        upper = torch.cat([torch.zeros_like(found.margins[:, :1]), found.margins], 1)
        return {
            "robust": cross_entropy(upper, torch.zeros_like(found.labels), reduction="sum"),
            "adversarial": cross_entropy(found.logits, found.labels, reduction="sum"),
            "surviving": (worst_margin(found.logits, found.labels).detach() < 0).sum().to(found.logits.dtype),
        }
