"""The cost of a box by its symbols: more for more, measured where it is short, estimated where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robnet_fx import BiasField, WhiteNoise
from robnet_fx.bounds import generator
from robnet_fx.inspect import cost
from robnet_fx.inspect.cost import BUDGETS, costs
from robnet_fx.inspect.coverage import coverage
from tests.gaps import Gappy, forgetful  # noqa: F401  (a fixture)
from tests.small import plain_net

CPU, PLENTY = torch.device("cpu"), 2**34


def graph(model=None, perturbation=None, size=(1, 8, 8)):
    return coverage(model or plain_net(), perturbation or BiasField(1, 0.0), example=torch.rand(2, *size)).perturbed


def test_a_small_network_is_measured(monkeypatch):
    monkeypatch.setattr(cost, "_SHORT", 1e9)
    found = costs(graph(), CPU, PLENTY)
    assert [each.symbols for each in found] == list(BUDGETS)
    assert all(each.measured and each.seconds > 0 for each in found)
    assert [each.memory for each in found] == sorted({each.memory for each in found})


@pytest.fixture
def never(monkeypatch):
    """Bounds must not be run."""
    monkeypatch.setattr(generator, "upper", lambda plan: pytest.fail("bounds are run"))


@pytest.mark.usefixtures("never")
def test_what_would_be_long_is_estimated(monkeypatch):
    monkeypatch.setattr(cost, "_SHORT", 0.0)
    found = costs(graph(), CPU, PLENTY)
    assert not any(each.measured for each in found)
    share = [each.seconds / (4 + each.symbols + 2 * 9) for each in found]  # D = 4, 9 margins
    assert share == pytest.approx([share[0]] * 4)


@pytest.mark.usefixtures("never")
def test_what_does_not_fit_is_not_run():
    assert not any(each.measured for each in costs(graph(), CPU, 2**10))


@pytest.mark.usefixtures("never", "forgetful")
def test_a_network_with_gaps_is_estimated():
    assert not any(each.measured for each in costs(graph(Gappy()), CPU, PLENTY))


def test_noise_in_many_pixels_has_no_symbols():
    model = nn.Sequential(nn.Flatten(), nn.Linear(33 * 33, 3))
    (only,) = costs(graph(model, WhiteNoise(0.0), (1, 33, 33)), CPU, PLENTY)
    assert only.symbols == 0 and only.seconds > 0


def test_the_graph_is_left_alone():
    model = plain_net()
    made = graph(model)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    costs(made, CPU, PLENTY)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
