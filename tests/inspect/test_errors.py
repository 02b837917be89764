"""What SSIP's widths are made of: by hand on a network of two units, and as parts of a whole on others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robnet_fx import BiasField, WhiteNoise, bound
from robnet_fx.bounds import generator
from robnet_fx.bounds.plan import plan
from robnet_fx.inspect.errors import Shares, errors
from tests.onnx_files import Residual, settled


def by_hand(symbols, last=((0.0, 0.0), (1.0, 0.0), (0.0, 2.0))):
    """A pixel of 1 and a constant field in [0.5, 1.5]: two ReLUs over [-0.5, 0.5], each t / 4 + 1/8 +- 1/8."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        net[1].weight.fill_(1)
        net[1].bias.fill_(-1)
        net[3].weight.copy_(torch.tensor(last))
        net[3].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    return bound(net, BiasField(0, 0.5), clip=None, example=torch.ones(2, 1, 1, 1), layout="nchw", symbols=symbols)


def test_by_hand():
    """The margins over class 0 are t / 4 +- 1/8 and t / 2 +- 1/4: two thirds of their width is the field's."""
    pixel = torch.ones(1, 1, 1, 1).double()
    found = errors(by_hand("all"), pixel)
    relu = found.nodes["relu"]
    assert (relu.born, relu.kept, relu.worst) == (2, 2, True)
    assert relu.hurts == pytest.approx(1 / 3) and relu.width.symbols == pytest.approx(1 / 3)
    assert vars(found.margins) == pytest.approx({"coefficients": 2 / 3, "symbols": 1 / 3, "slack": 0})
    assert found.nodes["linear"].born == found.nodes["linear"].kept == 0
    assert found.nodes["linear"].width == Shares(1, 0, 0)
    plain = errors(by_hand(0), pixel)
    assert vars(plain.margins) == pytest.approx({"coefficients": 2 / 3, "symbols": 0, "slack": 1 / 3})
    assert not any(node.worst or node.born or node.kept for node in plain.nodes.values())
    one = errors(by_hand(1, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))), pixel)
    assert (one.nodes["relu"].born, one.nodes["relu"].hurts) == (1, pytest.approx(1 / 6))
    assert vars(one.margins) == pytest.approx({"coefficients": 2 / 3, "symbols": 1 / 6, "slack": 1 / 6})


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    model, images = settled(Residual()).double(), torch.rand(3, 3, 8, 8).double()
    return images, {n: bound(model, BiasField(2, 0.2), example=images, symbols=n) for n in (0, 20, "all")}


@pytest.mark.parametrize("symbols", [0, 20, "all"])
def test_the_parts_make_the_whole(residual, symbols):
    images, nets = residual
    found = errors(nets[symbols], images)
    probe = nets[symbols].probe(images)
    graph = generator.errors(plan(nets[symbols].perturbed, "rsip-ssip", symbols))
    parts, *_ = graph(images, torch.eye(nets[symbols].classes).double().expand(3, -1, -1))
    assert set(found.nodes) == set(parts) == set(probe)
    for name, (*width, kept) in parts.items():
        lower, upper = probe[name]["ssip"]
        torch.testing.assert_close(2 * sum(width), upper - lower)
        assert kept.shape == (3,)
    for node in found.nodes.values():
        assert sum(vars(node.width).values()) == pytest.approx(1)
        assert node.born <= node.kept or symbols != "all"
    assert sum(node.hurts for node in found.nodes.values()) == pytest.approx(found.margins.symbols)
    assert sum(vars(found.margins).values()) == pytest.approx(1)
    if symbols:
        (worst,) = (node for node in found.nodes.values() if node.worst)
        assert worst.hurts == max(node.hurts for node in found.nodes.values()) > 0
        last = list(found.nodes.values())[-1]
        assert 0 < last.kept <= sum(node.born for node in found.nodes.values())
    assert (found.margins.slack == 0) == (symbols == "all")


def test_counts_are_means_over_images(residual):
    images, nets = residual
    together = errors(nets["all"], images)
    alone = [errors(nets["all"], image.unsqueeze(0)) for image in images]
    for name, node in together.nodes.items():
        assert node.born == pytest.approx(sum(one.nodes[name].born for one in alone) / 3)
        assert node.kept == pytest.approx(sum(one.nodes[name].kept for one in alone) / 3)


def test_the_branch_with_the_larger_weight_hurts_most():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weak, self.strong, self.last = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            return self.last(0.01 * torch.tanh(self.weak(x)) + torch.relu(self.strong(x)))

    torch.manual_seed(0)
    images = torch.rand(2, 1, 4, 4).double()
    found = errors(bound(Branches().double(), BiasField(1, 0.5), clip=None, example=images, symbols="all"), images)
    assert found.nodes["relu"].worst and not found.nodes["tanh"].worst
    assert found.nodes["relu"].hurts > 10 * found.nodes["tanh"].hurts > 0


def test_without_ssip_there_is_nothing_to_say():
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(2, 1, 4, 4)
    assert errors(bound(model, BiasField(1, 0.1), "rsip-ibp", example=images), images) is None
    large = torch.rand(2, 1, 33, 33)
    model = nn.Sequential(nn.Flatten(), nn.Linear(33 * 33, 3))
    assert errors(bound(model, WhiteNoise(0.01), "rsip", example=large), large) is None


def test_a_box_of_one_point_has_no_shares():
    found = errors(by_hand("all"), torch.ones(1, 1, 1, 1).double())
    net = by_hand("all")
    net.set_eps(0.0)
    nothing = errors(net, torch.ones(1, 1, 1, 1).double())
    assert nothing.margins is None and nothing.nodes["relu"].width is None
    assert nothing.nodes["relu"].born == 0 < found.nodes["relu"].born
