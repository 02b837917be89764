"""A network with three operations that have no bound rule, wherever the op table stands today."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robnet_fx.rules import registry

aten = torch.ops.aten
MISSING = (aten.tanh.default, aten.sigmoid.default, aten.leaky_relu.default)


class Block(nn.Module):
    """Missing: the sigmoid of a nested layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 6 * 6, 20)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x.flatten(1)))


class Gappy(nn.Module):
    """Missing besides: a tanh called as a function, and a leaky ReLU at the very end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.block = Block()
        self.linear = nn.Linear(20, 10)
        self.last = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(x))
        return self.last(self.linear(self.block(x)))


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The op table without three of its rules."""
    for target in MISSING:
        monkeypatch.delitem(registry._TABLE, target)
