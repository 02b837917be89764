"""The box as an argument: sound and a sample's own in every method, the default box where none is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robnet_fx import BiasField, UsageError, WhiteNoise
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Box
from robnet_fx.problem import Problem
from robnet_fx.testing import check_sound
from tests.bounds.test_bounds import canonical, conv_net, dense_net
from tests.soundness import draws

PERTURBATIONS = {
    "multiplicative": BiasField(1, 0.3),
    "additive": BiasField(1, 0.3, False, True),
    "both": BiasField(1, 0.3, True, True),
    "noise": WhiteNoise(0.2),
}
IMAGES = torch.rand(3, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 1, 2])


def compiled(perturbation: Any, method: str, clip: str | None = "clamp") -> BoundedModel:
    return BoundedModel(canonical(dense_net), Problem(perturbation, clip), method)


def around(net: BoundedModel, batch: int) -> Box:
    """A box for each sample, about other middles than the default one and of other widths."""
    r = draws(7)
    radius = net.radius * (r(batch, len(net.radius)).abs() + 0.1)
    return Box(net.center + net.radius * r(batch, len(net.radius)), radius)


def row(box: Box, index: int) -> Box:
    return Box(*(part[index : index + 1] for part in box))


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("clip", ["relu", "clamp", None])
def test_bounds_over_a_box_for_each_sample_are_sound_at_every_node(name: str, clip: str | None):
    perturbation = PERTURBATIONS[name]
    box = around(compiled(perturbation, "ibp"), 3)
    nets = check_sound(canonical(dense_net), perturbation, IMAGES, clip=clip, climbs=1, box=box)
    assert set(nets) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_sample_has_the_bounds_of_its_own_box(method: str, name: str):
    """One at a time, and by a box in the buffers."""
    net = compiled(PERTURBATIONS[name], method)
    box = around(net, 3)
    together, tables = net.margins(IMAGES, LABELS, box), net.probe(IMAGES, box)
    for index in range(3):
        image, label = IMAGES[index : index + 1], LABELS[index : index + 1]
        own = net.margins(image, label, row(box, index))
        torch.testing.assert_close(own[0], together[index])
        torch.testing.assert_close(net.margins(IMAGES, LABELS, row(box, index))[index], together[index])
        for node, kinds in net.probe(image, row(box, index)).items():
            for kind, bounds in kinds.items():
                for one, all_ in zip(bounds, tables[node][kind], strict=True):
                    torch.testing.assert_close(one[0], all_[index])
        moved = compiled(PERTURBATIONS[name], method)
        moved.center.copy_(box.center[index])
        moved.radius.copy_(box.radius[index])
        assert torch.equal(moved.margins(image, label), own)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_default_box_given_is_the_default_box(method: str, name: str):
    net = compiled(PERTURBATIONS[name], method)
    box = Box(net.center.unsqueeze(0), net.radius.unsqueeze(0))
    assert torch.equal(net.margins(IMAGES, LABELS, box), net.margins(IMAGES, LABELS))
    for given, default in zip(net.intermediate(IMAGES, box).values(), net.intermediate(IMAGES).values(), strict=True):
        assert all(map(torch.equal, given, default))
    spec = draws(6)(3, 4, 3)
    for given, default in zip(net.bounds(IMAGES, spec, *box), net.bounds(IMAGES, spec), strict=True):
        assert torch.equal(given, default)


def test_a_part_of_a_box_has_smaller_intervals():
    net = compiled(PERTURBATIONS["both"], "ibp")
    for side in (-1, 1):
        part = Box((net.center + side * net.radius / 2).unsqueeze(0), net.radius.unsqueeze(0) / 2)
        inner = net.probe(IMAGES, part)
        for node, kinds in net.probe(IMAGES).items():
            assert bool((inner[node]["ibp"].lower >= kinds["ibp"].lower - 1e-12).all())
            assert bool((inner[node]["ibp"].upper <= kinds["ibp"].upper + 1e-12).all())


def test_gradients_flow_into_the_box():
    net = compiled(PERTURBATIONS["both"], "rsip-ssip")
    box = Box(*(part.requires_grad_() for part in around(net, 3)))

    def value() -> Tensor:
        margins = net.margins(IMAGES, LABELS, box)
        return margins.masked_fill(margins == -torch.inf, 0).sum()

    gradients = torch.autograd.grad(value(), box)
    directions = [draws(9)(*part.shape) for part in box]
    ends = []
    with torch.no_grad():
        for sign in (1, -2):
            for part, direction in zip(box, directions, strict=True):
                part += sign * 1e-6 * direction
            ends.append(float(value()))
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("center", "radius", "message"),
    [
        (torch.zeros(3), torch.zeros(4), r"\[1 or 3, 4\] each, not \[3\] and \[4\]"),
        (torch.zeros(4), torch.zeros(4), r"not \[4\]"),
        (torch.zeros(1, 5), torch.zeros(1, 5), r"not \[1, 5\]"),
        (torch.zeros(2, 4), torch.zeros(1, 4), r"not \[2, 4\]"),
        (torch.zeros(1, 4), torch.zeros(2, 4), r"and \[2, 4\]"),
        (torch.zeros(1, 4), torch.tensor([[0.1, 0.1, -0.1, 0.1]]), "at least 0"),
        (torch.zeros(1, 4), torch.tensor([[0.1, 0.1, torch.nan, 0.1]]), "finite"),
        (torch.full((3, 4), torch.inf), torch.zeros(1, 4), "finite"),
    ],
)
def test_a_box_that_does_not_fit_is_refused(center: Tensor, radius: Tensor, message: str):
    net = compiled(PERTURBATIONS["both"], "rsip-ibp")
    for ask in (net.probe, net.intermediate, lambda images, box: net.margins(images, LABELS, box)):
        with pytest.raises(UsageError, match=message):
            ask(IMAGES, Box(center, radius))


@pytest.mark.parametrize("method", ["rsip", "rsip-ssip"])
def test_an_image_with_channels_and_rows_has_its_own_box(method: str):
    net = BoundedModel(canonical(conv_net), Problem(BiasField(1, 0.3, True, True), "relu"), method)
    images = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    box = around(net, 3)
    check_sound(canonical(conv_net), net.perturbation, images, clip="relu", methods=[method], climbs=1, box=box)
    alone = [net.margins(images[i : i + 1], LABELS[i : i + 1], row(box, i)) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), net.margins(images, LABELS, box))


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_all_samples_share_are_theirs(method: str):
    """One spec for a batch of images is what the same repeated is."""
    net = compiled(PERTURBATIONS["both"], method)
    box, spec = around(net, 3), torch.eye(3, dtype=torch.float64)[None]
    expected = net.bounds(IMAGES, spec.expand(3, -1, -1), *box)
    torch.testing.assert_close(tuple(net.bounds(IMAGES, spec, *box)), tuple(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_box_without_a_batch_axis_is_one_for_all(method: str):
    """As `net.center` is; here two rows and two coefficients could be taken for each other."""
    net = compiled(BiasField(0, 0.3, True, True), method)
    spec = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64).expand(3, -1, -1)
    center, radius = net.center + 0.1, net.radius / torch.tensor([2.0, 5.0], dtype=torch.float64)
    expected = net.bounds(IMAGES, spec, center.expand(3, -1), radius.expand(3, -1))
    torch.testing.assert_close(tuple(net.bounds(IMAGES, spec, center, radius)), tuple(expected), rtol=0, atol=1e-12)


def test_weights_do_not_bring_their_box():
    """The box is the problem's: what is loaded from a net over another one leaves it alone."""
    small, large = (compiled(BiasField(1, eps), "rsip-ssip") for eps in (0.1, 0.4))
    expected = large.radius.clone()
    large.load_state_dict(small.state_dict())
    assert torch.equal(large.radius, expected) and not any("field" in name for name in small.state_dict())
