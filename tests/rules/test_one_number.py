"""Values of one number a sample, `[B]`: no axis besides the batch, in any rule and by any method."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from robnet_fx import BiasField
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.algebra.ops import product
from robnet_fx.inspect import survey
from robnet_fx.rules import rule_for
from robnet_fx.testing import check_sound
from tests.rules.around import Function, traced
from tests.rules.cases import CURVED, ELEMENTWISE, STEPS, Case, name_of
from tests.rules.enclosures import admit
from tests.soundness import Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(1, 0.2, additive=True)
ONE_EACH = [case for case in (*ELEMENTWISE, *CURVED, *STEPS) if case.name != "prelu-kernel"]  # its weight has two axes
LINEAR = [
    Case("add", aten.add.Tensor, ((), ()), lambda r, x, y: (x, y), {"alpha": -2.0}),
    Case("sub", aten.sub.Tensor, ((),), lambda r, x: (r(), x)),
    Case("mul", aten.mul.Tensor, ((),), lambda r, x: (x, r())),
    Case("div", aten.div.Tensor, ((),), lambda r, x: (x, -1.5)),
    Case("neg", aten.neg.default, ((),)),
    Case("where", aten.where.self, ((), ()), lambda r, x, y: (torch.tensor(True), x, y)),
    Case("reshape", aten.reshape.default, ((),), lambda r, x: (x, [-1, 1, 1])),
]


@pytest.mark.parametrize("case", [*ONE_EACH, *LINEAR], ids=name_of)
def test_a_rule_is_that_of_an_axis_of_one(case: Case):
    """`[B]` and `[B, 1]` have the same bounds, number by number, by IBP, SSIP and RSIP."""
    r, batch = draws(3), 40
    pairs = [admit(case, torch.stack([r(batch), r(batch)], 1)) for _ in case.shapes]
    pres = [Interval(*pair.unbind(1)) for pair in pairs]
    xs = [Symbolic(r(batch, 3), r(batch), r(batch).abs()) for _ in case.shapes]
    form = Form(r(batch, 4), r(batch, 4))
    rule = rule_for(case.target)

    def bounds(tail: tuple[int, ...]) -> list[torch.Tensor]:
        def shaped(value: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
            return [part.reshape(*part.shape, *tail) for part in value]

        known = [Interval(*shaped(pre)) for pre in pres]
        extra = {} if rule.affine else {"pre": known[0]}

        def call(function, *inputs, first=(), **more):
            args, kwargs = case.call(draws(5), *inputs)
            return function(*first, *args, **kwargs, **more)

        above = Form(form.coef.reshape(*form.coef.shape, *tail), form.const)
        if case.name == "reshape":
            above = Form(form.coef.reshape(*form.coef.shape, 1, 1), form.const)
        pulled = call(rule.rsip, *(InputShape(tail) for _ in xs), first=(above,), **extra)
        made = [*call(rule.ibp, *known), *call(rule.ssip, *(Symbolic(*shaped(x)) for x in xs), **extra)]
        made += [part for each in (pulled if len(xs) > 1 else [pulled]) for part in each]
        return [part.flatten() for part in made]

    for got, expected in zip(bounds(()), bounds((1,)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def network(*steps: tuple[object, ...]) -> fx.GraphModule:
    """One number, through operations and, twice, times itself a little later."""
    r, drawing = draws(1), Drawing(2, 3)
    value = drawing(aten.linear.default, drawing.flat(drawing.x), r(1, 6), r(1))
    value = drawing(aten.reshape.default, value, [-1])
    for target, *args in steps:
        value = drawing(product, drawing(target, value, *args), drawing(aten.add.Tensor, value, 0.5))
    return drawing.logits(drawing(aten.reshape.default, value, [-1, 1]), r)


@pytest.mark.parametrize(
    "steps",
    [
        [(aten.relu.default,), (aten.sigmoid.default,)],
        [(aten.exp.default,), (aten.leaky_relu.default, 0.2)],
        [(aten.clamp.default, -0.3, 0.4), (aten.abs.default,), (aten.tanh.default,)],
    ],
)
def test_no_coefficient_leaves_a_bound(steps):
    check_sound(network(*steps), FIELD, torch.rand(2, 2, 3, dtype=torch.float64), climbs=1)


FUNCTIONS: dict[str, Function] = {
    "z-score": lambda m, x: (
        (x - x.flatten(1).mean(1).view(-1, 1, 1, 1)) / (x.flatten(1).std(1) + 0.1).view(-1, 1, 1, 1)
    ),
    "norm": lambda m, x: x / x.flatten(1).norm(dim=1).clamp(min=0.1)[:, None, None, None],
    "extremes": lambda m, x: x.amax((1, 2, 3)).sigmoid()[:, None] * x.flatten(1).min(1)[0].exp()[:, None],
    "gate": lambda m, x: (
        x * torch.prelu(x.mean((1, 2, 3)), m.token[0, 0, :1]).view(-1, 1, 1, 1)
        + x.flatten(1).logsumexp(1)[:, None, None, None]
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_reductions_to_one_number(name: str):
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    nets = check_sound(traced(FUNCTIONS[name]), BiasField(1, 0.02), images, climbs=1, methods=("rsip-ssip", "rsip"))
    if name == "norm":
        assert survey(nets["rsip-ssip"], images).nodes
