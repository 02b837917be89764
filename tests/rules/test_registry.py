"""The op table, and what a rule refuses: by graphs drawn by hand, where no front end stands in between."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx

from robnet_fx import BiasField, UnsupportedOpError, rules
from robnet_fx.algebra.domains import Interval
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.rules import Rule, affine, family, leaky, register, registry, relaxers, relu, rule_for, table
from robnet_fx.rules.relaxation import every_unit
from tests.soundness import Draw, Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(0, 0.1)
ORDER = [rule.name for rule in table().values()]  # as imported: a test may put a rule back


def test_a_second_rule_for_one_operation_is_refused():
    rule = rule_for(aten.relu.default)
    with pytest.raises(ValueError, match=r"aten.relu.default already has the rule relu"):
        register(__name__, rule, aten.relu.default)
    assert rule_for(aten.lgamma.default) is None
    copy = table()
    copy.clear()
    assert table()


@pytest.mark.parametrize("kind", ["ibp", "ssip", "rsip"])
def test_every_function_is_where_its_name_says(kind: str):
    for target, rule in table().items():
        function = getattr(rule, kind)
        assert function.__module__ == family(target)
        assert function.__name__ == function.__qualname__
        short = family(target) == f"robnet_fx.rules.{rule.name}"
        assert function.__name__ == (kind if short else f"{rule.name}_{kind}")
        assert getattr(importlib.import_module(function.__module__), function.__name__) is function
    assert rule_for(aten.relu.default).ssip is relu.ssip
    assert rule_for(aten.abs.default).rsip is leaky.abs_rsip


def planted(name: str) -> Rule:
    return affine(name, lambda x: x)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TABLE", "_RELAXERS", "_FAMILY"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_two_functions_of_one_name_are_refused(tables, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"rules.relu.ibp is another function already"):
        register("robnet_fx.rules.relu", planted("relu"), aten.lgamma.default)
    assert rule_for(aten.lgamma.default) is None


def test_a_namespace_that_is_no_module_will_do(tables):
    rule = register("nowhere.planted", planted("planted"), aten.lgamma.default)
    assert rule_for(aten.lgamma.default) is rule
    assert (rule.ibp.__module__, rule.ibp.__name__) == ("nowhere.planted", "ibp")


def test_a_relaxer_stands_in_where_it_has_a_rule(tables):
    relu_rule, other, known = rule_for(aten.relu.default), planted("other"), relaxers()
    assert "default" in known
    register("nowhere.other", other, aten.relu.default, relaxer="planted")
    assert relaxers() == known | {"planted"}
    assert rule_for(aten.relu.default, "planted") is other
    assert rule_for(aten.relu.default) is rule_for(aten.relu.default, "unheard-of") is relu_rule
    assert rule_for(aten.tanh.default, "planted") is rule_for(aten.tanh.default)
    assert table()[aten.relu.default] is relu_rule
    assert family(aten.relu.default) == "robnet_fx.rules.relu"
    with pytest.raises(ValueError, match=r"aten.relu.default already has the rule other"):
        register("nowhere.again", planted("again"), aten.relu.default, relaxer="planted")


def test_methods_name_relaxers_that_are_there():
    assert {method.relaxer for method in METHODS.values()} <= relaxers()


def test_the_families_are_those_of_the_folder():
    folder = Path(rules.__file__).parent
    assert {family(target) for target in table()} <= {f"robnet_fx.rules.{path.stem}" for path in folder.glob("*.py")}
    order = "import robnet_fx.rules as r; print([rule.name for rule in r.table().values()])"
    listed = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(listed) == ORDER  # the order is the same in every process
    assert sorted(ORDER) == sorted(rule.name for rule in table().values())


def test_every_unit_that_moves_matters_by_default():
    pre = Interval(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.0, 2.0, 1.0]))
    assert every_unit(pre).tolist() == [False, True, True]
    assert every_unit(pre, 3, mode="x").tolist() == [False, True, True]


def compile_(draw: Callable[[Drawing, Draw, fx.Node], fx.Node], *shape: int) -> BoundedModel:
    drawing, r = Drawing(*shape), draws(1)
    value = draw(drawing, r, drawing.x)
    return BoundedModel(drawing.logits(value, r), Problem(FIELD, None), "rsip-ssip")


X = (2, 3, 4)
REFUSED = [
    # along the batch axis, by a positive and by a negative number
    ("transpose", X, lambda g, r, x: _anyhow(g, aten.transpose.int, x, 0, 1), "along the batch axis"),
    ("transpose-back", X, lambda g, r, x: _anyhow(g, aten.transpose.int, x, 1, -4), "along the batch axis"),
    ("permute", X, lambda g, r, x: _anyhow(g, aten.permute.default, x, [1, 0, 2, 3]), "moves the batch axis"),
    ("slice", X, lambda g, r, x: _anyhow(g, aten.slice.Tensor, x, 0, 0, 1), "along the batch axis"),
    ("slice-default", X, lambda g, r, x: _anyhow(g, aten.slice.Tensor, x), "along the batch axis"),
    ("slice-back", X, lambda g, r, x: _anyhow(g, aten.slice.Tensor, x, -4, 0, 1), "along the batch axis"),
    ("select", X, lambda g, r, x: _anyhow(g, aten.select.int, x, 0, 0), "along the batch axis"),
    ("mean", X, lambda g, r, x: _anyhow(g, aten.mean.dim, x, [0], True), "along the batch axis"),
    ("mean-back", X, lambda g, r, x: _anyhow(g, aten.mean.dim, x, [1, -4], True), "along the batch axis"),
    ("mean-all", X, lambda g, r, x: _anyhow(g, aten.mean.dim, x, [], True), "along the batch axis"),
    ("sum-all", X, lambda g, r, x: _anyhow(g, aten.sum.dim_IntList, x, None, True), "along the batch axis"),
    ("sum", X, lambda g, r, x: _anyhow(g, aten.sum.dim_IntList, x, [2, 0], True), "along the batch axis"),
    ("cat", X, lambda g, r, x: _anyhow(g, aten.cat.default, [x, x]), "joins along the batch axis"),
    ("cat-back", X, lambda g, r, x: _anyhow(g, aten.cat.default, [x, x], -4), "joins along the batch axis"),
    ("pad", (2,), lambda g, r, x: _anyhow(g, aten.constant_pad_nd.default, x, [0, 0, 1, 0]), "pads the batch axis"),
    ("pad-mode", (2,), lambda g, r, x: _anyhow(g, aten.pad.default, x, [0, 0, 1, 0]), "pads the batch axis"),
    ("mm-left", (5,), lambda g, r, x: _anyhow(g, aten.mm.default, r(5, 5), x), "contracts the batch axis"),
    ("matmul-left", (5,), lambda g, r, x: _anyhow(g, aten.matmul.default, r(5, 5), x), "contracts the batch axis"),
    # what is not affine, or not in the place the rule knows
    ("by-name", X, lambda g, r, x: g(aten.add.Tensor, r(2, 3, 4), other=x), "argument given by name depends"),
    ("weights", (5,), lambda g, r, x: g(aten.linear.default, x, g(aten.select.int, x, 0, 0)), "argument 1|batch"),
    ("cat-constant", (2, 3), lambda g, r, x: g(aten.cat.default, [x, r(5, 2, 3)], 1), "joins bounded values with"),
    (
        "norm-training",
        (3, 2),
        lambda g, r, x: g(aten.batch_norm.default, x, None, None, r(3), r(3).abs(), True, 0.1, 1e-5, False),
        "training mode",
    ),
    ("divisor", X, lambda g, r, x: g(aten.avg_pool2d.default, x, [2, 2], [1], [0], False, True, -1), "divisor"),
    (
        "divisor-3d",
        (1, *X),
        lambda g, r, x: g(aten.avg_pool3d.default, x, [1, 2, 2], [1], [0], False, True, -2),
        "divisor",
    ),
    ("max-pool-no-channels", (3, 4), lambda g, r, x: g(aten.max_pool2d.default, x, [2, 2]), "without a channel axis"),
    ("max-pool-1d-flat", (4,), lambda g, r, x: g(aten.max_pool1d.default, x, [2]), "without a channel axis"),
    ("no-rule", X, lambda g, r, x: g(aten.lgamma.default, x), "no bound rule for aten.lgamma.default"),
]


def _anyhow(g: Drawing, target: object, *args: object) -> fx.Node:
    """A node whose result has lost the batch: described as if it had it, for the refusal must come from the rule."""
    node = g.graph.create_node("call_function", target, tuple(g._place(arg) for arg in args))
    source = g.x
    return g._record(node, g.values[source])


@pytest.mark.parametrize(("name", "shape", "draw", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_rule_refuses_what_it_would_misread(name: str, shape: tuple[int, ...], draw, reason: str):
    with pytest.raises(UnsupportedOpError, match=reason):
        compile_(draw, *shape)


def test_two_bounded_inputs_need_a_joint_rule():
    g = Drawing(2, 3)
    product, square, total = (g(op, g.x, g.x) for op in (aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor))
    assert "mul of two values" in str(rule_for(aten.mul.Tensor).refusal(product, [g.x]))
    assert "argument 1 depends" in str(rule_for(aten.div.Tensor).refusal(square, [g.x]))
    assert rule_for(aten.add.Tensor).refusal(total, [g.x]) is None


ACCEPTED = [
    ("transpose", X, lambda g, r, x: g(aten.transpose.int, x, 1, 3)),
    ("transpose-back", X, lambda g, r, x: g(aten.transpose.int, x, -1, -3)),
    ("permute", X, lambda g, r, x: g(aten.permute.default, x, [0, 3, 1, 2])),
    ("slice", X, lambda g, r, x: g(aten.slice.Tensor, x, -3, 0, 1)),
    ("select", X, lambda g, r, x: g(aten.select.int, x, 3, 0)),
    ("mean", X, lambda g, r, x: g(aten.mean.dim, x, [1, 2, 3], True)),
    ("sum", X, lambda g, r, x: g(aten.sum.dim_IntList, x, [-1])),
    ("cat", X, lambda g, r, x: g(aten.cat.default, [x, x], -3)),
    ("cat-middle", X, lambda g, r, x: g(aten.cat.default, [x, x], 2)),
    ("pad", (2,), lambda g, r, x: g(aten.constant_pad_nd.default, x, [1, 1])),
    ("pad-mode", (2, 3), lambda g, r, x: g(aten.pad.default, x, [1, 1, 2, 0])),
    ("matmul-left", (5, 2), lambda g, r, x: g(aten.matmul.default, r(3, 5), x)),
    ("matmul-right", (5,), lambda g, r, x: g(aten.matmul.default, x, r(5, 3))),
    ("joint", X, lambda g, r, x: g(aten.add.Tensor, x, x)),
    ("divisor", X, lambda g, r, x: g(aten.avg_pool2d.default, x, [2, 2], [1], [0], False, True, 3)),
    ("no-divisor", X, lambda g, r, x: g(aten.avg_pool2d.default, x, [2, 2], [1], [0], False, True, None)),
    ("max-pool", X, lambda g, r, x: g(aten.max_pool2d.default, x, [2, 2])),
    ("constant-alone", X, lambda g, r, x: g(aten.add.Tensor, x, g_erf(g, r))),
]


def g_erf(g: Drawing, r: Draw) -> fx.Node:
    """A constant with an operation that has no rule: it is computed, not bounded."""
    constant = g._place(r(2, 3, 4))
    node = g.graph.create_node("call_function", aten.lgamma.default, (constant,))
    g.values[node] = torch.erf(g.values[constant])
    node.meta = dict(constant.meta)
    return node


@pytest.mark.parametrize(("name", "shape", "draw"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_and_takes_what_it_can(name: str, shape: tuple[int, ...], draw):
    net = compile_(draw, *shape)
    images = torch.rand(2, *shape, dtype=torch.float64)
    lower, upper = net.bounds(images, torch.eye(3, dtype=torch.float64).expand(2, -1, -1))
    logits = net(net.center.expand(2, -1), images)
    assert bool((lower <= logits + 1e-9).all() and (logits <= upper + 1e-9).all())
