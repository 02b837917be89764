"""The larger of two bounded values, written `y + relu(x - y)`, in which their difference keeps what they share."""

from __future__ import annotations

from dataclasses import replace

import torch

from robnet_fx.algebra.domains import Interval, intersect
from robnet_fx.algebra.ops import larger
from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

_sum = affine("larger", larger, inputs=(0, 1, 2), joint=True)


def larger_ibp(x: Interval, y: Interval, excess: Interval) -> Interval:
    """The box's own maximum: the sum alone counts y twice."""
    box = Interval(torch.maximum(x.lower, y.lower), torch.maximum(x.upper, y.upper))
    return intersect(box, _sum.ibp(x, y, excess))


register(__name__, replace(_sum, ibp=larger_ibp), larger)
