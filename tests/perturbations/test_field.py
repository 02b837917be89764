"""The bias field and white noise against a naive implementation of Definitions 2 to 4, pixel by pixel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField, UsageError, WhiteNoise
from robnet_fx.algebra.domains import Form, concretise, upper_over_box
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Box, Transform, TransformRules
from robnet_fx.perturbations.bias_field import FieldTransform, monomials
from robnet_fx.perturbations.white_noise import NoiseTransform
from robnet_fx.problem import Problem
from robnet_fx.testing import all_corners
from tests.soundness import draws

SHAPES = [(5,), (2, 4), (1, 3, 4), (3, 2, 3), (2, 2, 3, 2)]
PARTS = [(True, False), (False, True), (True, True)]


def naive(image: Tensor, coefficients: Tensor, order: int, multiplicative: bool, additive: bool) -> Tensor:
    """Definition 4 by loops: one image `[*S]`, its coefficients `[D]`, multiplicative ones first."""
    spatial = image.shape if image.dim() == 1 else image.shape[1:]
    powers = list(itertools.product(range(order + 1), repeat=len(spatial)))
    result = image.clone()
    for index in itertools.product(*(range(n) for n in image.shape)):
        pixel = index if image.dim() == 1 else index[1:]
        fields = []
        for part in range(int(multiplicative) + int(additive)):
            value = 0.0
            for term, power in enumerate(powers):
                product = 1.0
                for i, n, p in zip(pixel, spatial, power, strict=True):
                    product *= ((i + 1) / n) ** p
                value += float(coefficients[part * len(powers) + term]) * product
            fields.append(value)
        if multiplicative:
            result[index] *= fields[0]
        if additive:
            result[index] += fields[-1]
    return result


def naive_batch(images: Tensor, coefficients: Tensor, spec: BiasField) -> Tensor:
    parts = spec.multiplicative is not False, spec.additive is not False
    return torch.stack([naive(x, a, spec.order, *parts) for x, a in zip(images, coefficients, strict=True)])


def net_for(shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    size = int(torch.tensor(shape).prod())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 6), nn.ReLU(), nn.Linear(6, 3)).double()


@cache
def canonical(shape: tuple[int, ...]) -> fx.GraphModule:
    return robnet_fx.trace(net_for(shape), torch.rand(2, *shape, dtype=torch.float64), layout="nchw")


def box_corners(transform: Transform) -> Tensor:
    return transform.center + transform.radius * all_corners(transform.dimensions)


def assert_exact(rules: TransformRules, images: Tensor, parts: Sequence[Tensor], box: Box) -> None:
    """IBP, SSIP and RSIP of the entry are the least and the largest value over each sample's corners."""
    center, radius = (part.expand(len(images), -1) for part in box)
    unit = all_corners(center.shape[1])
    values = torch.stack([rules.apply(center + radius * t, images, *parts) for t in unit])  # [N, B, *S]
    ibp = rules.ibp(images, *parts, *box)
    torch.testing.assert_close(ibp.lower, values.amin(0))
    torch.testing.assert_close(ibp.upper, values.amax(0))
    ssip = rules.ssip(images, *parts, *box)
    assert bool((ssip.slack == 0).all())
    torch.testing.assert_close(torch.einsum("nd,bd...->nb...", unit, ssip.coef) + ssip.const, values)
    for a, b in zip(concretise(ssip), ibp, strict=True):
        torch.testing.assert_close(a, b)
    r = draws(6)
    form = Form(r(len(images), 4, *images.shape[1:]), r(len(images), 4))
    g = rules.rsip(form, images, *parts)
    along = torch.einsum("bkp,nbp->nbk", form.coef.flatten(2), values.flatten(2)) + form.const
    corners = center + radius * unit.unsqueeze(1)
    torch.testing.assert_close(torch.einsum("bkd,nbd->nbk", g.coef, corners) + g.const, along)
    torch.testing.assert_close(upper_over_box(g, *box), along.amax(0))


def own_boxes(dimensions: int, batch: int) -> Box:
    """A box for each sample, about another middle and of other widths."""
    r = draws(8)
    return Box(r(batch, dimensions), r(batch, dimensions).abs())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("multiplicative", "additive"), PARTS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_field_is_definition_4(shape: tuple[int, ...], multiplicative: bool, additive: bool, order: int):
    spec = BiasField(order, 0.3, multiplicative, additive)
    transform = spec.build(shape)
    images, t = draws(1)(2, *shape), draws(2)(2, transform.dimensions)
    got = transform.rules.apply(t, images, transform.multiplicative, transform.additive)
    torch.testing.assert_close(got, naive_batch(images, t, spec))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("clip", [None, "clamp", "relu"])
def test_theorem_1(shape: tuple[int, ...], clip: str | None):
    """The perturbed graph is the model on the transformed, clipped image."""
    traced = canonical(shape)
    model, images = traced.model, torch.rand(3, *shape, dtype=torch.float64)
    spec = BiasField(2, 0.9, True, True)
    net = BoundedModel(traced, Problem(spec, clip), "ibp")
    coefficients = net.center + 3 * net.radius * (torch.rand(3, len(net.center)) * 2 - 1).double()
    transformed = naive_batch(images, coefficients, spec)
    assert bool((transformed < 0).any()) or bool((transformed > 1).any())
    expected = model(transformed if clip is None else transformed.clamp(0, 1))
    torch.testing.assert_close(net.perturbed(coefficients, images), expected)
    torch.testing.assert_close(net(coefficients, images), expected)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 3)])
def test_theorem_2(shape: tuple[int, ...]):
    """IBP sees brightness of ± eps as white noise of ± eps."""
    traced, images = canonical(shape), torch.rand(2, *shape, dtype=torch.float64)
    brightness = BoundedModel(traced, Problem(BiasField(0, 0.2, False, True)), "ibp")
    noise = BoundedModel(traced, Problem(WhiteNoise(0.2)), "ibp")
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(brightness.margins(images, labels), noise.margins(images, labels))
    for node, kinds in brightness.probe(images).items():
        for a, b in zip(kinds["ibp"], noise.probe(images)[node]["ibp"], strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("method", ["ibp", "ssip", "rsip-ibp", "rsip-ssip", "rsip"])
@pytest.mark.parametrize("clip", [None, "clamp", "relu"])
@pytest.mark.parametrize("perturbation", [BiasField(1, 0.3, True, True), WhiteNoise(0.2)], ids=["field", "noise"])
def test_at_eps_0_every_bound_is_the_network(method: str, clip: str | None, perturbation: Any):
    traced, images = canonical((2, 3)), torch.rand(3, 2, 3, dtype=torch.float64)
    images[0, 0, 0], images[1, 1, 2] = 0.0, 1.0  # pixels on the clip's kinks
    net = BoundedModel(traced, Problem(perturbation, clip), method)
    net.set_eps(0)
    spec = torch.eye(3).double().expand(3, -1, -1)
    lower, upper = net.bounds(images, spec)
    torch.testing.assert_close(lower, traced.model(images))
    torch.testing.assert_close(upper, traced.model(images))


@pytest.mark.filterwarnings("ignore:the .* box leaves out the unperturbed image")
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize(("multiplicative", "additive"), PARTS)
def test_bounds_of_the_field_are_exact(shape: tuple[int, ...], multiplicative: bool, additive: bool):
    """The pixels' intervals, the symbolic image and the maximum of rows, against every corner of the box; the same over
    a box for each sample."""
    images, r = draws(3)(2, *shape), draws(4)
    size = (1 + 1) ** max(1, len(shape) - 1)
    pairs = [sorted(pair) for pair in r(size, 2).tolist()], [sorted(pair) for pair in r(size, 2).tolist()]
    spec = BiasField(1, 0.5, multiplicative and pairs[0], additive and pairs[1])
    transform = spec.build(shape)
    parts = transform.multiplicative, transform.additive
    for box in (Box(transform.center.unsqueeze(0), transform.radius.unsqueeze(0)), own_boxes(transform.dimensions, 2)):
        assert_exact(transform.rules, images, parts, box)


def test_bounds_are_exact_whatever_the_signs_of_basis_and_image():
    """The monomials are never negative; another basis may be, and so may an image."""
    r = draws(5)
    bases, images = (r(2, 1, 3), r(2, 1, 3)), r(2, 2, 3)
    for box in (Box(r(1, 4), r(1, 4).abs()), own_boxes(4, 2)):
        assert_exact(FieldTransform.rules, images, bases, box)


@pytest.mark.parametrize("shape", [(3,), (1, 4), (2, 1, 2)])
def test_bounds_of_white_noise_are_exact(shape: tuple[int, ...]):
    images = draws(3)(2, *shape)
    transform = WhiteNoise(0.3).build(shape)
    values = torch.stack([images + corner.reshape(shape) for corner in box_corners(transform)])
    noisy = transform.rules.apply(box_corners(transform)[:2], images)
    torch.testing.assert_close(noisy, torch.stack([values[0, 0], values[1, 1]]))
    for box in (Box(transform.center.unsqueeze(0), transform.radius.unsqueeze(0)), own_boxes(transform.dimensions, 2)):
        assert_exact(transform.rules, images, (), box)


def test_the_default_box_is_the_papers():
    """Design: the constant in [1 - eps, 1 + eps] or ± eps, every other coefficient in ± eps/15, whatever the order."""
    for order in (0, 1, 3):
        transform = BiasField(order, 0.3, True, True).build((1, 4, 4))
        terms = (order + 1) ** 2
        assert transform.dimensions == 2 * terms
        torch.testing.assert_close(transform.center, torch.tensor([1.0] + [0.0] * (2 * terms - 1)).double())
        radius = torch.tensor([0.3] + [0.3 / 15] * (terms - 1)).double()
        torch.testing.assert_close(transform.radius, radius.repeat(2))


def test_monomials_are_row_power_major_from_one_over_n_to_one():
    basis = monomials(1, (2, 4))
    assert basis.shape == (4, 2, 4)
    i, j = torch.tensor([0.5, 1.0]).double(), torch.tensor([0.25, 0.5, 0.75, 1.0]).double()
    torch.testing.assert_close(basis[0], torch.ones(2, 4).double())
    torch.testing.assert_close(basis[1], j.expand(2, 4))
    torch.testing.assert_close(basis[2], i.unsqueeze(1).expand(2, 4))
    torch.testing.assert_close(basis[3], i.unsqueeze(1) * j)


@pytest.mark.filterwarnings("ignore:the additive box leaves out the unperturbed image")
def test_an_explicit_box_holds_at_its_eps_and_shrinks_about_the_identity():
    box = [(0.8, 1.6), (-0.1, 0.3)]
    transform = BiasField(1, 0.4, box, [(-0.2, 0.0), (0.1, 0.1)]).build((2, 3))
    full = torch.tensor([*box, (-0.2, 0.0), (0.1, 0.1)]).double()
    ends = torch.stack([transform.center - transform.radius, transform.center + transform.radius], 1)
    torch.testing.assert_close(ends, full)
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0]).double()
    for eps in (0.2, 0.1, 0.0):
        transform.set_eps(eps)
        share = eps / 0.4
        lower, upper = (identity + share * (full[:, side] - identity) for side in (0, 1))
        torch.testing.assert_close(transform.center - transform.radius, lower)
        torch.testing.assert_close(transform.center + transform.radius, upper)
    assert torch.equal(transform.center, identity)


@pytest.mark.parametrize("perturbation", [BiasField(1, 0.4, True, True), WhiteNoise(0.4)])
def test_the_ramp_moves_the_box_in_place(perturbation: Any):
    transform = perturbation.build((1, 2, 2))
    center, radius = transform.center, transform.radius
    start = radius.clone()
    transform.set_eps(0.1)
    assert transform.center is center
    assert transform.radius is radius
    torch.testing.assert_close(radius, start / 4)
    transform.set_eps(0.4)
    torch.testing.assert_close(radius, start)
    for wrong in (-0.1, 1.5, float("nan"), float("inf"), "much", None):
        with pytest.raises(UsageError, match="eps"):
            transform.set_eps(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0.1), "order"),
        ((1.5, 0.1), "order"),
        ((True, 0.1), "order"),
        ((1, -0.1), "at least 0"),
        ((1, 40), "40 levels are 40/255"),
        ((1, float("nan")), "finite"),
        ((1, "x"), "must be a number"),
        ((1, 0.1, False, False), "a multiplicative or an additive"),
        ((1, 0.0, [(1, 1)] * 4), "needs the eps"),
    ],
)
def test_a_field_out_of_range_is_refused(arguments: tuple[Any, ...], message: str):
    with pytest.raises(UsageError, match=message):
        BiasField(*arguments)


@pytest.mark.parametrize(
    ("box", "message"),
    [([(0, 1)] * 3, "needs 4"), ([(1, 0)] * 4, "lower <= upper"), ([(0, float("inf"))] * 4, "finite")],
)
def test_a_box_that_does_not_fit_is_refused(box: Any, message: str):
    with pytest.raises(UsageError, match=message):
        BiasField(1, 0.1, box).build((1, 2, 2))


def test_images_of_too_many_axes_are_refused():
    with pytest.raises(UsageError, match="one to three spatial axes"):
        BiasField(1, 0.1).build((1, 2, 2, 2, 2))


def test_white_noise_beyond_the_limit_has_rsip_ibp_and_full_rsip_only():
    """33 x 33 pixels: SSIP is a clear error, RSIP-IBP bounds it, full RSIP starts from IBP."""
    shape = (1, 33, 33)
    images = torch.rand(2, *shape, dtype=torch.float64)
    model = nn.Sequential(nn.AvgPool2d(11), nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    for method in ("ssip", "rsip-ssip"):
        with pytest.raises(UsageError, match="1089 perturbed pixels and stops at 1024; use rsip-ibp"):
            robnet_fx.bound(model, WhiteNoise(0.1), method, example=images[:2])
    labels = torch.tensor([0, 1])
    traced = robnet_fx.trace(model, images)
    for method in ("ibp", "rsip-ibp", "rsip"):
        net = BoundedModel(traced, Problem(WhiteNoise(0.1)), method)
        margins = net.margins(images, labels)
        noise = net.radius * torch.randint(-1, 2, (20, len(net.radius))).double()
        for image, label, bound in zip(images, labels.tolist(), margins, strict=True):
            logits = net(noise, image.expand(20, *shape))
            gap = logits - logits[:, label : label + 1]
            gap[:, label] = -torch.inf
            assert bool((gap <= bound + 1e-9).all())


def test_white_noise_within_the_limit_has_every_method():
    transform = WhiteNoise(0.1).build((1, 32, 32))
    assert isinstance(transform, NoiseTransform)
    assert transform.dimensions == transform.max_ssip_dimensions == 1024
    assert FieldTransform(BiasField(3, 0.1), (1, 32, 32)).max_ssip_dimensions is None


def test_a_box_without_the_identity_earns_a_warning():
    with pytest.warns(
        UserWarning, match=r"multiplicative box leaves out .* coefficient 0 runs from 0 to 0\.1 without 1"
    ):
        BiasField(3, 0.1, [(0.0, 0.1)] * 16)
    with pytest.warns(UserWarning, match=r"image: coefficient 0 runs from 0\.5 to 0\.6 without 1\n"):
        BiasField(0, 0.1, [(0.5, 0.6)])
    with pytest.warns(UserWarning, match=r"coefficient 2 runs from 0\.5 to 0\.6 without 0; \.\.\.\n"):
        BiasField(1, 0.1, [(0.5, 0.6)] * 4)
    BiasField(0, 0.1, [(0.6, 0.5)])  # no box: it is refused when it is built, and nothing is said of it before
    with pytest.warns(UserWarning, match="additive box leaves out .* coefficient 1 "):
        BiasField(0, 0.1, True, torch.tensor([[-0.1, 0.1], [0.2, 0.3]]))
    box = np.array([[0.9, 1.0], [0.0, 0.1]])
    field = BiasField(1, 0.1, box)  # the identity may lie on the edge
    box[:] = 5
    assert field.multiplicative == ((0.9, 1.0), (0.0, 0.1))


@pytest.mark.parametrize("part", ["multiplicative", "additive"])
@pytest.mark.parametrize("given", [(-0.5, 0.5), 0.5, [0.5] * 16, None, "0.5", [(0, 1, 2)] * 16, torch.rand(16)])
def test_a_box_in_the_form_of_another_tool_is_refused_by_name(part: str, given: Any):
    with pytest.raises(
        UsageError, match=f"{part}=.*is not a box(.|\n)*MONAI(.|\n)*TorchIO(.|\n)*one \\(lower, upper\\) pair"
    ):
        BiasField(3, 0.1, **{part: given})
