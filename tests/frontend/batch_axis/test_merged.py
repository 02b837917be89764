"""A batch that is merged, stacked or moved on the way and put back: ensembles, views of an image, slices."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from tests.onnx_files import exported

Step = Callable[["Net", Tensor], Tensor]
SHAPE = (2, 4, 4)


class Net(nn.Module):
    """Layers for `forward` to use."""

    def __init__(self, forward: Step) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.then = forward
        self.conv, self.grouped = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.same, self.up = nn.Conv2d(4, 4, 2, padding="same"), nn.ConvTranspose2d(4, 4, 2, 2)
        self.norm, self.group, self.instance = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
        self.slopes, self.tokens, self.features = nn.PReLU(4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.extended = nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True, kdim=4, vdim=4)
        self.head, self.start = nn.Linear(4, 3), nn.Parameter(torch.randn(1, 1, 4))
        for parameter in self.parameters():
            parameter.data.uniform_(-0.5, 0.5)
        self.norm.running_mean.uniform_(), self.features.running_mean.uniform_()
        self.double().eval()

    def body(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, x)


def traced(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """The graph, which equals the model for another batch than it was traced with too."""
    graph = robnet_fx.trace(model, images)
    more = torch.rand(5, *images.shape[1:], dtype=torch.float64)
    torch.testing.assert_close(graph(more), model(more))
    return graph


def bounds(graph: fx.GraphModule, method: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of the logits."""
    net = BoundedModel(graph, Problem(BiasField(1, 0.02)), method).double()
    return net.bounds(images, torch.eye(net.classes).double().expand(len(images), -1, -1))


def tokens(m: Net, x: Tensor) -> Tensor:
    """`[16, B, 4]`: the sequence first."""
    return m.conv(x).flatten(2).permute(2, 0, 1)


CAUSAL = torch.ones(16, 16, dtype=torch.bool).triu(1)


def stacked(m: Net, x: Tensor) -> Tensor:
    """`[3, B, 3]`"""
    return torch.stack([m.body(x), m.body(x.flip(3)), m.body(x * 0.5)])


def joined(m: Net, x: Tensor) -> Tensor:
    """`[3 B, 3]`, the same."""
    return m.body(torch.cat([x, x.flip(3), x * 0.5]))


KINDS: dict[str, tuple[Step, list[Callable[[Net, Tensor, Tensor], Tensor]]]] = {
    "ensemble": (stacked, [
        lambda m, x, z: z.mean(0),
        lambda m, x, z: z.max(0)[0] + z.amin(dim=0) + z.softmax(2).prod(0),
        lambda m, x, z: z[1] - z.select(0, -1) + z.unbind()[2] - z.transpose(0, 1)[:, 0],
        lambda m, x, z: (z * m.start[0, 0, :3, None, None]).sum(0) + z[[0, 2]].logsumexp(0),
        lambda m, x, z: torch.einsum("k,kbc->bc", m.start[0, 0, :3], z) + torch.einsum("k...,k", z, m.start[0, 0, :3]),
        lambda m, x, z: torch.tensordot(m.start[0, 0, 1:], z, 1) + z.permute(1, 2, 0).mean(-1),
    ]),
    "views": (joined, [
        lambda m, x, z: sum(z.chunk(3)),
        lambda m, x, z: sum(z.split(x.shape[0])[1:]) + z.tensor_split(3)[0],
        lambda m, x, z: z.view(3, x.shape[0], -1).mean(0) + z.unflatten(0, (3, -1)).amax(0),
        lambda m, x, z: z[: x.shape[0]] + z[x.shape[0] : 2 * x.shape[0]] - z[-x.shape[0] :],
        lambda m, x, z: z.repeat_interleave(2, 0)[::2].chunk(3)[1] + z.repeat(2, 1).chunk(6)[5],
        lambda m, x, z: torch.cat([z, z.flip(1)]).repeat_interleave(2, 0).view(6, -1, 2, 3).mean((0, 2)),
        lambda m, x, z: (x.mean((2, 3))[None] * m.start[0, 0].view(-1, 1, 1)).flatten(0, 1).view(4, -1, 2).sum(0),
        lambda m, x, z: z.matmul(m.tokens.weight[:3]).chunk(3)[1] + m.tokens(F.pad(z, (0, 1))).view(3, -1, 4)[0],
    ]),
    "moved": (tokens, [
        lambda m, x, t: m.attention(t, t, t, need_weights=False, attn_mask=CAUSAL)[0].mean(0),
        lambda m, x, t: m.attention(t, t, t, attn_mask=CAUSAL.double())[0][0],
        lambda m, x, t: m.extended(t, t, t)[0][-1],
        lambda m, x, t: m.attention(
            m.start.expand(2, x.shape[0], -1), t, t, key_padding_mask=(torch.arange(16) > 9).repeat(x.shape[0], 1)
        )[0].sum(0),
        lambda m, x, t: torch.cat([m.start.expand(-1, x.shape[0], -1), t]).relu().mean(0),
        lambda m, x, t: (m.tokens.weight @ t[0].t()).t() + m.tokens(t.permute(0, 2, 1).sum(0).T),
        lambda m, x, t: m.features(t.flatten(0, 1)).view(16, -1, 4).mean(0),
        lambda m, x, t: (t + m.tokens.weight.repeat(4, 1).unsqueeze(1)).softmax(0).sum(0),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_back_is_bounded(kind: str):
    first, then = KINDS[kind]

    def forward(m: Net, x: Tensor) -> Tensor:
        z = first(m, x)
        return torch.cat([step(m, x, z) for step in then], 1)

    model, images = Net(forward), torch.rand(2, *SHAPE).double()
    lower, upper = bounds(traced(model, images), "ibp", images)
    logits = model(images)
    assert bool((lower <= logits).all() and (logits <= upper).all())


VIEWS: list[Callable[[Tensor], Tensor]] = [lambda x: x, lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x * 0.5]
JOINS: list[tuple[Callable[[list[Tensor]], Tensor], Callable[[Tensor, int], Tensor]]] = [
    (torch.cat, lambda z, k: z.view(k, -1, z.shape[1])),
    (torch.cat, lambda z, k: torch.stack(z.chunk(k))),
    (lambda parts: torch.stack(parts).flatten(0, 1), lambda z, k: z.unflatten(0, (k, -1))),
    (lambda parts: torch.stack(parts, 1).flatten(0, 1), lambda z, k: z.view(-1, k, z.shape[1]).transpose(0, 1)),
    (lambda parts: torch.stack(parts, 1).flatten(0, 1), lambda z, k: torch.stack([z[i::k] for i in range(k)])),
]
LAYERS: list[Step] = [
    lambda m, h: m.grouped(h),
    lambda m, h: m.same(h),
    lambda m, h: F.avg_pool2d(m.up(h), 2),
    lambda m, h: m.norm(h),
    lambda m, h: m.slopes(h),
    lambda m, h: h.relu(),
    lambda m, h: F.max_pool2d(h, 3, 1, 1),
    lambda m, h: F.interpolate(F.pad(h, (1, 1, 1, 1), mode="reflect"), (4, 4), mode="bilinear"),
    lambda m, h: F.adaptive_max_pool2d(h, 3),
    lambda m, h: F.channel_shuffle(h, 2),
    lambda m, h: m.group(h),
    lambda m, h: m.instance(h),
    lambda m, h: m.features(h.flatten(2).transpose(1, 2).flatten(0, 1)).view(h.shape[0], -1, 4).mT.reshape(h.shape),
]
COMBINED: list[Callable[[Tensor], Tensor]] = [lambda z: z.mean(0), lambda z: z.amax(0), lambda z: z[0] - z[-1] / 2]


@pytest.mark.parametrize("seed", range(2))
def test_bounds_are_those_of_the_views_one_by_one(seed: int):
    """Networks made up at random, with all views at once and view by view."""
    choose = random.Random(seed)
    views, layers = choose.sample(VIEWS, choose.choice([2, 3])), choose.sample(LAYERS[seed::2], 4)
    (join, part), combine = choose.choice(JOINS), choose.choice(COMBINED)

    def body(m: Net, x: Tensor) -> Tensor:
        h = m.conv(x)
        for layer in layers:
            h = layer(m, h)
        return m.head(h.mean((2, 3)))

    at_once = Net(lambda m, x: combine(part(body(m, join([view(x) for view in views])), len(views))))
    one_by_one = Net(lambda m, x: combine(torch.stack([body(m, view(x)) for view in views], 1).transpose(0, 1)))
    images = torch.rand(2, *SHAPE).double()
    graphs = traced(at_once, images), traced(one_by_one, images)
    for method in ("ibp", "rsip-ssip"):
        for got, expected in zip(*(bounds(graph, method, images) for graph in graphs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


FILES: dict[str, Step] = {
    "slices of a volume": lambda m, x: m.head(
        m.norm(m.conv(x.reshape(-1, 2, 5, 5))).relu().mean((2, 3)).reshape(-1, 3, 4).amax(1)
    ),
    "two views": lambda m, x: m.body(torch.cat([x[:, :2], x[:, 2:4].flip(3)])).view(2, -1, 3).sum(0),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_bounded_as_its_module_is(name: str, tmp_path: Path):
    model, volumes = Net(FILES[name]), torch.rand(2, 6, 5, 5).double()
    expected = bounds(traced(model, volumes), "rsip-ssip", volumes)
    path = exported(model.float(), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17, size=(6, 5, 5))
    got = bounds(robnet_fx.trace(path, volumes.float()).double(), "rsip-ssip", volumes)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
