"""Weights in a row, multiplied out: the bounds of the network that has the product for them."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.algebra.domains import Symbolic, as_value, units_of
from robnet_fx.bounds import weight_chains as chains
from robnet_fx.interchange.bounds import write_bounds
from robnet_fx.testing import check_sound

FIELD = BiasField(1, 0.5)


class Net(nn.Module):
    """Two linear layers between ReLUs, with a way around the first, or the one layer that they are together."""

    def __init__(self, merged: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.a, self.b, self.last = (nn.Linear(*size) for size in ((6, 12), (12, 12), (12, 9), (9, 4)))
        if merged:
            with torch.no_grad():
                self.b.bias.add_(self.b.weight @ self.a.bias)
                self.b.weight.copy_(self.b.weight @ (self.a.weight + torch.eye(12)))
        self.merged = merged

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x.flatten(1)))
        x = x if self.merged else x + self.a(x)
        return self.last(torch.relu(self.b(x)))


@pytest.mark.parametrize("method", ["ssip", "rsip-ssip"])
def test_the_bounds_are_those_of_the_product(method, monkeypatch):
    images, widths, code = torch.rand(3, 1, 6, dtype=torch.float64), {}, {}
    for name, model, most in (("row", Net(), 2**20), ("one", Net(merged=True), 2**20), ("plain", Net(), 0)):
        monkeypatch.setattr(chains, "_MOST", most)
        net = robnet_fx.bound(model.double(), BiasField(1, 0.9), method, clip=None, example=images)
        with torch.no_grad():
            lower, upper = net.probe(images)["linear_1" if name == "one" else "linear_2"]["ssip"]
        widths[name], code[name] = upper - lower, net.get_submodule("bounds").code
    assert "units_of" in code["row"] and "units_of" not in code["one"] + code["plain"]
    torch.testing.assert_close(widths["row"], widths["one"])
    assert bool((widths["row"] <= widths["plain"]).all())
    assert widths["row"].sum() < 0.9 * widths["plain"].sum()


def test_they_are_sound_and_trainable():
    images = torch.rand(2, 1, 6, dtype=torch.float64)
    check_sound(Net().double(), FIELD, images)
    model = Net()
    net = robnet_fx.bound(model, FIELD, example=images.float())
    net.margins(images.float(), torch.tensor([0, 1])).relu().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_they_are_written_as_onnx(tmp_path):
    net = robnet_fx.bound(Net(), FIELD, "ssip", clip=None, example=torch.rand(2, 1, 6))
    assert "units_of" in net.get_submodule("bounds").code
    assert write_bounds(net, tmp_path / "bounds.onnx", torch.rand(2, 1, 6)).batch is None
    onnxruntime.InferenceSession(tmp_path / "bounds.onnx", providers=["CPUExecutionProvider"])


def test_one_layer_between_relaxations_is_left_as_it_is():
    layers = nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)
    net = robnet_fx.bound(nn.Sequential(*layers), FIELD, example=torch.rand(2, 1, 6))
    assert "units_of" not in net.get_submodule("bounds").code


def test_units_pick_a_value_apart_and_its_shape_comes_back():
    value = Symbolic(torch.rand(2, 4, 3, 5), torch.rand(2, 3, 5), torch.rand(2, 3, 5))
    rows = units_of(value)
    assert rows.shape == (1, 15, 3, 5)
    torch.testing.assert_close((rows * value.const.unsqueeze(1)).flatten(2).sum(2), value.const.flatten(1))
    flat = Symbolic(value.coef.flatten(2), value.const.flatten(1), value.slack.flatten(1))
    for part, whole in zip(as_value(flat, [3, 5]), value, strict=True):
        assert torch.equal(part, whole)
