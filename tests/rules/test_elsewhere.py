"""Rules, perturbations and whole graphs follow their inputs to another device and dtype: the whole op table, no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

import robnet_fx.verify.certificate
from robnet_fx import BiasField, WhiteNoise
from robnet_fx.algebra.domains import Form, InputShape, Interval, Symbolic
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Problem
from robnet_fx.rules import Relaxation, Rule, affine, elementwise, rule_for
from robnet_fx.rules.relaxation import Band
from tests.elsewhere import ELSEWHERE, Elsewhere, blank
from tests.rules.cases import CASES, Case
from tests.soundness import draws

aten = torch.ops.aten
B, D, K = 2, 3, 4


def interval(shape: tuple[int, ...]) -> Interval:
    return Interval(blank(B, *shape), blank(B, *shape))


def symbolic(shape: tuple[int, ...]) -> Symbolic:
    return Symbolic(blank(B, D, *shape), blank(B, *shape), blank(B, *shape))


def called(case: Case, make: Callable[[tuple[int, ...]], Any]) -> tuple[Any, Any]:
    """The arguments of a case with constants and bounded inputs elsewhere."""
    return tree_map_only(Tensor, lambda t: t.to(ELSEWHERE), case.call(draws(0), *map(make, case.shapes)))


def run_elsewhere(case: Case, rule: Rule) -> None:
    """All three functions of a rule on blank inputs."""
    pres = tuple(map(interval, case.shapes))
    extra: dict[str, Any] = {} if rule.affine else {"pre": pres[0] if len(pres) == 1 else pres}
    args, kwargs = called(case, lambda shape: blank(B, *shape))
    form = Form(blank(B, K, *case.target(*args, **kwargs).shape[1:]), blank(B, K))
    for function, make, first in (
        (rule.ibp, interval, ()),
        (rule.ssip, symbolic, ()),
        (rule.rsip, InputShape, (form,)),
    ):
        args, kwargs = called(case, make)
        with Elsewhere():
            function(*first, *args, **kwargs, **({} if function is rule.ibp else extra))


def test_every_rule_of_the_table_follows_its_inputs():
    found = []
    relaxed = {case.target: case for case in CASES if not rule_for(case.target).affine}  # one of each will do
    for case in [case for case in CASES if rule_for(case.target).affine or relaxed[case.target] is case]:
        try:
            run_elsewhere(case, rule_for(case.target))
        except (AssertionError, RuntimeError, NotImplementedError) as error:
            found.append(f"{case.name}: {error}")
    assert not found, "\n".join(found)


def planted(constant: Callable[[Tensor], Tensor]) -> list[Rule]:
    """Rules whose only fault is a constant of their own."""

    def band(pre: Interval) -> Band:
        return Band(torch.ones_like(pre.lower), constant(pre.lower), torch.zeros_like(pre.lower))

    return [
        affine("planted", lambda x: x + constant(x)),
        elementwise("planted", Relaxation(lambda pre: pre, band)),
        elementwise("planted", Relaxation(lambda pre: Interval(pre.lower - constant(pre.lower), pre.upper), band)),
    ]


@pytest.mark.parametrize(
    "constant",
    [
        lambda x: torch.ones(3, dtype=x.dtype),  # on the CPU
        lambda x: torch.ones(3, device=x.device),  # in float32
        lambda x: torch.tensor(0.1),  # a number in float32, which digits are lost by
        lambda x: x.new_zeros(3)[torch.tensor([0, 1, 2])],  # which indices may be, at the price of a copy each time
    ],
)
def test_a_planted_constant_is_found(constant: Callable[[Tensor], Tensor]):
    case = Case("planted", aten.alias.default, ((3,),))
    for rule in planted(constant):
        with pytest.raises((AssertionError, RuntimeError)):
            run_elsewhere(case, rule)
    run_elsewhere(case, planted(torch.zeros_like)[0])  # and nothing else


class Net(nn.Module):
    """Constants made in `forward`, of every kind, beside buffers and a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("mask", torch.tensor([1, 0, 1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        n = torch.arange(x.shape[-1], dtype=torch.float32)
        basis = torch.cos(torch.pi / len(n) * torch.outer(n + 0.5, n)).type_as(x)
        h = F.silu(self.norm(self.conv(x))) @ basis
        h = h * torch.ones(4, 4, dtype=torch.bool).tril().float() + self.conv.bias[:, None, None] * torch.eye(4)
        h = (h @ torch.diag(self.mask.float())).flatten(2).mean(2)
        return self.head(F.softmax(h, -1, dtype=torch.float32).to(x.dtype)) + x.new_tensor([0.1, 0.2, 0.3])


FIELDS = [BiasField(1, 0.1, additive=True), WhiteNoise(0.01)]


@pytest.fixture(scope="module")
def canonical() -> fx.GraphModule:
    torch.manual_seed(0)
    return robnet_fx.trace(Net(), torch.rand(2, 2, 4, 4))


@pytest.mark.parametrize(("field", "method"), [(FIELDS[0], "rsip-ssip"), (FIELDS[1], "ibp")])
def test_whole_graphs_follow_their_inputs(canonical: fx.GraphModule, field: Perturbation, method: str):
    net = BoundedModel(canonical, Problem(field, "clamp", mean=[0.4, 0.5], std=[0.2, 0.3]), method)
    exact = robnet_fx.verify.convert.in_dtype(net, torch.float64)
    images = torch.rand(2, 2, 4, 4)
    torch.testing.assert_close(exact.logits(images.double()).float(), net.logits(images))
    exact.to(ELSEWHERE)
    with Elsewhere():
        exact.perturbed(blank(B, len(net.center)), blank(B, 2, 4, 4))
        exact.get_submodule("bounds")(blank(B, 2, 4, 4), blank(B, K, 3))


def test_a_constant_planted_in_a_graph_is_found(canonical: fx.GraphModule):
    net = BoundedModel(canonical, Problem(FIELDS[0]), "ibp")
    net.clean.get_submodule("constants").register_buffer("planted", torch.ones(3))
    net.to(ELSEWHERE, torch.float64)
    assert net.clean.get_submodule("constants").get_buffer("planted").device == ELSEWHERE  # what is stored follows
    logits = net.clean.graph.find_nodes(op="output")[0].args[0]
    with net.clean.graph.inserting_after(logits):
        made = net.clean.graph.call_function(torch.ones, (3,), {"dtype": torch.float64})
        with net.clean.graph.inserting_after(made):
            logits.replace_all_uses_with(total := net.clean.graph.call_function(aten.add.Tensor, (logits, made)))
            total.args = (logits, made)
    net.clean.recompile()
    with pytest.raises((AssertionError, RuntimeError)), Elsewhere():
        net.clean(blank(B, 2, 4, 4))
