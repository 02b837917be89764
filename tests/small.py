"""Small real inputs for the tests of training, certifying and attacking: digits and networks of a few layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import robnet_fx
from robnet_fx.bounds.model import BoundedModel


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: uint8 `[1797, 1, 8, 8]`, int64 `[1797]`."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16 * 255).round().to(torch.uint8).reshape(-1, 1, 8, 8), torch.tensor(y)


@dataclass
class Data:
    """Some of the digits, as `robustify` takes data."""

    x_train: Tensor = field(default_factory=lambda: digits()[0][:400])
    y_train: Tensor = field(default_factory=lambda: digits()[1][:400])
    x_test: Tensor = field(default_factory=lambda: digits()[0][1500:1600])
    y_test: Tensor = field(default_factory=lambda: digits()[1][1500:1600])
    name: str = "some digits"
    notes: tuple[str, ...] = ("the first ones",)


def plain_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def moody_net(seed: int = 0) -> nn.Module:
    """Batch norm and dropout: everything that differs between train and eval mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 24),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def quiet_net(seed: int = 0) -> nn.Module:
    """Batch norm in float64 without dropout: its gradients can be compared."""
    net = moody_net(seed).double()
    net[4].p = 0.0
    return net


Maker = Callable[[int], nn.Module]


@cache
def _compiled(make: Maker, eps: float, method: str) -> BoundedModel:
    model = make(0)
    example = torch.rand(2, 1, 8, 8, dtype=next(model.parameters()).dtype)
    return robnet_fx.bound(model, robnet_fx.BiasField(1, eps), method, example=example)


@cache
def _fitted(make: Maker, steps: int) -> dict[str, Tensor]:
    """The weights of a quick standard training on digits: about 90 % clean after 200 steps."""
    model = make(0).train()
    x, y = digits()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):
        index = torch.arange(step * 64, step * 64 + 64) % 1400
        optimiser.zero_grad()
        logits = model(x[index].to(next(model.parameters()).dtype) / 255)
        nn.functional.cross_entropy(logits, y[index]).backward()
        optimiser.step()
    return model.state_dict()


def bounded(
    make: Maker = plain_net, eps: float = 0.1, *, seed: int = 0, fit: int = 0, method: str = "rsip-ssip"
) -> BoundedModel:
    """A network with its bounds for an order 1 field, as good as new: compiled once a process, the weights put back.

    `fit` is a number of steps of standard training.
    """
    net = _compiled(make, eps, method)
    net.model.load_state_dict(_fitted(make, fit) if fit else make(seed).state_dict())
    net.model.requires_grad_(True).eval()
    net.zero_grad()
    net.set_eps(eps)
    return net
