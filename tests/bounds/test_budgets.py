"""Budgets of error symbols in whole graphs whose paths meet: sound at every size, and better than none."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, fx, nn

from robnet_fx import BiasField, trace
from robnet_fx.algebra import kernels
from robnet_fx.algebra.symbols import born
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem


class Meets(nn.Module):
    """Residual, smooth and gated paths, a concatenation, and a value that is read again much later."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.gate = nn.Linear(4, 4)
        self.joined = nn.Conv2d(8, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.relu(self.first(x))
        y = start + self.outer(torch.nn.functional.gelu(self.inner(start)))
        y = torch.relu(y) * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        y = torch.relu(self.joined(torch.cat([start, y], 1)))
        return self.head(y.flatten(1))


def bounded(canonical: fx.GraphModule, symbols: int | str, method: str = "rsip-ssip") -> BoundedModel:
    return BoundedModel(canonical, Problem(BiasField(2, 0.4)), method, symbols).double()


BUDGETS = (1, 3, 10, 40, 200, "all")


@pytest.fixture(scope="module")
def case() -> tuple[fx.GraphModule, Tensor, Tensor]:
    torch.manual_seed(0)
    model, images = Meets().double().eval(), torch.rand(3, 1, 6, 6, dtype=torch.float64)
    for weight in model.parameters():  # as large as trained ones: what is slack grows
        weight.data *= 3.0
    return trace(model, images), images, torch.eye(3, dtype=torch.float64).expand(3, -1, -1)


@pytest.mark.parametrize("method", ["ssip", "rsip-ssip"])
@pytest.mark.parametrize("symbols", BUDGETS)
@torch.no_grad()
def test_every_logit_lies_inside(case, method: str, symbols: int | str):
    canonical, images, spec = case
    net = bounded(canonical, symbols, method)
    lower, upper = net.bounds(images, spec)
    table = net.probe(images)
    t = torch.rand(400, 1, len(net.center), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    t[::2] = t[::2].sign()
    fields = (net.center + net.radius * t).expand(-1, 3, -1).flatten(0, 1)
    logits = net(fields, images.repeat(400, 1, 1, 1)).unflatten(0, (400, 3))
    assert bool(((logits >= lower - 1e-7) & (logits <= upper + 1e-7)).all())
    assert all(bool((ends[0] <= ends[1]).all()) for parts in table.values() for ends in parts.values())


@pytest.mark.parametrize("method", ["ssip", "rsip-ssip", "rsip"])
def test_no_value_from_before_a_birth_is_read_behind_it(case, method: str):
    """But as the birth returns it: a column may have got another symbol."""
    canonical, *_ = case
    net = bounded(canonical, 40, method)
    symbolic = re.compile(r"_(ssip|relaxed|aligned)(_\d+)?$")
    nodes = list(net.get_submodule("bounds").graph.nodes)
    births = [node for node in nodes if node.target is born]
    place = {node: index for index, node in enumerate(nodes)}
    assert len(births) == 8 and sum(bool(node.args[4]) for node in births) >= 2
    for birth in births:
        for node in nodes[place[birth] + 1 :]:
            stale = [x for x in node.all_input_nodes if symbolic.search(x.name) and place[x] < place[birth]]
            assert not stale


@torch.no_grad()
def test_more_symbols_are_better(case):
    canonical, images, spec = case
    widths = []
    for symbols in BUDGETS:
        lower, upper = bounded(canonical, symbols).bounds(images, spec)
        widths.append(float((upper - lower).mean()))
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 5


@pytest.mark.parametrize("symbols", [3, 40, 1000])
@torch.no_grad()
def test_a_graph_that_is_traced_bounds_the_same(case, symbols: int):
    """Its columns are static, whatever the numbers are."""
    canonical, images, spec = case
    net = bounded(canonical, symbols)
    eager = net.bounds(images, spec)
    with kernels.plain():
        traced = net.bounds(images, spec)
    for one, other in zip(eager, traced, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_sample_is_bounded_as_it_is_alone(case):
    """Whether its neighbours have run out of columns or not."""
    canonical, images, spec = case
    images = images * torch.tensor([1.0, 0.01, 0.3], dtype=torch.float64).reshape(3, 1, 1, 1)
    net = bounded(canonical, 60)
    together = net.bounds(images, spec)
    for sample in range(3):
        alone = net.bounds(images[sample : sample + 1], spec[:1])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[sample], rtol=1e-9, atol=1e-9)
