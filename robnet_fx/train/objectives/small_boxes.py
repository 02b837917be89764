"""Equation 6 over a part of the box: what a verdict that splits has to prove next."""

from __future__ import annotations

from dataclasses import dataclass

from robnet_fx.train.objectives.base import Batch, Wanted
from robnet_fx.train.objectives.equation_6 import Equation6
from robnet_fx.train.objectives.parts import Weakest


@dataclass(frozen=True)
class SmallBoxes(Weakest, Equation6):
    """`sum_i max(0, upper margin_i)` of the correct samples over the weakest part of each one's box.

    At the cost of equation 6 on the whole box and `cuts` forward passes, `steps` more with their gradients."""

    cuts: int = 8

    def wanted(self, batch: Batch) -> Wanted:
        """The correct samples, each over its part."""
        box, _ = self.find(batch, batch.right)
        return Wanted(batch.right, box)
