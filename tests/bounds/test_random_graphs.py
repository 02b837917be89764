"""Networks made up at random: any mix of operations, residual sums, concatenations and values used again."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx

from robnet_fx import BiasField, WhiteNoise
from robnet_fx.testing import check_sound
from tests.soundness import Draw, Drawing, draws

aten = torch.ops.aten
SHAPE = (2, 3, 3)


def conv(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.conv2d.default, x, r(2, 2, 3, 3) / 3, r(2), [1, 1], [1, 1])


def dilated(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.conv2d.default, x, r(2, 1, 2, 2), None, [1, 1], [1, 1], [2, 2], 2)


def norm(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.batch_norm.default, x, r(2), r(2), r(2), r(2).abs() + 0.5, False, 0.1, 1e-5, False)


def joined(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.conv2d.default, g(aten.cat.default, [x, y], 1), r(2, 4, 1, 1) / 2, r(2))


def halves(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.cat.default, [g(aten.slice.Tensor, y, 1, 1, 2), g(aten.slice.Tensor, x, 1, 0, 1)], 1)


def dense(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.reshape.default, g(aten.linear.default, g.flat(x), r(18, 18) / 4, r(18) / 2), [-1, *SHAPE])


def squeezed(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.add.Tensor, y, g(aten.mean.dim, x, [-1, -2], True), alpha=-0.7)


def padded(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.avg_pool2d.default, g(aten.pad.default, x, [1, 1, 1, 1], "reflect"), [3, 3], [1, 1])


STEPS = [
    conv,
    dilated,
    norm,
    joined,
    halves,
    dense,
    squeezed,
    padded,
    lambda g, r, x, y: g(aten.relu.default, x),
    lambda g, r, x, y: g(aten.leaky_relu.default, x, 0.1),
    lambda g, r, x, y: g(aten.leaky_relu.default, x, -0.5),
    lambda g, r, x, y: g(aten.sigmoid.default, x),
    lambda g, r, x, y: g(aten.tanh.default, x),
    lambda g, r, x, y: g(aten.clamp.default, x, -0.4, 0.5),
    lambda g, r, x, y: g(aten.max_pool2d.default, x, [3, 3], [1, 1], [1, 1]),
    lambda g, r, x, y: g(aten.add.Tensor, x, y),
    lambda g, r, x, y: g(aten.sub.Tensor, x, y, alpha=0.5),
    lambda g, r, x, y: g(aten.mul.Tensor, x, r(2, 1, 1)),
    lambda g, r, x, y: g(aten.rsub.Scalar, x, 1.0),
    lambda g, r, x, y: g(aten.transpose.int, x, 2, 3),
    lambda g, r, x, y: g(aten.permute.default, x, [0, 1, 3, 2]),
]

# A step: which operation, and which earlier values it reads, counted from the latest.
steps = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 2), st.integers(0, 4)), min_size=2, max_size=9
)


@settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(steps=steps, seed=st.integers(0, 999), clip=st.sampled_from(["relu", "clamp", None]), noise=st.booleans())
def test_a_network_made_up_at_random_is_sound(
    steps: list[tuple[int, int, int]], seed: int, clip: str | None, noise: bool
):
    r = draws(seed)
    drawing = Drawing(*SHAPE)
    values = [drawing(aten.sub.Tensor, drawing.x, 0.5)]
    for op, near, far in steps:
        x, y = values[-1 - near % len(values)], values[-1 - far % len(values)]
        values.append(STEPS[op](drawing, r, x, y))
    torch.manual_seed(seed)
    perturbation = WhiteNoise(0.15) if noise else BiasField(1, 0.4, True, bool(seed % 2))
    images = torch.rand(2, *SHAPE, dtype=torch.float64)
    check_sound(drawing.logits(values[-1], r), perturbation, images, clip=clip, climbs=1)
