"""Networks made up at random: any mix of operations, residual sums, concatenations and values used again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx

from robnet_fx import BiasField, WhiteNoise
from robnet_fx.algebra.ops import product
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


Step = Callable[[Drawing, Draw, fx.Node, fx.Node], fx.Node]

STEPS: list[Step] = [
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

# What comes apart and meets again, each branch with relaxations of its own.


def residual(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    inner = conv(g, r, g(aten.relu.default, conv(g, r, x, x)), x)
    return g(aten.relu.default, g(aten.add.Tensor, inner, x, alpha=float(r(1).sign())))


def inception(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    parts = [
        g(aten.relu.default, conv(g, r, x, x)),
        g(aten.sigmoid.default, g(aten.conv2d.default, x, r(1, 2, 1, 1), r(1))),
        g(aten.max_pool2d.default, x, [3, 3], [1, 1], [1, 1]),
    ]
    return g(aten.conv2d.default, g(aten.cat.default, parts, 1), r(2, 5, 1, 1) / 2, r(2))


def gated(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(product, conv(g, r, x, x), g(aten.sigmoid.default, conv(g, r, x, x)))


def used_twice(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    bent = g(aten.leaky_relu.default, x, 0.2)
    return g(aten.sub.Tensor, conv(g, r, bent, bent), g(aten.relu.default, bent), alpha=0.6)


def largest(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(aten.maximum.default, g(aten.relu.default, conv(g, r, x, x)), y)


def times(g: Drawing, r: Draw, x: fx.Node, y: fx.Node) -> fx.Node:
    return g(product, g(aten.tanh.default, x), g(aten.relu.default, y))


BRANCHES = [residual, inception, gated, used_twice, largest, times]

# A step: which operation, and which earlier values it reads, counted from the latest.
steps = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 2), st.integers(0, 4)), min_size=2, max_size=9
)
blocks = st.lists(
    st.tuples(st.integers(0, len(BRANCHES) - 1), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=4
)
MANY = settings(
    max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def network(made_of: list[Step], chosen: list[tuple[int, int, int]], seed: int) -> fx.GraphModule:
    r = draws(seed)
    drawing = Drawing(*SHAPE)
    values = [drawing(aten.sub.Tensor, drawing.x, 0.5)]
    for op, near, far in chosen:
        x, y = values[-1 - near % len(values)], values[-1 - far % len(values)]
        values.append(made_of[op](drawing, r, x, y))
    return drawing.logits(values[-1], r)


@MANY
@given(steps=steps, seed=st.integers(0, 999), clip=st.sampled_from(["relu", "clamp", None]), noise=st.booleans())
def test_a_network_made_up_at_random_is_sound(
    steps: list[tuple[int, int, int]], seed: int, clip: str | None, noise: bool
):
    graph = network(STEPS, steps, seed)
    torch.manual_seed(seed)
    perturbation = WhiteNoise(0.15) if noise else BiasField(1, 0.4, True, bool(seed % 2))
    check_sound(graph, perturbation, torch.rand(2, *SHAPE, dtype=torch.float64), clip=clip, climbs=1)


@MANY
@given(blocks=blocks, seed=st.integers(0, 999), kept=st.sampled_from([1, 5, 30]))
def test_branches_that_meet_are_sound(blocks: list[tuple[int, int, int]], seed: int, kept: int):
    graph = network(BRANCHES, blocks, seed)
    torch.manual_seed(seed)
    images = torch.rand(3, *SHAPE, dtype=torch.float64)
    images[0] = 0.4  # fewer of its units bend: the budget binds for the others
    check_sound(graph, BiasField(1, 0.2, True, True), images, symbols=(kept, "all"), climbs=1)
