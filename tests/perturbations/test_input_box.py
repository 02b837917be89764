"""A box on the inputs: it holds every input between its ends whatever rounding does, and its bounds are exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from robnet_fx import InputBox, Problem, UsageError, bound
from robnet_fx.algebra.domains import Form
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.input_box import around
from robnet_fx.testing import all_corners, check_sound
from tests.bounds.test_bounds import canonical, conv_net, dense_net
from tests.soundness import draws


def ends(*shape: int, seed: int = 0, size: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    r = draws(seed)
    lower = size * r(*shape)
    return lower, lower + r(*shape).abs()


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 400.0, 1e20])
@pytest.mark.parametrize("width", [0.0, 1e-17, 1e-9, 1e-3, 1.0])
def test_no_input_of_the_box_is_left_out(size: float, width: float):
    """In exact arithmetic, and in float64 as bounds compute the ends; float32 has the same two numbers."""
    lower = size * draws(1)(200)
    upper = lower + size * width * draws(2)(200).abs()
    middle, radius = around(lower, upper)
    for low, high, m, r in zip(*(x.tolist() for x in (lower, upper, middle, radius)), strict=True):
        assert Fraction(m) - Fraction(r) <= Fraction(low) and Fraction(high) <= Fraction(m) + Fraction(r)
        assert m - r <= low and high <= m + r
        assert (r == 0) == (low == high)
    free = radius > 0
    for value in (middle[free], radius):
        assert torch.equal(value, value.float().double())
    assert torch.equal(middle[~free], lower[~free])
    assert bool((radius <= (upper - lower) / 2 * (1 + 1e-6) + 1e-7 * lower.abs() + 1e-44).all())


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (1, 4, 1), (2, 3)])
def test_bounds_are_exact(shape: tuple[int, ...]):
    """The intervals, the symbolic inputs and the pulled-back rows, against every corner of boxes with fixed inputs."""
    lower, upper = (x.flatten() for x in ends(*shape))
    lower[1] = upper[1]
    box = InputBox(lower, upper)
    transform, image = box.build(shape), box.midpoint.reshape(1, *shape)
    assert transform.free.tolist() == [i for i in range(len(lower)) if i != 1]
    rules, free = transform.rules, transform.free
    center, radius = transform.center.unsqueeze(0), transform.radius.unsqueeze(0)
    corners = all_corners(transform.dimensions)
    values = rules.apply(center + radius * corners, image.expand(len(corners), *shape), free)
    assert bool((values.flatten(1).amin(0) <= lower).all()) and bool((values.flatten(1).amax(0) >= upper).all())
    torch.testing.assert_close(values.flatten(1).amin(0), lower, atol=1e-5, rtol=1e-6)

    interval = rules.ibp(image, free, center, radius)
    torch.testing.assert_close(interval.lower, values.amin(0, keepdim=True))
    torch.testing.assert_close(interval.upper, values.amax(0, keepdim=True))
    symbolic = rules.ssip(image, free, center, radius)
    linear = (corners @ symbolic.coef.flatten(2)[0]).reshape(-1, *shape) + symbolic.const
    torch.testing.assert_close(linear, values)
    assert not bool(symbolic.slack.any())

    rows = draws(4)(1, 3, *shape)
    pulled = rules.rsip(Form(rows, torch.ones(1, 3, dtype=torch.float64)), image, free)
    expected = torch.einsum("ks,ns->nk", rows[0].flatten(1), values.flatten(1)) + 1
    points = center + radius * corners
    torch.testing.assert_close(points @ pulled.coef[0].T + pulled.const, expected)


@pytest.mark.parametrize(("make", "shape"), [(dense_net, (1, 5)), (conv_net, (1, 4, 4))])
def test_no_bound_is_left(make, shape: tuple[int, ...]):
    lower, upper = (x.flatten() for x in ends(*shape, seed=3))
    lower[::3] = upper[::3]
    box = InputBox(lower, upper)
    check_sound(canonical(make), box, box.midpoint.reshape(1, *shape))


def test_a_box_of_each_sample():
    lower, upper = ends(2, 5, seed=5)
    middle, radius = around(lower, upper)
    net = BoundedModel(canonical(dense_net), Problem(InputBox(lower.amin(0), upper.amax(0)), None))
    images, labels = middle.reshape(2, 1, 5), torch.tensor([0, 1])
    together = net.margins(images, labels, (torch.zeros_like(radius), radius))
    for i in range(2):
        alone = BoundedModel(canonical(dense_net), Problem(InputBox(lower[i], upper[i]), None))
        torch.testing.assert_close(alone.margins(images[i : i + 1], labels[i : i + 1]), together[i : i + 1])


def test_eps_scales_the_box_about_its_midpoint():
    transform = InputBox([1.0, -2.0, 4.0], [2.0, -2.0, 8.0]).build((3,))
    full = transform.radius.clone()
    transform.set_eps(0.5)
    torch.testing.assert_close(transform.radius, full / 2)
    transform.set_eps(0)
    assert not bool(transform.radius.any()) and not bool(transform.center.any())


def test_a_point_keeps_one_coefficient_of_no_size():
    net = BoundedModel(canonical(dense_net), Problem(InputBox([0.5] * 5, [0.5] * 5), None))
    assert net.radius.tolist() == [0]
    image = torch.full((1, 1, 5), 0.5, dtype=torch.float64)
    lower, upper = net.bounds(image, torch.eye(3, dtype=torch.float64).unsqueeze(0))
    torch.testing.assert_close(lower, net.logits(image))
    torch.testing.assert_close(upper, net.logits(image))


def test_many_free_inputs_have_no_ssip():
    shape, model = (1, 33, 33), nn.Sequential(nn.Flatten(), nn.Linear(33 * 33, 2))
    wide = InputBox([-1.0] * 1089, [1.0] * 1089)
    with pytest.raises(UsageError, match="1089"):
        bound(model, wide, "rsip-ssip", example=torch.rand(1, *shape))
    few = InputBox([-1.0] * 1089, [1.0] * 1024 + [-1.0] * 65)
    assert few.build(shape).fits_ssip and not wide.build(shape).fits_ssip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0], [1.0, 2.0]), "a lower and an upper end"),
        (([], []), "a lower and an upper end"),
        (([0.0, 2.0], [1.0, 1.0]), "input 1 has no interval between 2 and 1"),
        (([0.0], [float("nan")]), "input 0 has no interval"),
        (([0.0], [float("inf")]), "input 0 has no interval"),
        (([0.0], [1.0], 2), "eps must be at most 1"),
    ],
)
def test_what_is_no_box_is_refused(arguments, message: str):
    with pytest.raises(UsageError, match=message):
        InputBox(*arguments)


def test_a_box_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"the box has 1 inputs, and the network takes \[1, 5\]"):
        InputBox([0.0], [1.0]).build((1, 5))
