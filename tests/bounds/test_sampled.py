"""Errors over ranges of values that were seen."""

import pytest
import torch
from torch import nn

from robnet_fx import BiasField, bound
from robnet_fx.bounds.dependence import dependents, relaxed_nodes
from robnet_fx.bounds.sampled import sampled_errors
from robnet_fx.rules import rule_for
from robnet_fx.testing import corners, node_values
from tests.small import bounded, digits

X, _ = digits()
IMAGES = (X[:5] / 255).double()


def points_of(net, unit):
    """Coefficients `[P, B, D]` at points of the unit box, the same for all images."""
    return (net.center + net.radius * unit.to(net.center)).unsqueeze(1).expand(-1, len(IMAGES), -1)


@pytest.fixture
def net():
    made = bounded(eps=0.2, fit=60).double()
    made.set_eps(0.2)
    yield made
    made.float()


def test_the_errors_of_relus_are_half_of_what_their_chords_rise_at_zero(net):
    points = points_of(net, torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    logits, errors = sampled_errors(net.perturbed, points, IMAGES)
    seen = [node_values(net.perturbed, each, IMAGES) for each in points]
    torch.testing.assert_close(logits, torch.stack([net.perturbed(each, IMAGES) for each in points]))
    relaxed = relaxed_nodes(dependents(net.perturbed))
    names = [node.name for node in net.perturbed.graph.nodes if node in relaxed]
    sources = {node.name: dependents(net.perturbed)[node][0].name for node in relaxed}
    assert len(errors) == len(names) >= 2
    for name, error in zip(names[-2:], errors[-2:], strict=True):  # those of the network; before them is the clip
        values = torch.stack([each[sources[name]] for each in seen]).flatten(2)
        lower, upper = values.amin(0), values.amax(0)
        half = torch.where((lower < 0) & (upper > 0), -lower * upper / (upper - lower) / 2, 0.0)
        scale = torch.stack([each[name] for each in seen]).transpose(0, 1).flatten(1).std(1)
        torch.testing.assert_close(error, half.sum(1) / scale)
    assert bool((torch.stack(errors[-2:]) > 0).any())


def test_no_error_is_larger_than_over_the_proved_range(net):
    unit = torch.cat([corners(len(net.center)), torch.zeros(1, len(net.center))])
    _, errors = sampled_errors(net.perturbed, points_of(net, unit), IMAGES)
    proved = net.intermediate(IMAGES)
    found = dependents(net.perturbed)
    relaxed = [node for node in found if node in relaxed_nodes(found)]
    values = [node_values(net.perturbed, each, IMAGES) for each in points_of(net, unit)]
    for node, error in zip(relaxed, errors, strict=True):
        pre = proved[found[node][0].name]
        band = rule_for(node.target).relaxation.band(pre, *node.args[1:])
        scale = torch.stack([each[node.name] for each in values]).transpose(0, 1).flatten(1).std(1)
        assert bool((error <= band.error.flatten(1).sum(1) / scale * (1 + 1e-9) + 1e-12).all())


class Gated(nn.Module):
    """A product of two values that move, a sigmoid, a max pooling, a GELU and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.gate, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(36, 10)

    def forward(self, x):
        moved = nn.functional.max_pool2d(self.conv(x) * self.gate(x).sigmoid(), 2)
        return self.out(nn.functional.gelu(moved).flatten(1).softmax(1) * 4)


def test_every_kind_of_relaxation_has_an_error_and_a_gradient():
    model = Gated().double()
    net = bound(model, BiasField(1, 0.2), example=IMAGES[:2])
    unit = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    logits, errors = sampled_errors(net.perturbed, points_of(net, unit), IMAGES)
    torch.testing.assert_close(logits[1], net.perturbed(points_of(net, unit)[1], IMAGES))
    assert all(error.shape == (5,) and bool((error >= 0).all()) for error in errors)
    assert sum(bool((error > 0).all()) for error in errors) >= 4
    sum(error.sum() for error in errors[-4:]).backward()
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in model.conv.parameters())


def test_an_image_has_the_errors_that_it_has_among_others(net):
    points = points_of(net, torch.rand(3, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    _, together = sampled_errors(net.perturbed, points, IMAGES)
    _, alone = sampled_errors(net.perturbed, points[:, 2:3], IMAGES[2:3])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:3], b)


def test_points_that_are_one_have_no_error(net):
    _, errors = sampled_errors(net.perturbed, points_of(net, torch.zeros(3, 4)), IMAGES)
    assert not any(error.any() for error in errors)
