"""Lines of RSIP that are tight where the symbolic margin is highest: they hold, each row has its own, and they pay."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.algebra import corners, domains, mixture
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.bounds import rows
from robnet_fx.bounds.emit import Emitter
from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.plan import plan
from robnet_fx.perturbations.base import Box
from robnet_fx.problem import Problem
from robnet_fx.rules import rule_for
from tests.bounds.test_boxes import around
from tests.bounds.test_branch import assert_holds, halves, inside
from tests.soundness import draws

RELU = rule_for(torch.ops.aten.relu.default)
IMAGES = torch.rand(6, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(6) % 4
KEPT: tuple[Symbols, ...] = (7, "all")


class Residual(nn.Module):
    """Blocks whose paths share errors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 4)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        for inner, outer in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = x + outer(torch.relu(inner(torch.relu(x))))
        return self.head(torch.relu(x))


@cache
def traced() -> fx.GraphModule:
    torch.manual_seed(5)
    return robnet_fx.trace(Residual().double(), IMAGES[:2])


def compiled(kept: Symbols, method: str = "rsip-ssip") -> BoundedModel:
    return BoundedModel(traced(), Problem(BiasField(1, 0.3, True, True)), method, kept)


# --- the rule -------------------------------------------------------------------------------------------------------


def asked(sign: float = 0.0) -> tuple[Form, Interval, Tensor]:
    """Rows of any sign, or all of one, over units that are stable, unstable, or end at 0, and a point in each."""
    r = draws(1)
    coef = r(2, 3, 40)
    middle, half = r(2, 40), r(2, 40).abs()
    pre = Interval(middle - half, middle + half)
    pre.lower[:, 0], pre.upper[:, 1] = 0, 0
    pre = Interval(torch.minimum(*pre), torch.maximum(*pre))
    point = pre.lower.unsqueeze(1) + (pre.upper - pre.lower).unsqueeze(1) * torch.rand(2, 3, 40).double()
    return Form(sign * coef.abs() if sign else coef, r(2, 3)), pre, point


def test_lines_hold_wherever_the_point_lies():
    form, pre, _ = asked()
    for point in (draws(2)(2, 3, 40), 100 * draws(3)(2, 3, 40), torch.zeros(2, 3, 40).double()):
        got = RELU.rsip(form, InputShape((40,)), pre=pre, at=point)
        for t in torch.linspace(0, 1, 21).double():
            x = pre.lower + (pre.upper - pre.lower) * t
            x = torch.where(draws(int(100 * t))(2, 40) > 0, x, pre.upper + pre.lower - x)
            assert bool((domains.contract(form.coef, x.relu()) + form.const <= along(got, x) + 1e-12).all())


def along(form: Form, x: Tensor) -> Tensor:
    return domains.contract(form.coef, x) + form.const


def test_lower_lines_are_tight_at_the_point_of_each_row():
    form, pre, point = asked(-1.0)
    got = RELU.rsip(form, InputShape((40,)), pre=pre, at=point)
    torch.testing.assert_close((got.coef * point).sum(2) + got.const, (form.coef * point.relu()).sum(2) + form.const)


def test_upper_lines_are_the_chord():
    form, pre, point = asked(1.0)
    got, usual = (RELU.rsip(form, InputShape((40,)), pre=pre, at=at) for at in (point, None))
    torch.testing.assert_close(got, usual)


def test_rows_that_all_samples_share_are_bounded_by_the_lines_of_each():
    form, pre, point = asked()
    one = Form(form.coef[:1], form.const[:1])
    both = Form(one.coef.expand(2, -1, -1), one.const.expand(2, -1))
    shared, apart = (RELU.rsip(each, InputShape((40,)), pre=pre, at=point) for each in (one, both))
    assert shared.coef.shape == (2, 3, 40)
    torch.testing.assert_close(shared, apart)


# --- the corner -----------------------------------------------------------------------------------------------------


def test_a_course_is_the_value_without_its_errors_and_owns_its_memory():
    r = draws(4)
    x = Symbolic(r(2, 7, 3, 4), r(2, 3, 4), r(2, 3, 4).abs())
    course = corners.course(x, 5)
    assert course.coef.shape == (2, 5, 3, 4) and course.coef.untyped_storage().nbytes() == course.coef.nbytes
    points = r(2, 6, 5).sign()
    expected = torch.einsum("bkd,bdst->bkst", points, x.coef[:, :5]) + x.const.unsqueeze(1)
    torch.testing.assert_close(corners.at(course, points), expected)


def test_the_corner_is_where_a_value_is_highest():
    r = draws(5)
    x = Symbolic(r(2, 7, 3), r(2, 3), r(2, 3).abs())
    best = corners.corner(x, 5)
    there = (best.transpose(1, 2) * x.coef[:, :5]).sum(1)
    torch.testing.assert_close(there, x.coef[:, :5].abs().sum(1))
    torch.testing.assert_close(corners.error(x, 5), x.coef[:, 5:].abs().sum(1) + x.slack)


# --- margins --------------------------------------------------------------------------------------------------------


def each_bound(net: BoundedModel) -> dict[str, Any]:
    """RSIP's forms of the margins by its usual lines and by lines tight at the corner, and the symbolic bounds."""
    of = plan(net.perturbed, net.method, net.symbols)
    emit = Emitter(of)
    (spec,) = emit.inputs("spec")
    emit.forward()
    usual = emit.over_coefficients(emit.pulled(of.output, spec, set()))
    own = emit.symbolic([(of.output, emit.call(domains.form_of, "own", spec))], "own")
    corner = emit.call(corners.corner, "corner", own, of.transform.dimensions)
    leaning = emit.over_coefficients(emit.pulled(of.output, spec, set(), corner))
    last = [emit.call(mixture.mixed, "first", usual, leaning, *emit.box)]
    for _ in range(2):
        highest = emit.call(mixture.corner, "highest", last[-1])
        further = emit.over_coefficients(emit.pulled(of.output, spec, set(), highest))
        last.append(emit.call(mixture.mixed, "last", last[-1], further, *emit.box))
    graph = emit.finished("Each", (usual, leaning, last[-1], emit.call(domains.upper_by_symbolic, "own", own)))
    rows_of = margin_spec(LABELS, other_classes(LABELS, net.classes), net.classes).double()
    return dict(zip(("usual", "leaning", "last", "own"), graph(IMAGES, rows_of), strict=True))


def over(net: BoundedModel, form: Form) -> Tensor:
    return domains.upper_over_box(form, net.center.unsqueeze(0), net.radius.unsqueeze(0))


@pytest.mark.parametrize("method", ["rsip-ssip", "rsip"])
@pytest.mark.parametrize("kept", KEPT)
def test_a_margin_is_the_best_mixture_or_the_symbolic_one(kept: Symbols, method: str):
    net = compiled(kept, method)
    found = each_bound(net)
    box = net.center.unsqueeze(0), net.radius.unsqueeze(0)
    form = found["last"] if method == "rsip" else mixture.mixed(found["usual"], found["leaning"], *box)
    margins = net.margins(IMAGES, LABELS).gather(1, other_classes(LABELS, net.classes))
    torch.testing.assert_close(margins, torch.minimum(over(net, form), found["own"]))
    each = torch.stack([over(net, found["usual"]), over(net, found["leaning"]), found["own"]])
    assert len(each.argmin(0).unique()) > 1
    assert bool((margins < each.amin(0) - 1e-9).any())  # a mixture is more than a choice


@torch.no_grad()
def test_lines_tight_at_the_corner_pay():
    """With all errors kept: what RSIP's usual lines lose to a sampled maximum shrinks by a tenth or more."""
    net = compiled("all")
    found = each_bound(net)
    t = draws(3)(400, len(net.center)).sign()
    logits = torch.stack([net(net.center + net.radius * corner.expand(6, -1), IMAGES) for corner in t])
    others = other_classes(LABELS, net.classes)
    margins = logits.gather(2, others.expand(400, -1, -1)) - logits.gather(2, LABELS.expand(400, -1).unsqueeze(2))
    seen = margins.amax(0)
    best = torch.minimum(over(net, found["usual"]), found["own"])
    assert float((torch.minimum(best, over(net, found["leaning"])) - seen).mean()) < 0.9 * float((best - seen).mean())


def test_a_row_does_not_depend_on_the_others():
    net = compiled("all")
    spec = draws(6)(1, 4, 4).expand(6, -1, -1)
    together = net.bounds(IMAGES, spec)
    for k in range(4):
        alone = net.bounds(IMAGES, spec[:, k : k + 1])
        for side, of_all in zip(alone, together, strict=True):
            torch.testing.assert_close(side, of_all[:, k : k + 1])


@pytest.mark.parametrize("method", ["rsip-ssip", "rsip"])
@pytest.mark.parametrize("kept", KEPT)
def test_boxes_that_are_split_are_bounded_and_their_forms_hold(kept: Symbols, method: str):
    net = compiled(kept, method)
    box = around(net, 6)
    parent = net.branch(IMAGES, LABELS, box)
    assert_holds(net, IMAGES, LABELS, box, parent)
    for axis in range(2):
        box = halves(box, axis)[axis]
        child = net.branch(IMAGES, LABELS, box, parent.pre)
        assert_holds(net, IMAGES, LABELS, box, child)
        assert inside(child.pre, parent.pre)
        parent = child
    default = net.branch(IMAGES, LABELS, Box(net.center[None], net.radius[None]))
    assert torch.equal(default.upper, net.margins(IMAGES, LABELS).gather(1, other_classes(LABELS, 4)))


def test_gradients_flow():
    net = compiled("all")
    over = torch.autograd.grad(net.margins(IMAGES, LABELS).clamp(min=-9).sum(), list(net.parameters()))
    assert all(bool(part.isfinite().all()) for part in over) and any(bool((part != 0).any()) for part in over)


# --- rows of full RSIP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, *KEPT])
def test_values_that_are_exact_already_get_no_rows(kept: Symbols, monkeypatch: pytest.MonkeyPatch):
    """Without a clip nothing is relaxed before the first value; behind it errors are everywhere."""
    asked_for: list[int] = []
    of = rows.Rows.rows

    def counted(self, units, like):
        asked_for.append(len(units))
        return of(self, units, like)

    monkeypatch.setattr(rows.Rows, "rows", counted)
    net = BoundedModel(traced(), Problem(BiasField(1, 0.3, True, True), clip=None), "rsip", kept)
    table = net.intermediate(IMAGES)
    assert len(asked_for) == len(table) - 1
    first = next(iter(table))
    plain = BoundedModel(traced(), Problem(BiasField(1, 0.3, True, True), clip=None), "rsip-ssip")
    assert all(map(torch.equal, table[first], plain.intermediate(IMAGES)[first]))
