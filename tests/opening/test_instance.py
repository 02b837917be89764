"""Networks opened against a property: files of every floating-point type, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from robnet_fx import BoundedModel, UnsupportedError
from robnet_fx.interchange.vnnlib import read_vnnlib
from robnet_fx.opening.instance import open_instance
from robnet_fx.perturbations.input_box import around
from robnet_fx.verify.property import Case, Property
from robnet_fx.verify.question import Question
from tests.onnx_files import by_hand, weight


def about(rows, offset=None, count=3) -> Property:
    """Of `count` inputs in [-1, 1] and as many outputs as a row has, whether any row is at least 0."""
    rows = torch.tensor(rows, dtype=torch.float64).unsqueeze(0)
    size = rows.shape[1]
    offset = torch.zeros(1, size, dtype=torch.float64) if offset is None else torch.tensor([offset]).double()
    question = Question(rows, offset, torch.arange(size), torch.zeros(size, dtype=torch.bool))
    ends = torch.ones(count, dtype=torch.float64)
    return Property(count, rows.shape[2], (Case(-ends, ends, torch.zeros(2, count, dtype=torch.bool), question),))


def file(path, kind=TensorProto.FLOAT, outputs=3, end=None):
    array = weight(3, outputs).astype(helper.tensor_dtype_to_np_dtype(kind))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if end else "y"])]
    nodes += [helper.make_node(end, ["z"], ["y"])] if end else []
    return by_hand(path, nodes, {"w": array}, inputs=(("x", kind, ["N", 3]),), outputs=(("y", kind, None),))


def test_a_softmax_is_left_out_only_where_outputs_are_compared(tmp_path):
    path = file(tmp_path / "net.onnx", end="Softmax")
    for rows, offset, kept in [
        ([[1, -1, 0], [0, 2, -2]], None, False),
        ([[1, -1, 0]], [0.1], True),
        ([[1, 0, 0]], None, True),
        ([[1, -2, 0]], None, True),
        ([[1, -0.5, -0.5]], None, True),
        ([[1, -1, 0], [1, 1, 1]], None, True),
        ([[0, 0, 0]], None, True),
    ]:
        stated = about(rows, offset)
        instance = open_instance(path, stated)
        (case,) = instance.cases
        assert case.question.rows.shape[2] == (4 if kept else 3)
        assert ("left out" in str(dict(instance.remarks))) is not kept
        if kept:
            assert torch.equal(case.question.rows[..., 1:], stated.cases[0].question.rows)
            assert not case.question.rows[..., 0].any()
            outputs = instance.canonical(torch.zeros(2, 3))
            torch.testing.assert_close(outputs, torch.tensor([[0, 1 / 3, 1 / 3, 1 / 3]] * 2))


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.DOUBLE, torch.float64), (TensorProto.FLOAT16, torch.float16)])
def test_counterexamples_are_in_the_type_of_the_file(tmp_path, kind, dtype):
    instance = open_instance(file(tmp_path / "net.onnx", kind), about([[1, 0, 0]]))
    found = instance.confirm(0, torch.tensor(weight(3, 3)[:, 0]).double() * 0.3)
    assert found.inputs.dtype == found.outputs.dtype == dtype
    assert instance.confirm(0, -torch.tensor(weight(3, 3)[:, 0]).double()) is None


def test_what_is_given_is_brought_into_the_box(tmp_path):
    instance = open_instance(file(tmp_path / "net.onnx"), about([[1, 0, 0]], [9]))
    assert instance.confirm(0, torch.tensor([7.0, -7.0, 0.1]).double()).inputs.tolist() == [1, -1, np.float32(0.1)]


def test_the_box_is_around_all_cases(tmp_path):
    stated = about([[1, 0, 0]])
    (one,) = stated.cases
    fixed = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    two = replace(one, lower=fixed, upper=fixed)
    instance = open_instance(file(tmp_path / "net.onnx"), replace(stated, cases=(one, two)))
    assert (instance.box.lower, instance.box.upper) == ((-1, -1, -1), (3, 1, 1))


def test_whole_numbers_are_refused(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = by_hand(tmp_path / "net.onnx", nodes, {"w": weight(3, 3)}, inputs=(("x", TensorProto.UINT8, ["N", 3]),))
    with pytest.raises(UnsupportedError, match="the input is whole numbers"):
        open_instance(path, about([[1, 0, 0]]))


def test_a_network_that_differs_from_onnxruntime_in_the_box_is_refused(tmp_path, monkeypatch):
    from robnet_fx.opening import instance

    monkeypatch.setattr(instance, "difference", lambda ours, theirs: float("nan"))
    with pytest.raises(UnsupportedError, match=r"disagree by nan .* at points of the property's box"):
        open_instance(file(tmp_path / "net.onnx"), about([[1, 0, 0]]))


def test_a_public_instance(models_dir):
    """Of the competition's cifar_biasfield: 16 coefficients, nine other classes, and bounds that hold at points."""
    stated = read_vnnlib(models_dir / "prop_0.vnnlib.gz")
    instance = open_instance(models_dir / "cifar_bias_field_0.onnx", stated)
    (case,) = instance.cases
    assert (stated.inputs, stated.outputs, len(case.question.group)) == (16, 10, 9)
    net = BoundedModel(instance.canonical, instance.problem)
    middle, radius = around(case.lower, case.upper)
    question = case.question.to(net.center)
    _, upper = net.get_submodule("bounds")(middle.float().unsqueeze(0), question.rows)
    worst = question.worst(upper + question.offset)
    points = middle + radius * (2 * torch.rand(50, 16, dtype=torch.float64) - 1)
    for outputs in instance.original(points):
        values = question.values(outputs.unsqueeze(0))
        assert bool((values <= upper + question.offset + 1e-4 * (1 + upper.abs())).all())
        assert question.worst(values) <= worst
