"""A value known to lie in a range: itself where its bounds stay inside, a constant where they do not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.algebra.ops import within
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.rules import rule_for
from robnet_fx.testing import check_sound
from tests.rules.around import IMAGE, names, traced
from tests.soundness import draws

RULE = rule_for(within)
INF = math.inf
# The value's own ends, and what is left of them inside [-1, 2].
ENDS = [
    ((-0.5, 1.5), (-0.5, 1.5)),
    ((-1, 2), (-1, 2)),
    ((-5, 0.5), (-1, 0.5)),
    ((0, 7), (0, 2)),
    ((-INF, INF), (-1, 2)),
]
INSIDE = torch.tensor([True, True, False, False, False])


def pre_and_known() -> tuple[Interval, Interval]:
    ends = torch.tensor(ENDS, dtype=torch.float64).unsqueeze(-1)
    return Interval(ends[:, 0, 0], ends[:, 0, 1]), Interval(ends[:, 1, 0], ends[:, 1, 1])


def test_the_interval_is_cut_off():
    pre, known = pre_and_known()
    for got, expected in zip(RULE.ibp(pre, -1.0, 2.0), known, strict=True):
        torch.testing.assert_close(got, expected)
    assert RULE.unstable(pre, -1.0, 2.0).flatten().tolist() == (~INSIDE).tolist()


def test_rsip_goes_through_or_ends():
    pre, known = pre_and_known()
    for sign in (1.0, -1.0):
        rows = torch.full((5, 1, 1), sign).double()
        form = RULE.rsip(Form(rows, torch.ones(5, 1).double()), InputShape((1,)), -1.0, 2.0, pre=pre)
        torch.testing.assert_close(form.coef.flatten(), INSIDE.double() * sign)
        end = known.upper if sign > 0 else -known.lower
        torch.testing.assert_close(form.const, 1 + torch.where(INSIDE.unsqueeze(1), 0.0, end))


@pytest.mark.parametrize(
    ("reach", "slack", "kept"),
    [(0.5, 0.5, True), (1.0, 0.5, True), (1.0, 0.6, False), (-1.0, 0.6, False), (INF, 0.0, False), (0.5, INF, False)],
)
def test_ssip_stays_where_it_is_no_wider_than_the_range(reach: float, slack: float, kept: bool):
    """Its own width counts: `pre` may be far narrower than it."""
    pre, known = pre_and_known()
    ones = torch.ones(5, 1).double()
    x = Symbolic(reach * ones.unsqueeze(1), 0.2 * ones, slack * ones)
    got = RULE.ssip(x, -1.0, 2.0, pre=pre)
    if kept:
        assert all(bool((a == b).all()) for a, b in zip(got, x, strict=True))
        return
    assert not bool(got.coef.any())
    torch.testing.assert_close(got.const + got.slack, known.upper)
    torch.testing.assert_close(got.const - got.slack, known.lower)


def test_what_is_not_a_number_stays_so():
    """It may stand for a value that is none."""
    nan = torch.full((1, 1), math.nan)
    pre = Interval(nan, nan)
    form = RULE.rsip(Form(torch.ones(1, 1, 1), torch.zeros(1, 1)), InputShape((1,)), -1.0, 2.0, pre=pre)
    symbolic = RULE.ssip(Symbolic(nan.unsqueeze(1), nan, nan), -1.0, 2.0, pre=pre)
    upper = torch.cat([RULE.ibp(pre, -1.0, 2.0).upper, symbolic.const + symbolic.slack])
    assert bool(upper.isnan().all()) and not bool((form.coef * 1.0 + form.const < INF).all() and not form.coef.any())


def test_gradients_are_finite():
    pre = Interval(*(end[:4].requires_grad_() for end in pre_and_known()[0]))
    x = Symbolic(*(part.requires_grad_() for part in (torch.rand(4, 2, 1).double(), *torch.rand(2, 4, 1).double())))
    rows = draws(1)(4, 3, 1).requires_grad_()
    bounds = [*RULE.ibp(pre, -1.0, 2.0), *RULE.ssip(x, -1.0, 2.0, pre=pre)]
    bounds += RULE.rsip(Form(rows, rows[..., 0]), InputShape((1,)), -1.0, 2.0, pre=pre)
    grads = torch.autograd.grad(sum((bound * bound).sum() for bound in bounds), [*pre, *x, rows])
    assert all(bool(grad.isfinite().all()) for grad in grads)


FUNCTIONS = {
    "layer_norm": lambda m, x: F.layer_norm(x, (4, 4), m.matrix[:4]) + F.layer_norm(x, (4,), eps=1e-12),
    "group_norm": lambda m, x: F.group_norm(x, 2) + F.instance_norm(x),
}
COUNTS = {"layer_norm": {4.0, 2.0}, "group_norm": {32**0.5, 4.0}}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("eps", [0.01, 1.0])
def test_no_coefficient_leaves_a_bound(name: str, eps: float):
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    nets = check_sound(traced(FUNCTIONS[name]), BiasField(1, eps, additive=True), images, climbs=1)
    net = nets["rsip-ssip"]
    known = {(node.args[1], node.args[2]) for node in net.clean.graph.nodes if node.target is within}
    assert known == {(-count, count) for count in COUNTS[name]}


def test_a_standardised_value_fills_its_range():
    """One value apart from all others: sqrt(n - 1), which rounding does not take out of the range."""
    for size in (2, 5, 100):
        for dtype in (torch.float32, torch.float64):
            x = torch.zeros(1, size, dtype=dtype)
            x[0, 0] = 1e6
            assert 0.99 * (size - 1) ** 0.5 < float(F.layer_norm(x, (size,)).abs().max()) < size**0.5


class Block(nn.Module):
    """A transformer's: attention and two layers behind a norm each, around them what goes by."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size, eps=1e-6) for _ in range(2))
        self.mix, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, x):
        q, k, v = self.mix(self.norms[0](x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(self.norms[1](x))


def test_bounds_of_many_blocks_are_finite():
    torch.manual_seed(0)
    blocks = [Block() for _ in range(12)]
    model = nn.Sequential(nn.Unflatten(3, (2, 8)), nn.Flatten(1, 3), *blocks, nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.rand(2, 1, 4, 16)
    graph = robnet_fx.trace(model, images)
    for method in ("ibp", "ssip", "rsip-ssip"):
        net = BoundedModel(graph, Problem(BiasField(1, 0.5)), method)
        for bounds in net.bounds(images, torch.eye(3).expand(2, 3, 3)):
            assert bool(bounds.isfinite().all())
    assert {"within", "softmax"} <= set(names(net.clean))
