"""What splitting asks for: margins over boxes that are parts of others, the form behind each, and what is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robnet_fx import BiasField, UsageError
from robnet_fx.algebra.domains import Form, Interval, upper_over_box
from robnet_fx.bounds.evaluate import Branch, other_classes
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Box
from robnet_fx.problem import Problem
from tests.bounds.test_bounds import canonical, conv_net, kinked_net
from tests.bounds.test_boxes import IMAGES, LABELS, PERTURBATIONS, around, compiled, row
from tests.soundness import draws

BACKWARD = [name for name, method in METHODS.items() if method.backward]


def halves(box: Box, axis: int) -> list[Box]:
    """A box of each sample cut in two along one coefficient."""
    step = torch.zeros_like(box.radius)
    step[:, axis] = box.radius[:, axis] / 2
    return [Box(box.center + side * step, box.radius - step) for side in (-1, 1)]


def sampled_margins(net: BoundedModel, images: Tensor, labels: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Margins `[N, B, K]` of fields in each sample's box, half of them corners, and their coefficients `[N, B, D]`."""
    t = draws(3)(40, *box.center.shape).clamp(-1, 1)
    t[::2] = t[::2].sign()
    others = other_classes(labels, net.classes)
    coefficients = box.center + box.radius * t
    margins = []
    for a in coefficients:
        logits = net(a, images)
        margins.append(logits.gather(1, others) - logits.gather(1, labels.unsqueeze(1)))
    return torch.stack(margins).detach(), coefficients


def assert_holds(net: BoundedModel, images: Tensor, labels: Tensor, box: Box, found: Branch) -> None:
    """No field in the box has a margin above its bound, or above the form at that very field."""
    margins, coefficients = sampled_margins(net, images, labels, box)
    assert bool((margins <= found.upper + 1e-9).all())
    highest = upper_over_box(Form(found.form, found.const), *box)
    along = torch.einsum("bkd,nbd->nbk", found.form, coefficients) + found.const
    assert bool((margins <= along + 1e-9).all())
    assert bool((along <= highest + 1e-9).all())
    if net.symbols:
        assert bool((found.upper <= highest).all())
    else:
        assert torch.equal(found.upper, highest)


def inside(inner: dict[str, Interval], outer: dict[str, Interval]) -> bool:
    return all(
        bool(((outer[name].lower <= lower) & (lower <= upper) & (upper <= outer[name].upper)).all())
        for name, (lower, upper) in inner.items()
    )


@pytest.mark.parametrize("method", BACKWARD)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_box_that_is_split_again_and_again_is_bounded(method: str, name: str):
    """A child stands on what its parent knew; its bounds hold, and it never knows less."""
    net = compiled(PERTURBATIONS[name], method)
    box = around(net, 3)
    parent = net.branch(IMAGES, LABELS, box)
    assert_holds(net, IMAGES, LABELS, box, parent)
    for axis in range(3):
        box = halves(box, axis % len(net.center))[axis % 2]
        child = net.branch(IMAGES, LABELS, box, parent.pre)
        assert_holds(net, IMAGES, LABELS, box, child)
        assert child.pre.keys() == parent.pre.keys() == net.intermediate(IMAGES).keys()
        assert inside(child.pre, parent.pre)
        parent = child


@pytest.mark.parametrize("method", BACKWARD)
@pytest.mark.parametrize("make", [conv_net, kinked_net])
def test_every_relaxation_may_stand_on_what_is_known(method: str, make):
    net = BoundedModel(canonical(make), Problem(BiasField(1, 0.2, True, True), "clamp"), method)
    images = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    box = around(net, 3)
    parent = net.branch(images, LABELS, box)
    for part in halves(box, 0):
        child = net.branch(images, LABELS, part, parent.pre)
        assert inside(child.pre, parent.pre)
        assert_holds(net, images, LABELS, part, child)


@pytest.mark.parametrize("method", BACKWARD)
def test_what_is_known_is_used(method: str):
    """The bounds of the parent are far tighter here than the child's own, for they are those of a smaller box."""
    net = compiled(PERTURBATIONS["both"], method)
    box = around(net, 3)
    small = net.branch(IMAGES, LABELS, Box(box.center, box.radius / 100))
    wide = net.branch(IMAGES, LABELS, box, small.pre)
    assert inside(wide.pre, small.pre)
    own = net.branch(IMAGES, LABELS, box)
    assert bool(wide.upper.sum() < own.upper.sum() - 0.01)


@pytest.mark.parametrize("method", BACKWARD)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_over_the_default_box_it_is_margins(method: str, name: str):
    net = compiled(PERTURBATIONS[name], method)
    found = net.branch(IMAGES, LABELS, Box(net.center.unsqueeze(0), net.radius.unsqueeze(0)))
    others = other_classes(LABELS, net.classes)
    assert torch.equal(found.upper, net.margins(IMAGES, LABELS).gather(1, others))
    for node, interval in net.intermediate(IMAGES).items():
        assert all(map(torch.equal, interval, found.pre[node]))
    assert found.form.shape == (3, 2, len(net.center))


@pytest.mark.parametrize("method", BACKWARD)
def test_pairs_of_an_image_and_a_box_do_not_depend_on_each_other(method: str):
    net = compiled(PERTURBATIONS["both"], method)
    box = around(net, 3)
    parent = net.branch(IMAGES, LABELS, box)
    part = halves(box, 1)[1]
    together = net.branch(IMAGES, LABELS, part, parent.pre)
    for i in range(3):
        known = {name: Interval(*(end[i : i + 1] for end in pre)) for name, pre in parent.pre.items()}
        alone = net.branch(IMAGES[i : i + 1], LABELS[i : i + 1], row(part, i), known)
        torch.testing.assert_close(alone.upper[0], together.upper[i])
        torch.testing.assert_close(alone.form[0], together.form[i])
        torch.testing.assert_close(alone.const[0], together.const[i])


def test_rows_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch):
    net = compiled(PERTURBATIONS["both"], "rsip-ssip")
    box = around(net, 3)
    whole = net.branch(IMAGES, LABELS, box)
    monkeypatch.setattr("robnet_fx.bounds.memory.ROWS_BUDGET", 1)
    with torch.no_grad():
        parts = net.branch(IMAGES, LABELS, box)
    torch.testing.assert_close(parts.upper, whole.upper.detach())
    torch.testing.assert_close(parts.form, whole.form.detach())
    torch.testing.assert_close(parts.const, whole.const.detach())


def test_what_does_not_fit_is_refused():
    net = compiled(PERTURBATIONS["both"], "rsip-ssip")
    box = around(net, 3)
    pre = net.branch(IMAGES, LABELS, box).pre
    name = next(iter(pre))
    with pytest.raises(UsageError, match="no relaxation at elsewhere; there is one at field"):
        net.branch(IMAGES, LABELS, box, {"elsewhere": pre[name]})
    with pytest.raises(UsageError, match=rf"pre of {name} must be \[3, "):
        net.branch(IMAGES, LABELS, box, {name: Interval(*(end[:1] for end in pre[name]))})
    with pytest.raises(UsageError, match=r"\[1 or 3, 4\]"):
        net.branch(IMAGES, LABELS, Box(*(part[:2] for part in box)))
    for method in ("ibp", "ssip"):
        with pytest.raises(UsageError, match=f"method {method} has no form"):
            compiled(PERTURBATIONS["both"], method).branch(IMAGES, LABELS, box)
