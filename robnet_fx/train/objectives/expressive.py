"""Convex combinations of an adversarial and a certified loss, in the coefficients of a perturbation.

MTL-IBP, CC-IBP and Exp-IBP of De Palma et al., "Expressive Losses for Verified Robustness via Convex Combinations"
(ICLR 2024), on whatever bounds the network has. `z_adv` are margins at a point found by gradient ascent, `z_ver` upper
margins over the box or a part of it, and L the cross entropy of margins: `log(1 + sum_i exp(z_i))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from robnet_fx.bounds.evaluate import other_classes
from robnet_fx.errors import UsageError
from robnet_fx.train.objectives.base import Batch, Found, Objective, Wanted
from robnet_fx.train.objectives.parts import Weakest

_SMALLEST = 1e-6  # of a loss whose logarithm is taken


@dataclass(frozen=True)
class Combined(Weakest, Objective):
    """`share` of the certified loss and the rest of the adversarial one, of all samples, as `combine` has it."""

    share: float = 0.5
    steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.share) and 0 <= self.share <= 1):
            raise UsageError(f"share is that of the certified loss, in [0, 1], not {self.share}")

    def wanted(self, batch: Batch) -> Wanted:
        """All samples, each over its part and at the point that the part is built around."""
        everybody = torch.ones_like(batch.right)
        box, point = self.find(batch, everybody)
        return Wanted(everybody, box, point)

    def losses(self, found: Found) -> dict[str, Tensor]:
        """`robust`: the combination, summed over these samples, 0-d."""
        assert found.logits is not None
        label = found.logits.gather(1, found.labels.unsqueeze(1))
        adversarial = found.logits.gather(1, other_classes(found.labels, found.logits.shape[1])) - label
        return {"robust": self.combine(adversarial, found.margins).sum()}

    def combine(self, adversarial: Tensor, certified: Tensor) -> Tensor:
        """Margins `[n, classes - 1]` at the point and over the part -> losses `[n]`."""
        raise NotImplementedError


@dataclass(frozen=True)
class MTL(Combined):
    """`(1 - share) L(z_adv) + share L(z_ver)`."""

    def combine(self, adversarial: Tensor, certified: Tensor) -> Tensor:
        return (1 - self.share) * _entropy(adversarial) + self.share * _entropy(certified)


@dataclass(frozen=True)
class CC(Combined):
    """`L((1 - share) z_adv + share z_ver)`."""

    def combine(self, adversarial: Tensor, certified: Tensor) -> Tensor:
        return _entropy((1 - self.share) * adversarial + self.share * certified)


@dataclass(frozen=True)
class Exp(Combined):
    """`L(z_adv) ** (1 - share) * L(z_ver) ** share`."""

    def combine(self, adversarial: Tensor, certified: Tensor) -> Tensor:
        adversarial, certified = (_entropy(margins).clamp_min(_SMALLEST) for margins in (adversarial, certified))
        return adversarial ** (1 - self.share) * certified**self.share


def _entropy(margins: Tensor) -> Tensor:
    """`[n]`: `log(1 + sum_i exp(margin_i))`, the cross entropy of logits with these margins to the label."""
    return pad(margins, (1, 0)).logsumexp(1)
