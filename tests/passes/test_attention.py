"""Attention products and the masks of softmax, fused and written out, as modules and from a file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UnsupportedError
from robnet_fx.passes.lower import lower
from robnet_fx.problem import Problem
from robnet_fx.testing import check_sound
from tests.onnx_files import exported
from tests.rules.around import IMAGE, Function, names, traced

MASK = torch.tensor([[True, False, True, True], [True] * 4, [False, False, False, True], [False, True, False, True]])
BIAS = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(4, 4, 4)
HOLES = BIAS.masked_fill(~MASK, -math.inf)
attend = F.scaled_dot_product_attention

KINDS: dict[str, list[Function]] = {
    "fused": [
        lambda m, x: attend(x, x.flip(1), x, attn_mask=MASK, scale=2.0),
        lambda m, x: attend(x, x.flip(1), 2 * x, attn_mask=m.matrix[:4]),
        lambda m, x: attend(x, x, x, attn_mask=HOLES) + attend(x, x, x, attn_mask=BIAS[:1, :1]),
        lambda m, x: attend(x, x.flip(1), x, is_causal=True),
        lambda m, x: attend(x, x[:, :2], x[:, 2:], enable_gqa=True),
        lambda m, x: attend(x, x, x, attn_mask=x.tanh()),
    ],
    "beside constants": [
        lambda m, x: attend(m.matrix[:4].expand(x.shape[0], 4, 4, 4), x, x, attn_mask=MASK),
        lambda m, x: attend(x, m.matrix[:4].expand(x.shape[0], 4, 4, 4), x, is_causal=True),
        lambda m, x: attend(x, x, m.matrix[:4].expand(x.shape[0], 4, 4, 4)),
        lambda m, x: attend(x[:, :, :3], x, x, is_causal=True).mean(2, keepdim=True).expand(-1, -1, 4, -1),
    ],
    "written out": [
        lambda m, x: (x @ x.mT).masked_fill(~MASK, -math.inf).softmax(-1) @ x,
        lambda m, x: torch.where(MASK, x @ x.mT, -math.inf).softmax(-1) @ x,
        lambda m, x: torch.where(MASK, x @ x.mT, torch.tensor(-math.inf).double()).softmax(-1) @ x,
        lambda m, x: ((x @ x.mT + HOLES).view(-1, 2, 2, 4, 4) + BIAS[0]).view(-1, 4, 4, 4).softmax(-1) @ x,
        lambda m, x: x * (x + HOLES).logsumexp(2, keepdim=True),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_coefficient_leaves_a_bound(kind: str):
    graph = traced(lambda m, x: torch.cat([function(m, x) for function in KINDS[kind]], 1))
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    torch.testing.assert_close(lower(graph)(images), graph.model(images))
    nets = check_sound(graph, BiasField(1, 0.05), images, climbs=1, methods=("ibp", "rsip-ssip"))
    for net in nets.values():
        assert bool(net.margins(images, torch.tensor([0, 1]))[:, 2].isfinite().all())


def test_the_fused_spelling_is_as_tight_as_its_steps():
    images, spec = torch.rand(2, *IMAGE).double(), torch.eye(3).double().expand(2, -1, -1)
    fused: Function = lambda m, x: attend(x, x.flip(1), x, attn_mask=HOLES)  # noqa: E731
    steps: Function = lambda m, x: ((x / 2) @ x.flip(1).mT + HOLES).softmax(-1) @ x  # noqa: E731
    found = [
        robnet_fx.BoundedModel(traced(function), Problem(BiasField(1, 0.05))).bounds(images, spec)
        for function in (fused, steps)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_what_is_left_out_has_no_share_and_costs_nothing():
    """The masked score moves; neither value nor width of the bounds does."""
    images, spec = torch.rand(1, *IMAGE).double(), torch.eye(3).double()[None]
    masked = traced(lambda m, x: torch.cat([x, 1e3 * x[:, :1]], 1).masked_fill(_last(5), -math.inf).softmax(1)[:, :4])
    alone = traced(lambda m, x: x.softmax(1))
    for method in ("ibp", "rsip-ssip"):
        found = [
            robnet_fx.BoundedModel(graph, Problem(BiasField(1, 0.05)), method).bounds(images, spec)
            for graph in (masked, alone)
        ]
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_masks_of_both_kinds_at_once_are_left_as_they_are():
    """A row of -inf and the lowest numbers there are: what is left out must not come before these."""
    low = torch.full((4, 4), torch.finfo(torch.float32).min).double().triu(1)
    for function in (
        lambda m, x: (x + low + HOLES).softmax(-1),
        lambda m, x: (x + HOLES).masked_fill(~MASK, -3e38).softmax(-1),
    ):
        lowered = lower(traced(function))
        assert "clamp" not in names(lowered)


def _last(number: int) -> Tensor:
    return (torch.arange(number) == number - 1).view(-1, 1, 1)


def test_a_row_without_any_and_dropout_are_refused():
    nobody = MASK & torch.tensor([[True], [True], [False], [True]])
    for function in (
        lambda m, x: attend(x, x, x, attn_mask=nobody),
        lambda m, x: attend(x, x, x, attn_mask=HOLES.masked_fill(~nobody, -math.inf)),
    ):
        with pytest.raises(UnsupportedError, match=r"mask leaves out all of a row(.|\n)*scaled_dot_product_attention"):
            robnet_fx.BoundedModel(traced(function), Problem(BiasField(0, 0.1)))


def test_a_mask_without_holes_is_added_as_it_is():
    both = traced(lambda m, x: attend(x, x, x, attn_mask=m.matrix[:4]) + attend(x, x, x, attn_mask=HOLES))
    assert names(lower(both)).count("clamp") == 1


class Layer(nn.Module):
    """Attention with masks of either kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts, self.head = nn.Linear(4, 12), nn.Linear(4, 3)
        self.register_buffer("mask", MASK)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x.flatten(1).unflatten(1, (4, 4))).chunk(3, 2)
        bias = torch.zeros_like(q[:1]).masked_fill(~self.mask, -math.inf)
        return self.head((attend(q, k, v, attn_mask=self.mask) + attend(k, q, v, attn_mask=bias)).mean(1))


def test_a_layer_with_a_mask_as_a_module_and_from_a_file(tmp_path: Path):
    model, images = Layer().eval(), torch.rand(2, *IMAGE).double()
    spec = torch.eye(3).double().expand(2, -1, -1)
    path = exported(model, tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17, size=IMAGE)
    nets = [robnet_fx.bound(source, BiasField(1, 0.02), example=images.float()) for source in (model, path)]
    found = [net.double().bounds(images, spec) for net in nets]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert bool(one.isfinite().all())
