"""Budgets of error symbols in whole graphs whose paths meet: sound at every size, and better than none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robnet_fx import BiasField, bound
from robnet_fx.algebra import kernels


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


BUDGETS = (1, 3, 10, 40, 200, "all")


@pytest.fixture(scope="module")
def case() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model, images = Meets().double().eval(), torch.rand(3, 1, 6, 6, dtype=torch.float64)
    return model, images, torch.eye(3, dtype=torch.float64).expand(3, -1, -1)


@pytest.mark.parametrize("method", ["ssip", "rsip-ssip"])
@pytest.mark.parametrize("symbols", BUDGETS)
@torch.no_grad()
def test_every_logit_lies_inside(case, method: str, symbols: int | str):
    model, images, spec = case
    net = bound(model, BiasField(2, 0.1), method=method, symbols=symbols, example=images).double()
    lower, upper = net.bounds(images, spec)
    table = net.probe(images)
    generator = torch.Generator().manual_seed(1)
    for number in range(400):
        t = torch.rand(len(net.center), generator=generator, dtype=torch.float64) * 2 - 1
        t = t.sign() if number % 2 else t
        logits = net((net.center + net.radius * t).expand(3, -1), images)
        assert bool(((logits >= lower - 1e-9) & (logits <= upper + 1e-9)).all())
    assert all(bool((ends[0] <= ends[1]).all()) for parts in table.values() for ends in parts.values())


@torch.no_grad()
def test_more_symbols_are_better(case):
    model, images, spec = case
    widths = []
    for symbols in (0, *BUDGETS):
        lower, upper = bound(model, BiasField(2, 0.1), symbols=symbols, example=images).double().bounds(images, spec)
        widths.append(float((upper - lower).mean()))
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.8 * widths[0]


@pytest.mark.parametrize("symbols", [3, 40, 1000])
@torch.no_grad()
def test_a_graph_that_is_traced_bounds_the_same(case, symbols: int):
    """Its columns are static, whatever the numbers are."""
    model, images, spec = case
    net = bound(model, BiasField(2, 0.1), symbols=symbols, example=images).double()
    eager = net.bounds(images, spec)
    with kernels.plain():
        traced = net.bounds(images, spec)
    for one, other in zip(eager, traced, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_sample_is_bounded_as_it_is_alone(case):
    """Whether its neighbours have run out of columns or not."""
    model, images, spec = case
    images = images * torch.tensor([1.0, 0.01, 0.3], dtype=torch.float64).reshape(3, 1, 1, 1)
    net = bound(model, BiasField(2, 0.1), symbols=60, example=images).double()
    together = net.bounds(images, spec)
    for sample in range(3):
        alone = net.bounds(images[sample : sample + 1], spec[:1])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[sample], rtol=1e-9, atol=1e-9)
