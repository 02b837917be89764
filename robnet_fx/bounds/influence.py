"""By which coefficients a box is split: those that move the first relaxed value most."""

from __future__ import annotations

from torch import Tensor

from robnet_fx.bounds import generator
from robnet_fx.bounds.evaluate import evaluate
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.plan import plan
from robnet_fx.perturbations.base import Box


def influence(net: BoundedModel, images: Tensor, box: Box) -> Tensor:
    """`[B, D]`: how much each coefficient moves the first value that a relaxation reads over a box `[1 or B, D]`, its
    |column| summed over the units.

    What splitting is to win are the errors of relaxations. They follow the widths of what is relaxed, and the slopes
    of a margin do not tell these: in it the paths through the network cancel. Methods without SSIP know the radius
    only. images `[B, *S]` in the net's dtype.
    """
    described = plan(net.perturbed, net.method)
    if not described.symbolic:
        return box.radius.expand(len(images), -1)
    found: Tensor = evaluate(generator.influence(described), len(images), images, *box)
    return found
