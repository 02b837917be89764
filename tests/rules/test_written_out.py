"""Operations written in others, by the front end or by a pass, as torch.export leaves them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from robnet_fx import BiasField
from robnet_fx.passes.lower import lower
from robnet_fx.testing import check_sound
from tests.rules.around import IMAGE, names, traced

FUNCTIONS = {
    "power-of-two": lambda m, x: 2**x + torch.exp2(-x) + 0.5**x,
    "power-learned": lambda m, x: x.clamp(min=0.1) ** (m.token[0].exp() + 1),
    "power-both": lambda m, x: (x.abs() + 0.2) ** (x.mean(1, keepdim=True)),
    "power-of-constants": lambda m, x: m.token.exp() ** x,
    "logsumexp": lambda m, x: x.logsumexp(1) + x.logsumexp((1, 2), keepdim=True)[:, 0],
    "logaddexp": lambda m, x: torch.logaddexp(x, 2 * x.flip(1)) - torch.logaddexp(m.token[0], x),
    "lerp": lambda m, x: (
        x.lerp(x.flip(1), 0.3) + x.lerp(m.token[0].expand_as(x), m.matrix[:4]) + x.lerp(-x, x.sigmoid())
    ),
    "hypot": lambda m, x: torch.hypot(x + 0.3, x.flip(1)),
    "threshold": lambda m, x: F.threshold(x, 0.1, 0.1),
    "rrelu": lambda m, x: F.rrelu(x, 0.1, 0.5),
    "rms_norm": lambda m, x: F.rms_norm(x, (4, 4), m.matrix[:4]) + F.rms_norm(x, (4,), eps=0.1),
    "var_mean": lambda m, x: torch.cat([*torch.var_mean(x, 1), *torch.std_mean(x + m.token[0], 2, correction=0)], 1),
    "aminmax": lambda m, x: torch.cat([*torch.aminmax(x, dim=1)], 1),
    "prod": lambda m, x: x.prod(1) + (x[:, :3] / 2).prod(1) + (x.flip(2) + 1).prod(-1, keepdim=True)[:, 0],
    "addcmul": lambda m, x: torch.addcmul(x, x, m.token[0], value=0.5) + torch.addcdiv(x, x, m.token[0].exp()),
    "baddbmm": lambda m, x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=-2),
    "baddbmm-constant": lambda m, x: torch.baddbmm(m.token, x[:, 1], m.matrix[:4].expand(x.shape[0], 4, 4)),
    "glu": lambda m, x: F.glu(x, 1),
    "clip": lambda m, x: x.clip(-0.2, 0.3) + x.clip(m.token[0] - 0.1, m.token[0]),
    "cosine": lambda m, x: F.cosine_similarity(x + 1, m.token[0], dim=1) + F.cosine_similarity(x + 2, 3 - x, dim=1),
    "distance": lambda m, x: F.pairwise_distance(x[:, 0], x[:, 1] + 1),
    "squared-error": lambda m, x: F.mse_loss(x[:, 0], x[:, 1], reduction="none"),
    "inner": lambda m, x: torch.inner(x, m.matrix) + torch.linalg.vecdot(x, x.flip(1))[..., None],
    "matrix_norm": lambda m, x: torch.linalg.matrix_norm(x + 1) + torch.deg2rad(x).sum((2, 3)),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_coefficient_leaves_a_bound(name: str):
    graph = traced(FUNCTIONS[name])
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    check_sound(graph, BiasField(1, 0.1, additive=True), images, climbs=1)
    torch.testing.assert_close(lower(graph)(images), graph.model(images))


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda m, x: F.threshold(x, 0.1, 0.0), "aten.threshold.default"),
        (lambda m, x: x + x.prod(0), "prod"),
        (lambda m, x: x - torch.aminmax(x).max, "aminmax"),
    ],
)
def test_what_could_not_be_written_is_left(function, operation: str):
    with pytest.raises(NotImplementedError, match=operation):
        check_sound(traced(function), BiasField(1, 0.1), torch.rand(2, *IMAGE, dtype=torch.float64), climbs=0)


def test_what_is_written_out_keeps_its_line():
    graph = traced(lambda m, x: F.glu(x, 1))
    (gate,) = (node for node in graph.graph.nodes if node.name == "sigmoid")
    assert gate.meta["source"].startswith("around.py:")


def test_a_power_of_a_constant_is_one_exponential():
    assert names(lower(traced(lambda m, x: 2**x))).count("exp") == 1
    assert "prod" not in names(traced(lambda m, x: x.prod(1)))
