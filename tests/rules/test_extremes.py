"""Maxima, minima and what is made of them, as torch.export leaves them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from robnet_fx import BiasField
from robnet_fx.algebra.domains import Interval
from robnet_fx.algebra.ops import larger
from robnet_fx.passes.lower import lower
from robnet_fx.rules import rule_for
from robnet_fx.testing import check_sound
from tests.rules.around import IMAGE, names, traced
from tests.soundness import draws

FUNCTIONS = {
    "maximum": lambda m, x: torch.maximum(x, x.flip(1) * 2 - 0.1),
    "maximum-broadcast": lambda m, x: torch.maximum(x, x.mean(1, keepdim=True)),
    "maximum-constant": lambda m, x: torch.maximum(m.token[0], x),
    "maximum-itself": lambda m, x: torch.maximum(x, x),
    "minimum": lambda m, x: torch.min(x, x.roll(1, 2)),
    "minimum-constant": lambda m, x: torch.minimum(x, m.token[0]),
    "fmax": lambda m, x: torch.fmax(x, -x) - torch.fmin(x, x * 0.5),
    "clamp-tensors": lambda m, x: x.clamp(m.token[0] - 0.2, m.token[0] + 0.1),
    "clamp-low": lambda m, x: x.clamp_min(0.1) + x.clamp_max(0.2) + x.clamp(min=m.token[0]),
    "maxout": lambda m, x: x.reshape(x.shape[0], 2, 2, 4, 4).amax(2),
    "amax-plane": lambda m, x: x.amax((-2, -1), keepdim=True) - x,
    "amax-first": lambda m, x: x.max(1).values,
    "amin": lambda m, x: x.amin(1) - x.min(-1, keepdim=True)[0].mean(1),
    "adaptive": lambda m, x: F.adaptive_max_pool2d(x, (2, 4)),
    "adaptive-uneven": lambda m, x: F.adaptive_max_pool2d(x, (3, 1)),
    "adaptive-line": lambda m, x: F.adaptive_max_pool1d(x.flatten(2), 5),
    "adaptive-space": lambda m, x: F.adaptive_max_pool3d(x.unsqueeze(1), (2, None, 1)),
    "var": lambda m, x: x.var(1) + x.var((2, 3), correction=0, keepdim=True)[:, 0],
    "std": lambda m, x: (x + torch.arange(4.0, dtype=x.dtype)).std(-1),
    "norm": lambda m, x: F.normalize(x + 2, dim=1) + x.norm(p=1, dim=2, keepdim=True),
    "einsum": lambda m, x: torch.einsum("bhcd,bhed->bech", x[:, :2], x[:, 2:]),
    "einsum-outer": lambda m, x: torch.einsum("bi,bj->bji", x[:, 0, 0], x[:, 1, 1]),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_coefficient_leaves_a_bound(name: str):
    graph = traced(FUNCTIONS[name])
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    check_sound(graph, BiasField(1, 0.3, additive=True), images, climbs=1)
    images = torch.randn(5, *IMAGE, dtype=torch.float64)
    torch.testing.assert_close(lower(graph)(images), graph.model(images))


def test_the_interval_of_a_maximum_is_the_box_s_own():
    """Where `y + relu(x - y)` would count y twice: x in [0, 1], y in [0, 1] give [0, 1], not [0, 2]."""
    unit = Interval(torch.zeros(1, 1), torch.ones(1, 1))
    bounds = rule_for(larger).ibp(unit, unit, unit)
    assert bounds.lower.item() == 0 and bounds.upper.item() == 1


def test_the_interval_of_a_maximum_is_no_wider_than_the_sum():
    """`y + excess` counts where it is the tighter one, at either end, and the box everywhere else."""
    r = draws(1)
    x, y, excess = (Interval(low, low + r(200).abs()) for low in (r(200), r(200), r(200).abs()))
    lower, upper = rule_for(larger).ibp(x, y, excess)
    corners = torch.stack([torch.maximum(a, b) for a in x for b in y])
    meet = (corners.amin(0) <= y.upper + excess.upper) & (y.lower + excess.lower <= corners.amax(0))  # or else absurd
    torch.testing.assert_close(lower[meet], torch.maximum(corners.amin(0), y.lower + excess.lower)[meet])
    torch.testing.assert_close(upper[meet], torch.minimum(corners.amax(0), y.upper + excess.upper)[meet])


def test_a_maximum_keeps_what_its_values_share():
    """max(x, x + 1) = x + 1 for whatever x: the difference is a constant, and nothing is lost."""
    graph = traced(lambda m, x: torch.maximum(x, x + 1.0))
    graph2 = traced(lambda m, x: x + 1.0)
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    nets = [check_sound(g, BiasField(1, 0.3), images, methods=("rsip-ssip",), climbs=0) for g in (graph, graph2)]
    spec = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    bounds = [net["rsip-ssip"].bounds(images, spec) for net in nets]
    torch.testing.assert_close(bounds[0], bounds[1])


def test_one_maximum_with_a_constant_is_one_relu():
    assert names(lower(traced(FUNCTIONS["maximum-constant"]))).count("relu") == 2  # and the network's own
