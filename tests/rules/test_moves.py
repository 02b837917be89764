"""Moves, joins, indices and constants as torch.export leaves them: sound in a network, exact in an affine one."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

import robnet_fx
from robnet_fx import BiasField, UnsupportedError, UnsupportedOpError
from robnet_fx.algebra.ops import join
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.rules import rule_for
from robnet_fx.testing import all_corners, check_sound
from tests.rules.around import IMAGE, Around, names, traced

aten = torch.ops.aten


def shifted(x: Tensor) -> Tensor:
    """A temporal shift: channels move, zeros come in, by assignment."""
    y = torch.zeros_like(x)
    y[:, :-1] = x[:, 1:]
    return y


def assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:3] = x[:, 0:2] * 2
    y[:, :, 3] = 1.5
    y[:, -1] = x[:, 0]
    return y


# Where a function mentions the batch size, it is the batch that torch.export knows as a symbol.
FUNCTIONS = {
    "token": lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1),
    "token-middle": lambda m, x: torch.cat([x[:, 0], m.token.repeat(x.shape[0], 1, 1), x[:, 0] * 2], 1),
    "token-added": lambda m, x: x[:, 0] + m.token.expand(x.shape[0], 4, -1),
    "token-reshaped": lambda m, x: torch.cat([x.flatten(1), m.token.expand(x.shape[0], 2, -1).flatten(1)], 1),
    "token-stacked": lambda m, x: torch.stack([x[:, 0, 0], m.token[:, 0].expand(x.shape[0], -1)], 1),
    "token-multiplied": lambda m, x: torch.bmm(m.matrix.unsqueeze(0).expand(x.shape[0], -1, -1), x[:, 0]),
    "zeros": lambda m, x: torch.cat([x, torch.zeros_like(x[:, :1]), x.new_ones(x.shape[0], 1, 4, 4) / 2], 1),
    "full": lambda m, x: torch.cat([torch.full((x.shape[0], 2, 4, 4), 0.3).to(x.dtype), x], 1),
    "stack": lambda m, x: torch.stack([x, x * 2, x], -1),
    "shift": lambda m, x: shifted(x),
    "assign": lambda m, x: assigned(x),
    "expand": lambda m, x: x.mean((2, 3), keepdim=True).expand_as(x) + x,
    "repeat": lambda m, x: x[:, 0].repeat(1, 2, 3),
    "index": lambda m, x: x[:, m.index] + x[..., [3, 0, 0, 1]],
    "gather": lambda m, x: x.flatten(1).gather(1, m.index.expand(x.shape[0], -1)),
    "channel_shuffle": lambda m, x: x.reshape(x.shape[0], 2, 2, 4, 4).transpose(1, 2).reshape(x.shape[0], 4, 4, 4),
    "movedim": lambda m, x: x.movedim(1, -1) + x.swapaxes(1, 3).mT,
    "interpolate": lambda m, x: F.interpolate(x, scale_factor=2.0) - F.interpolate(x, size=(8, 8), mode="bilinear"),
    "bicubic": lambda m, x: F.interpolate(x, size=(3, 6), mode="bicubic", antialias=True),
    "where": lambda m, x: torch.where(m.mask, x, 0.5) + torch.where(m.mask, 2 * x, x.flip(1)),
    "masked_fill": lambda m, x: x.masked_fill(m.mask, -1.0),
    "einsum": lambda m, x: torch.einsum("bchw,ow->bohc", x, m.matrix),
    "diff": lambda m, x: x.diff(dim=1) + x.diff(n=1, dim=1).flip(1),
    "reused": lambda m, x: x.flip(-1) + x.roll(1, 2) - x,
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_coefficient_leaves_a_bound(name: str):
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    check_sound(traced(FUNCTIONS[name]), BiasField(1, 0.4, additive=True), images, climbs=1)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_bounds_of_an_affine_network_are_its_extremes(name: str):
    """All that is left to RSIP is to add things up: the bound is the highest value over the corners of the box."""
    graph = traced(FUNCTIONS[name], affine=True)
    images = torch.rand(2, *IMAGE, dtype=torch.float64)
    net = BoundedModel(graph, Problem(BiasField(1, 0.3), None), "rsip-ibp")
    spec = torch.randn(2, 4, 3, dtype=torch.float64)
    lower, upper = net.bounds(images, spec)
    t = all_corners(len(net.center))
    index = torch.arange(2).repeat_interleave(len(t))
    logits = net.perturbed(net.center + net.radius * t.repeat(2, 1), images[index])
    values = (spec[index] @ logits.unsqueeze(2)).squeeze(2).reshape(2, len(t), -1)
    torch.testing.assert_close(upper, values.amax(1))
    torch.testing.assert_close(lower, values.amin(1))


def test_a_class_token_stands_in_the_graph_once():
    graph = traced(FUNCTIONS["token"])
    assert "expand" not in names(graph) and "join" in names(graph)
    for size in (1, 2, 7):
        images = torch.rand(size, *IMAGE).double()
        torch.testing.assert_close(graph(images), graph.model(images))


def test_constants_follow_the_model():
    """What the model makes of the batch size is kept as a buffer, so that it changes dtype and device with the rest."""
    graph = traced(FUNCTIONS["zeros"]).float()
    assert graph(torch.rand(2, *IMAGE)).dtype == torch.float32


@pytest.mark.parametrize("batch", [2, 3])
def test_a_batch_of_as_many_as_dimensions_or_tokens_is_not_taken_for_them(batch: int):
    """D = 2 and 4 tokens: with a batch of that size a constant could be broadcast along the wrong axis."""
    images = torch.rand(batch, *IMAGE, dtype=torch.float64)
    graph = traced(FUNCTIONS["token-middle"])
    net = BoundedModel(graph, Problem(BiasField(0, 0.3, additive=True), None), "rsip-ssip")
    assert len(net.center) == 2
    spec = torch.eye(3, dtype=torch.float64).expand(batch, 3, 3)
    together = net.bounds(images, spec)
    alone = [net.bounds(images[i : i + 1], spec[:1]) for i in range(batch)]
    for side in (0, 1):
        torch.testing.assert_close(together[side], torch.cat([bounds[side] for bounds in alone]))


# (operation, S of x, the arguments behind x, the reason)
REFUSED = {
    "expand": (aten.expand.default, (1, 2), ([3, -1, 2],), "expands the batch"),
    "expand-front": (aten.expand.default, (2,), ([3, -1, 2],), "expands the batch"),
    "repeat": (aten.repeat.default, (2,), ([2, 1],), "repeats the batch"),
    "repeat-front": (aten.repeat.default, (2,), ([1, 1, 2],), "repeats the batch"),
    "tile": (aten.tile.default, (2,), ([2, 1],), "repeats the batch"),
    "repeat_interleave": (aten.repeat_interleave.self_int, (2,), (2, 0), "along the batch"),
    "repeat_interleave-flat": (aten.repeat_interleave.self_int, (2,), (2,), "along the batch"),
    "flip": (aten.flip.default, (2, 3), ([1, 0],), "along the batch"),
    "flip-negative": (aten.flip.default, (2, 3), ([-3],), "along the batch"),
    "roll": (aten.roll.default, (2,), ([1], [0]), "along the batch"),
    "roll-flat": (aten.roll.default, (2,), ([1],), "along the batch"),
    "rot90": (aten.rot90.default, (2,), (1, [0, 1]), "along the batch"),
    "index_select": (aten.index_select.default, (2,), (0, torch.tensor([0])), "along the batch"),
    "take_along": (aten.take_along_dim.default, (2,), (torch.tensor([[0]]), 0), "along the batch"),
    "take_along-flat": (aten.take_along_dim.default, (2,), (torch.tensor([0]),), "along the batch"),
    "diagonal": (aten.diagonal.default, (2,), (), "along the batch"),
    "unfold": (aten.unfold.default, (2,), (0, 1, 1), "along the batch"),
    "cumsum": (aten.cumsum.default, (2,), (0,), "along the batch"),
    "mean": (aten.mean.dim, (2,), ([0, 1],), "along the batch"),
    "sum": (aten.sum.dim_IntList, (2,), (None,), "along the batch"),
    "tril": (aten.tril.default, (2,), (), "needs 2 axes behind the batch, and its input has 1"),
    "pixel_shuffle": (aten.pixel_shuffle.default, (4, 2), (2,), "needs 3 axes"),
    "nearest2d": (aten.upsample_nearest2d.vec, (4, 2), ([2, 2], None), "needs 3 axes"),
    "index": (aten.index.Tensor, (2, 3), ([torch.tensor([0])],), "indexes the batch"),
    "index-apart": (aten.index.Tensor, (2, 3, 2), ([None, torch.tensor([0]), None, torch.tensor([0])],), "apart"),
    "index-mask": (aten.index.Tensor, (2, 3), ([None, torch.tensor([True, False])],), "by a mask"),
    "masked_fill": (aten.masked_fill.Scalar, (2,), (torch.tensor([True, False]), -math.inf), "not finite"),
    "join": (join, (2,), (0,), "joins along the batch"),
    "cat": (aten.cat.default, (2,), (1,), "with constants"),
    "tensordot": (aten.tensordot.default, (2,), (torch.ones(2, 2), [0], [0]), "contracts the batch"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_mixes_samples_is_refused(name: str):
    target, shape, rest, reason = REFUSED[name]
    graph = fx.Graph()

    def constant(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return [constant(v) for v in value] if isinstance(value, list) else value
        node = graph.get_attr("constant")
        node.meta = {"shape": tuple(value.shape), "dtype": value.dtype}
        return node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx warns of attributes that are not there
        x = graph.placeholder("x")
        x.meta = {"shape": shape}
        first = [x, constant(torch.ones(1, 2))] if target in (join, aten.cat.default) else x
        node = graph.call_function(target, (first, *(constant(value) for value in rest)))
    assert reason in (rule_for(target).refusal(node, [x]) or "taken")


@pytest.mark.parametrize(
    ("equation", "taken"),
    [
        ("bi,ij->bj", True),
        ("...i,ij->...j", True),
        ("bi,ij->jb", False),
        ("bi,ij->j", False),
        ("ib,ij->bj", False),
        ("bb,ij->b", False),
        ("bi,ij", True),
        ("zi,ij", False),
    ],
)
def test_a_contraction_keeps_the_batch_first(equation: str, taken: bool):
    graph = fx.Graph()
    x, matrix = graph.placeholder("x"), graph.placeholder("matrix")
    x.meta = {"shape": (2,)}
    node = graph.call_function(aten.einsum.default, (equation, [x, matrix]))
    assert (rule_for(node.target).refusal(node, [x]) is None) == taken
    assert "contracts several values" in rule_for(node.target).refusal(node, [x, matrix])


UNSUPPORTED = {
    "amax": (lambda m, x: x - x.amax((1, 2, 3), keepdim=True) + x.flatten(1).argmax(1).reshape(-1, 1, 1, 1), "argmax"),
    "norm": (lambda m, x: x.norm(p=3, dim=1), "linalg_vector_norm"),
    "gather": (lambda m, x: x.gather(1, x.argmax(1, keepdim=True)), "argmax"),
    "einsum": (lambda m, x: torch.einsum("bchw,bciw,bdhw->bcih", x, x, x), "contracts several values"),
}


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_has_no_bounds_is_named(name: str):
    function, reason = UNSUPPORTED[name]
    with pytest.raises((UnsupportedError, UnsupportedOpError), match=reason):
        robnet_fx.bound(Around(function), BiasField(0, 0.1), example=torch.rand(3, *IMAGE).double())


def test_a_constant_made_of_the_batch_size_is_refused():
    with pytest.raises(UnsupportedError, match="out of the batch size"):
        traced(lambda m, x: x + torch.arange(x.shape[0]).reshape(-1, 1, 1, 1))
