"""A batch that is merged with another axis, or moved for a moment: attention in windows and its relatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

import robnet_fx
from robnet_fx import BiasField, UnsupportedError
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.testing import check_sound

Forward = Callable[[Tensor], Tensor]
SHAPE = (6, 4)  # of a sample: two windows of [3, 4]
MASK = torch.tensor([[True, False, False, True], [False, True, False, False], [True, True, False, False]])
FIELD = BiasField(1, 0.01)
PARTS = torch.arange(8.0).reshape(2, 1, 4) / 8  # something of each window's own


class Net(nn.Module):
    """A layer, `forward`, and a layer on all that is left of a sample."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.then = nn.Linear(4, 4), forward
        self.head = nn.Linear(forward(torch.rand(2, *SHAPE)).numel() // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.then(self.layer(x)).reshape(x.shape[0], -1))


class Module(nn.Module):
    """A function as a module."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.then = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.then(x)


class Loose(Module):
    """One logit a sample, whatever is left of it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.then(x).flatten(1)[: x.shape[0], :1]


def in_windows(*forwards: Forward) -> Forward:
    """Each of `forwards`, of the windows of all samples at once, `[2 B, 3, 4]`."""

    def together(x: Tensor) -> Tensor:
        windows = x.reshape(x.shape[0] * 2, 3, 4)
        return torch.cat([forward(windows).reshape(x.shape[0], -1) for forward in forwards], 1)

    return together


def traced(forward: Forward) -> fx.GraphModule:
    """The canonical graph, which is the model for any batch and has the batch first in every value of the image."""
    model = Net(forward).eval()
    graph = robnet_fx.trace(model, torch.rand(2, *SHAPE))
    for batch in (1, 5):
        x = torch.rand(batch, *SHAPE)
        torch.testing.assert_close(graph(x), model(x))
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.run(x)
    varying = set(graph.graph.find_nodes(op="placeholder"))
    for node in graph.graph.nodes:
        if node.op == "call_function" and not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
            assert interpreter.env[node].shape == (5, *node.meta["shape"])
    return graph


def attention(y: Tensor) -> Tensor:
    n, length, _ = y.shape
    q, k, v = torch.cat([y, 2 * y, y.exp()], 2).reshape(n, length, 3, 2, 2).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    return scores.transpose(1, 2).reshape(n, length, 4)


def own_of_a_window(y: Tensor) -> Tensor:
    return (y.view(-1, 2, 3, 4) + PARTS).view(-1, 3, 4).relu()


MERGED: dict[str, list[Forward]] = {
    "elementwise": [
        lambda y: y.relu(),
        lambda y: F.hardswish(y),
        lambda y: 1 - y * torch.arange(4.0) + torch.ones(1, 3, 1),
        lambda y: torch.rsub(y, torch.arange(4.0)),
        lambda y: torch.where(MASK, y, 0.5) + y.masked_fill(MASK, 0.25) - torch.where(MASK, 0.75, y),
        lambda y: y.masked_fill(MASK, torch.tensor(0.5)),
        lambda y: y.clone()[:, :][:].contiguous().float(),
    ],
    "constants": [
        lambda y: y - y.new_ones(3, 4) + y.new_full((4,), 0.5) * y.new_zeros(3, 1),
        lambda y: y + torch.ones_like(y) * 0.5 + torch.zeros_like(y) - torch.full_like(y, 2.0),
        own_of_a_window,
    ],
    "reductions": [
        lambda y: y.mean(1),
        lambda y: y.sum((-1, 1), keepdim=True),
        lambda y: y.amax(2),
        lambda y: y.diff(),
        lambda y: y.max(1)[0],
        lambda y: y.softmax(1) + y.softmax(-1),
        lambda y: F.normalize(y - 3, dim=-1),
        lambda y: F.layer_norm(y, (4,)),
    ],
    "moves": [
        lambda y: y.transpose(1, 2).relu(),
        lambda y: y.transpose(-1, -2).relu(),
        lambda y: y.permute(0, 2, 1).relu(),
        lambda y: y.permute(-3, -1, 1).relu(),
        lambda y: y[:, 1] - y[:, :, 2:3].squeeze(2).mean(1, keepdim=True),
        lambda y: y[:, 1:, ::2],
        lambda y: y.flip(1) + y.flip((-1, 1)),
        lambda y: y.roll((1, 2), (1, 2)),
        lambda y: y[:, :1].expand(y.shape[0], 3, 4) + y[:, :, :1].expand(-1, -1, 4),
        lambda y: F.pad(y, (1, 0, 0, 2), value=0.5),
    ],
    "joins": [
        lambda y: torch.cat([y, 2 * y], 1),
        lambda y: torch.stack([y, 2 * y], 1) - torch.stack([y.exp(), y], -3),
        lambda y: torch.stack([y, y.exp()], -2),
        lambda y: torch.stack([y, 2 * y], 3),
        lambda y: sum(y.unbind(1)),
        lambda y: torch.cat(y.split([1, 3], 2)[::-1], 2),
    ],
    "products": [
        lambda y: F.linear(y, torch.arange(8.0).view(2, 4), torch.ones(2)),
        lambda y: y @ torch.arange(8.0).view(4, 2) - torch.ones(3, 3) @ y[:, :, :2],
        lambda y: torch.mm(y[:, 0], torch.arange(8.0).view(4, 2)),
        lambda y: torch.bmm(y, y.transpose(1, 2)) + y @ y.transpose(-2, -1),
        lambda y: F.scaled_dot_product_attention(y, y, 2 * y),
        attention,
    ],
    "reshapes": [
        lambda y: y.flatten(0, 1).cumsum(1).view(-1, 3, 4).softmax(2),
        lambda y: y.unflatten(0, (-1, 2)).sum(1),
        lambda y: y.view(-1, 1, 6, 4).squeeze(1).softmax(1),
        lambda y: y.view(-1, 2, 3, 4).softmax(1).view(-1, 12),
    ],
}


@pytest.mark.parametrize("kind", MERGED)
def test_what_is_done_to_windows_is_done_to_each_sample(kind: str):
    graph = traced(in_windows(*MERGED[kind]))
    net = BoundedModel(graph, Problem(FIELD), "ibp")
    x = torch.rand(2, *SHAPE)
    lower, upper = net.bounds(x, torch.eye(3).expand(2, -1, -1))
    logits = graph(x)
    assert bool((lower <= logits + 1e-4).all() and (logits <= upper + 1e-4).all())


def test_windows_of_the_graph_lie_behind_the_batch():
    graph = traced(in_windows(lambda y: F.linear(y, torch.ones(2, 4)).transpose(1, 2).softmax(-1)))
    found = {node.name: (node.meta["shape"], node.args[1:]) for node in graph.graph.nodes if node.op == "call_function"}
    assert found["reshape"] == ((2, 3, 4), ([-1, 2, 3, 4],))
    assert found["linear_1"][0] == (2, 3, 2)
    assert found["permute"] == ((2, 2, 3), ([0, 1, 3, 2],))
    assert found["softmax"] == ((2, 2, 3), (-1,))
    softmax = next(node for node in graph.graph.nodes if node.name == "softmax")
    assert softmax.meta["layer"][1].endswith("Net") and softmax.meta["source"].startswith("test_windows.py:")


@pytest.mark.parametrize(
    ("operation", "forward"),
    [
        ("aten.flip.default", lambda y: y.flip(0)),
        ("aten.flip.default", lambda y: y.flip(1, -3)),
        ("aten.softmax.int", lambda y: y.softmax(0)),
        ("aten.sum.default", lambda y: y + y.sum()),
        ("aten.sort.default", lambda y: y.sort(0)[0]),
        ("aten.amax.default", lambda y: y + y.amax()),
        ("aten.roll.default", lambda y: y.roll(1)),
        ("aten.slice.Tensor", lambda y: y[1:]),
        ("aten.select.int", lambda y: y - y[0]),
        ("aten.view.default", lambda y: y.view(2, -1, 12).transpose(0, 1)),
        ("aten.add.Tensor", lambda y: y + torch.cat([y[::2], y[1::2]])),
        ("aten.cat.default", lambda y: torch.cat([y, y[::2]])),
        ("aten.matmul.default", lambda y: y.flatten(1) @ y.flatten(1).T @ y.flatten(1)),
    ],
)  # fmt: skip
def test_what_would_mix_samples_is_refused(operation: str, forward: Forward):
    with pytest.raises(UnsupportedError) as caught:
        robnet_fx.trace(Loose(in_windows(forward)), torch.rand(2, *SHAPE))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{operation} has no form for a batch merged with another axis or moved: [")
    assert [line[:8] for line in lines] == ["  layer ", "  source", "  remedy"]
    assert "test_windows.py:" in lines[1]


@pytest.mark.parametrize(
    ("remedy", "forward"),
    [
        ("z.unflatten(0, (-1, 2))", lambda x: x.reshape(-1, 3, 4)),
        ("z.unflatten(0, (2, -1)).movedim(1, 0)", lambda x: torch.cat([x, x.flip(1)])),
        ("z.movedim(1, 0)", lambda x: x.transpose(0, 1)),
        ("z.movedim(2, 0)", lambda x: x.permute(1, 2, 0)),
        ("z.unflatten(0, (2, -1, 3)).movedim(1, 0)", lambda x: torch.cat([x, x]).reshape(-1, 2, 4)),
    ],
)
def test_a_batch_that_is_not_put_back_is_refused_and_the_remedy_works(remedy: str, forward: Forward):
    with pytest.raises(UnsupportedError, match="not put back") as caught:
        robnet_fx.trace(Module(forward), torch.rand(2, *SHAPE))
    assert f"of the output z, {remedy} has the images in front" in str(caught.value)
    restored = Module(lambda x: eval(remedy, {"z": forward(x)}).flatten(1))
    graph, x = robnet_fx.trace(restored, torch.rand(2, *SHAPE)), torch.rand(5, *SHAPE)
    torch.testing.assert_close(graph(x), restored(x))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.permute(1, 0, 2)[2],
        lambda x: x.permute(2, 0, 1)[-1].relu(),
        lambda x: x.transpose(0, 1)[-1] - x.transpose(-2, 0).select(-3, 1),
        lambda x: x.permute(1, 2, 0)[1][2].unsqueeze(1) - x.permute(2, 1, 0).select(1, 5)[1].unsqueeze(1),
        lambda x: x.permute(1, -3, 2).contiguous().unbind(0)[4] - x.permute(2, 0, 1).unbind()[-1][:, :4],
    ],
)
def test_what_is_selected_of_a_moved_batch_has_it_first(forward: Forward):
    traced(forward)


def test_a_move_of_the_batch_alone_is_none():
    graph = traced(lambda x: x.permute(1, 0, 2)[2] + x.permute(0, 2, 1)[:, :, 3])
    found = [node.name for node in graph.graph.nodes if node.op == "call_function"]
    assert found == ["linear", "select", "permute", "select_1", "add", "reshape", "linear_1"]


# --- attention in windows ---------------------------------------------------------------------------------------------


class Windowed(nn.Module):
    """Images `[1, 4, 4]` in windows of 2 x 2, shifted by 1: two heads, a learned bias, and a mask for what the shift
    brings together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.qkv, self.head = nn.Linear(1, 4), nn.Linear(4, 12), nn.Linear(64, 3)
        self.bias = nn.Parameter(torch.randn(2, 4, 4))
        sides = torch.tensor([0, 0, 0, 1])
        region = self.part((2 * sides[:, None] + sides[None]).view(1, 4, 4, 1).roll((-1, -1), (1, 2))).squeeze(-1)
        self.register_buffer("mask", -3.0 * (region[:, None, :] != region[:, :, None])[:, None])

    @staticmethod
    def part(x: Tensor) -> Tensor:
        return x.view(-1, 2, 2, 2, 2, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.permute(0, 2, 3, 1)).roll((-1, -1), (1, 2))
        q, k, v = self.qkv(self.part(x)).view(-1, 4, 3, 2, 2).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) + self.bias
        scores = (scores.view(-1, 4, 2, 4, 4) + self.mask).view(-1, 2, 4, 4).softmax(-1)
        x = (scores @ v).transpose(1, 2).reshape(-1, 4, 4)
        x = x.view(-1, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, 4).roll((1, 1), (1, 2))
        return self.head(x.flatten(1))


def test_bounds_of_attention_in_windows_hold():
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    nets = check_sound(Windowed().double(), BiasField(1, 0.05), images)
    spec = torch.eye(3, dtype=torch.float64).expand(2, -1, -1)
    for net in nets.values():
        lower, upper = net.bounds(images, spec)
        assert bool((upper - lower).isfinite().all())


def test_a_swin_transformer_is_bounded():
    model = SwinTransformer([2, 2], 4, [2], [2], [2, 2], num_classes=3).double()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    net = robnet_fx.bound(model, BiasField(1, 1e-6), example=images).requires_grad_(False)
    torch.testing.assert_close(net.logits(images), model.eval()(images))
    lower, upper = net.bounds(images, torch.eye(3, dtype=torch.float64).expand(2, -1, -1))
    t = torch.rand(16, len(net.center), dtype=torch.float64) * 2 - 1
    for row in net.center + net.radius * torch.cat([t, t.sign()]):
        logits = net.perturbed(row.expand(2, -1), images)
        assert bool((lower <= logits + 1e-12).all() and (logits <= upper + 1e-12).all())
    assert float((upper - lower).max()) < 0.1


def test_the_second_swin_transformer_is_traced():
    kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    model = SwinTransformer([2, 2], 4, [2], [2], [2, 2], num_classes=3, **kinds).eval()
    graph = robnet_fx.trace(model, torch.rand(2, 3, 8, 8))
    x = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(graph(x), model(x))
    BoundedModel(graph, Problem(FIELD), "ibp")
