"""Perturbations with a tail: gamma, and a field as MONAI has it, each written as a user would write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import robnet_fx
from robnet_fx import BiasField, UnsupportedError, UsageError
from robnet_fx.algebra.domains import Form, Interval, Symbolic, contract
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations import bias_field
from robnet_fx.perturbations.base import Box, Transform, TransformRules, check_eps
from robnet_fx.perturbations.bias_field import monomials
from robnet_fx.problem import Problem
from robnet_fx.testing import check_sound
from tests.bounds.test_bounds import canonical, conv_net, dense_net
from tests.soundness import draws

TINY = 1e-3


# --- gamma: image ** a ----------------------------------------------------------------------------------------------


def log_of(image: Tensor) -> Tensor:
    return image.clamp(min=TINY).log()


def apply(coefficients: Tensor, image: Tensor) -> Tensor:
    return coefficients.reshape(-1, *[1] * (image.dim() - 1)) * log_of(image)


def ibp(image: Tensor, center: Tensor, radius: Tensor) -> Interval:
    middle, reach = apply(center, image), apply(radius, image).abs()
    return Interval(middle - reach, middle + reach)


def ssip(image: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
    const = apply(center, image)
    return Symbolic(apply(radius, image).unsqueeze(1), const, torch.zeros_like(const))


def rsip(form: Form, image: Tensor) -> Form:
    rows = (form.coef * log_of(image).unsqueeze(1)).flatten(2)
    return Form(rows.sum(2, keepdim=True), form.const)


class GammaTransform(Transform):
    rules = TransformRules(apply, ibp, ssip, rsip)

    def __init__(self, eps: float) -> None:
        super().__init__(*self.box_at(eps))

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        return torch.ones(1, dtype=torch.float64), torch.full((1,), eps, dtype=torch.float64)

    def tail(self, value: Tensor) -> Tensor:
        return value.exp()


@dataclass(frozen=True)
class Gamma:
    """`image ** a` with a in [1 - eps, 1 + eps]; black is taken for 0.001."""

    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_eps(self.eps))

    def build(self, shape: tuple[int, ...]) -> GammaTransform:
        return GammaTransform(self.eps)


# --- image * exp(field), the field a polynomial on [-1, 1] ----------------------------------------------------------


def log_apply(coefficients: Tensor, image: Tensor, basis: Tensor, nothing: Tensor) -> Tensor:
    return bias_field.apply(coefficients, log_of(image), nothing, basis)


def log_ibp(image: Tensor, basis: Tensor, nothing: Tensor, center: Tensor, radius: Tensor) -> Interval:
    return bias_field.ibp(log_of(image), nothing, basis, center, radius)


def log_ssip(image: Tensor, basis: Tensor, nothing: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
    return bias_field.ssip(log_of(image), nothing, basis, center, radius)


def log_rsip(form: Form, image: Tensor, basis: Tensor, nothing: Tensor) -> Form:
    return bias_field.rsip(form, log_of(image), nothing, basis)


class ExponentialTransform(Transform):
    part_names = ("basis", "nothing")
    rules = TransformRules(log_apply, log_ibp, log_ssip, log_rsip)
    basis: Tensor

    def __init__(self, eps: float, shape: tuple[int, ...]) -> None:
        basis = 2 * monomials(1, shape[1:]).unsqueeze(1) - 1
        self.terms = len(basis)
        super().__init__(*self.box_at(eps), basis=basis, nothing=basis[:0])

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.terms, dtype=torch.float64), torch.full((self.terms,), eps, dtype=torch.float64)

    def tail(self, value: Tensor) -> Tensor:
        return value.exp()


@dataclass(frozen=True)
class ExponentialField:
    eps: float

    def build(self, shape: tuple[int, ...]) -> ExponentialTransform:
        return ExponentialTransform(self.eps, shape)


# --- tails of several operations, with tensors and constants of their own -------------------------------------------


class WoundTransform(ExponentialTransform):
    """A tail that is reshaped, divides by what depends on the coefficients, and reads a buffer and new constants."""

    def __init__(self, eps: float, shape: tuple[int, ...]) -> None:
        super().__init__(eps, shape)
        self.register_buffer("shift", torch.linspace(0.1, 0.3, shape[-1], dtype=torch.float64))

    def tail(self, value: Tensor) -> Tensor:
        value = value.flatten(1).reshape(value.shape).exp() * torch.tensor([0.5], dtype=value.dtype) + self.shift
        return value / (1 + value)


@dataclass(frozen=True)
class Wound:
    eps: float

    def build(self, shape: tuple[int, ...]) -> WoundTransform:
        return WoundTransform(self.eps, shape)


IMAGES = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
IMAGES[0, 0, 0, 0], IMAGES[1, 0, 1, 1] = 0.0, 1.0


@pytest.mark.parametrize("clip", ["relu", None])
@pytest.mark.parametrize(
    "perturbation", [Gamma(0.4), ExponentialField(0.2), Wound(0.2)], ids=lambda p: type(p).__name__
)
def test_bounds_are_sound_at_every_node(perturbation: Any, clip: str | None):
    nets = check_sound(canonical(conv_net), perturbation, IMAGES, clip=clip, climbs=1)
    assert set(nets) == set(METHODS)
    for net in nets.values():
        assert "field" in net.intermediate(IMAGES)


@pytest.mark.parametrize("method", METHODS)
def test_a_box_for_each_sample_is_sound(method: str):
    box = Box(torch.tensor([[0.8], [1.5]]).double(), torch.tensor([[0.2], [0.4]]).double())
    check_sound(canonical(conv_net), Gamma(0.4), IMAGES, clip="clamp", methods=[method], climbs=1, box=box)


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.backward])
def test_a_gamma_box_is_split(method: str):
    net = BoundedModel(canonical(conv_net), Problem(Gamma(0.6)), method)
    labels = torch.tensor([0, 2])
    parent = net.branch(IMAGES, labels, Box(net.center.unsqueeze(0), net.radius.unsqueeze(0)))
    for side in (-1, 1):
        part = Box((net.center + side * net.radius / 2).unsqueeze(0), net.radius.unsqueeze(0) / 2)
        child = net.branch(IMAGES, labels, part, parent.pre)
        for step in torch.linspace(-1, 1, 20):
            logits = net((part.center + part.radius * step).expand(2, -1), IMAGES)
            gaps = logits - logits.gather(1, labels.unsqueeze(1))
            others = torch.tensor([[1, 2], [0, 1]])
            assert bool((gaps.gather(1, others) <= child.upper + 1e-9).all())


def test_the_perturbed_network_has_the_tail():
    gamma = BoundedModel(canonical(conv_net), Problem(Gamma(0.4)), "ibp")
    a = torch.tensor([[0.7], [1.4]]).double()
    torch.testing.assert_close(gamma(a, IMAGES), gamma.model(IMAGES.clamp(min=TINY) ** a.reshape(-1, 1, 1, 1)))
    names = [node.name for node in gamma.perturbed.graph.nodes]
    assert names[names.index("field") + 1] == "tail_exp" and "tail" not in names
    monai = BoundedModel(canonical(conv_net), Problem(ExponentialField(0.2), "clamp"), "ibp")
    a = draws(2)(2, 4)
    field = torch.einsum("bd,dchw->bchw", a, monai.transform.basis)
    expected = monai.model((IMAGES.clamp(min=TINY) * field.exp()).clamp(0, 1))
    torch.testing.assert_close(monai.perturbed(a, IMAGES), expected)


def test_nodes_of_a_tail_know_their_shape_and_where_they_come_from():
    net = BoundedModel(canonical(conv_net), Problem(Wound(0.2)), "rsip-ssip")
    made = [node for node in net.perturbed.graph.nodes if node.name.startswith("tail")]
    assert len(made) > 5
    assert all(node.meta["layer"] == ("tail", "Wound") for node in made)
    assert all(node.meta["dtype"] == torch.float64 for node in made)
    assert {node.meta["shape"] for node in made if node.op == "call_function"} <= {(1, 4, 4), (1,)}
    labels = torch.tensor([0, 1])
    double = net.margins(IMAGES, labels)
    torch.testing.assert_close(net.float().margins(IMAGES.float(), labels).double(), double, rtol=1e-4, atol=1e-4)


def test_the_ramp_ends_in_the_image():
    net = robnet_fx.bound(dense_net(), Gamma(0.4), "rsip-ssip", example=torch.rand(2, 1, 5, dtype=torch.float64))
    images = torch.rand(2, 1, 5, dtype=torch.float64).clamp(min=TINY)
    net.set_eps(0)
    lower, upper = net.bounds(images, torch.eye(3).double().expand(2, -1, -1))
    torch.testing.assert_close(lower, net.logits(images))
    torch.testing.assert_close(upper, net.logits(images))


def test_a_field_has_no_tail():
    net = BoundedModel(canonical(conv_net), Problem(BiasField(1, 0.1)), "ibp")
    assert not any(node.name.startswith("tail") for node in net.perturbed.graph.nodes)


class Tailed(GammaTransform):
    """Gamma with another tail."""

    def __init__(self, tail: Any) -> None:
        super().__init__(0.1)
        self.given = tail

    def tail(self, value: Tensor) -> Tensor:
        return self.given(value)


class TwoArguments(GammaTransform):
    def tail(self, value: Tensor, image: Tensor) -> Tensor:  # type: ignore[override]
        return value * image


@pytest.mark.parametrize(
    ("tail", "error", "message"),
    [
        (lambda x: x.flatten(1), UsageError, r"the tail of Made must give a value of the shape \[2, 1, 5\]"),
        (lambda x: (x, x), UsageError, "not tuple"),
        (lambda x: x - x.mean(0), UnsupportedError, "the tail of Made cannot be bounded: .*"),
        (lambda x: x if x.sum() > 0 else -x, UnsupportedError, "the tail of Made cannot be bounded"),
        (lambda x: x + torch.rand_like(x), UnsupportedError, "the tail of Made cannot be bounded: .*two calls"),
        (lambda x: torch.lgamma(x), robnet_fx.UnsupportedOpError, "lgamma"),
        (None, UsageError, "the tail of Made takes value, image, .*\n  remedy  what depends on the image belongs into"),
    ],
)
def test_a_tail_that_is_no_function_of_the_entry_alone_is_refused(tail: Any, error: type[Exception], message: str):
    class Made:
        eps = 0.1

        def build(self, shape: tuple[int, ...]) -> Transform:
            return TwoArguments(0.1) if tail is None else Tailed(tail)

    with pytest.raises(error, match=message):
        BoundedModel(canonical(dense_net), Problem(Made()))


def test_contract_and_the_box_agree():
    """`upper_over_box` of gamma's form is its value at the worse end."""
    r = draws(4)
    form, image = Form(r(2, 3, 1, 4, 4), r(2, 3)), IMAGES
    g = rsip(form, image)
    for a in (0.5, 1.5):
        value = apply(torch.full((2, 1), a).double(), image)
        expected = torch.stack([(form.coef[b] * value[b]).flatten(1).sum(1) for b in range(2)]) + form.const
        torch.testing.assert_close(contract(g.coef, torch.full((1, 1), a).double()) + g.const, expected)


class Assigned(GammaTransform):
    """A tail that no graph would have."""

    def __init__(self, tail: Any) -> None:
        super().__init__(0.1)
        self.tail = tail  # type: ignore[method-assign]


@pytest.mark.parametrize("tail", [torch.sigmoid, torch.nn.Sigmoid()], ids=["function", "module"])
def test_a_tail_that_is_an_attribute_is_refused(tail: Any):
    class Gammas(Gamma):
        def build(self, shape: tuple[int, ...]) -> GammaTransform:
            return Assigned(tail)

    with pytest.raises(robnet_fx.UsageError, match="define it as a method"):
        BoundedModel(canonical(conv_net), Problem(Gammas(0.1)), "ibp")
