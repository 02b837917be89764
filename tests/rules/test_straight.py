"""Rules that say their operation is made of straight pieces: over a small interval away from kinks nothing is lost, and
with every other rule something is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval, Symbolic
from robnet_fx.rules import rule_for
from tests.rules.cases import CASES, Case, name_of
from tests.soundness import draws

RELAXED = [case for case in CASES if not rule_for(case.target).affine]
SMALL = 1e-6


@pytest.mark.parametrize("case", RELAXED, ids=name_of)
def test_only_straight_operations_have_no_errors_away_from_kinks(case: Case):
    r, (start, end) = draws(0), case.domain
    points = [r(20, *shape).clamp(max(start, -4) + 0.1, min(end, 4) - 0.1) for shape in case.shapes]

    def around(point: Tensor) -> Symbolic:
        return Symbolic(torch.full_like(point, SMALL).unsqueeze(1), point, torch.zeros_like(point))

    pres = tuple(Interval(point - SMALL, point + SMALL) for point in points)
    args, kwargs = case.call(r, *map(around, points))
    made = rule_for(case.target).ssip(*args, pre=pres[0] if len(pres) == 1 else pres, **kwargs)
    assert bool((made.slack == 0).all()) == rule_for(case.target).straight
