"""Every operation of the table, inside a network: no coefficient found leaves a bound, at any node, by any method."""

import math

import pytest
import torch
from torch import fx

from robnet_fx import BiasField
from robnet_fx.algebra.ops import larger, within
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from robnet_fx.rules import table
from robnet_fx.testing import check_sound
from tests.rules.cases import CASES, Case, name_of
from tests.soundness import Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(1, 0.4, additive=True)


def test_every_operation_of_the_table_has_a_case():
    alone = {larger, within}  # hold only beside what they are lowered with: test_extremes.py, test_within.py
    assert set(table()) - alone == {case.target for case in CASES}


def network(case: Case) -> fx.GraphModule:
    """image -> linear -> leaky ReLU -> linear (so that the op's inputs carry slack) -> op -> ReLU -> linear."""
    r = draws(1)
    drawing = Drawing(2, 3)
    hidden = drawing(aten.leaky_relu.default, drawing(aten.linear.default, drawing.flat(drawing.x), r(5, 6), r(5)), 0.3)
    inputs = []
    for shape in case.shapes:
        size = int(torch.tensor(shape).prod())
        mixed = drawing(aten.linear.default, hidden, r(size, 5) / 2, r(size))
        start, end = case.domain
        if start > -math.inf and end < math.inf:
            mixed = drawing(aten.clamp.default, mixed, start + 0.2, end - 0.2)
        elif start > -math.inf:
            mixed = drawing(aten.add.Tensor, drawing(aten.relu.default, mixed), start + 0.2)
        elif end < math.inf:
            mixed = drawing(aten.sub.Tensor, end - 0.2, drawing(aten.relu.default, mixed))
        inputs.append(drawing(aten.reshape.default, mixed, [-1, *shape]))
    args, kwargs = case.call(r, *inputs)
    value = drawing(case.target, *args, **kwargs)
    value = drawing(aten.relu.default, drawing(aten.add.Tensor, value, 0.1))
    return drawing.logits(value, r)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_no_coefficient_leaves_a_bound(case: Case):
    check_sound(network(case), FIELD, torch.rand(2, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_bounds_to_train_on_come_in_bfloat16_too(case: Case):
    net = BoundedModel(network(case), Problem(FIELD), symbols=12).float()
    parameters = [p.requires_grad_() for p in net.model.parameters()]
    (upper,) = net.margins_in_parts(torch.rand(2, 2, 3), torch.tensor([0, 1]), precision="bf16")
    upper.sum().backward()
    assert upper.dtype == torch.float32
    assert all(p.grad is not None for p in parameters[:4])  # the two layers in front, which every case stands on
