"""Batch norm of an interval: ends map to ends, to the last bit."""

from __future__ import annotations

import torch

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules import rule_for


def test_equal_ends_stay_equal():
    """The zeros that a ReLU leaves tie in max pooling behind, whatever their other ends are."""
    generator = torch.Generator().manual_seed(0)
    upper = torch.rand(4, 2, 8, 8, generator=generator)
    weight, bias, mean, var = (torch.tensor(pair) for pair in ((0.7, -1.3), (0.1, 0.2), (0.3, -0.4), (0.9, 1.7)))
    arguments = (weight, bias, mean, var, False, 0.1, 1e-5, False)
    rule = rule_for(torch.ops.aten.batch_norm.default)
    found = rule.ibp(Interval(torch.zeros_like(upper), upper), *arguments)
    assert bool((found.lower <= found.upper).all())
    assert len(found.lower[:, 0].unique()) == 1
    assert len(found.upper[:, 1].unique()) == 1
