"""Networks go back into the file they came from, whole or not at all, and onnxruntime agrees."""

from __future__ import annotations

import errno
import os

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from robnet_fx.errors import RobnetError, UnsupportedError
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.frontend.onnx.runtime import OnnxSession, difference
from robnet_fx.interchange.network import write_onnx
from robnet_fx.machine import files
from tests.onnx_files import CLASSES, SIZE, Residual, by_hand, convnet, exported, settled, weight

PUBLIC = [
    *("cifar_base_kw", "resnet_2b", "cifar10_small", "Convnet_maxpool"),
    *("ffnnSIGMOID__Point_6x200", "mnist_0.1", "pgd_2_3_16", "cifar_base"),
]


def disturb(model: nn.Module) -> None:
    """Move every weight, as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def without_weights(proto: onnx.ModelProto) -> bytes:
    """Everything in a file but the values of its tensors."""
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    tensors = list(rest.graph.initializer)
    tensors += [a.t for node in rest.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in tensors:
        for field in ("raw_data", "float_data", "double_data", "int32_data"):
            tensor.ClearField(field)
    return rest.SerializeToString(deterministic=True)


def check_round_trip(path, out):
    model = load_onnx(path)
    images = torch.rand(5, *model.input_shape)
    before = model(images)
    disturb(model)
    assert write_onnx(model, out, images) == "initialisers"
    assert without_weights(onnx.load(out)) == without_weights(onnx.load(path))
    assert difference(model(images), OnnxSession(out)(images)) < 1e-4
    assert difference(model(images), load_onnx(out)(images).detach()) < 1e-6
    assert not torch.allclose(before, model(images), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "dynamo", "dynamic"),
    [(convnet, False, False), (convnet, True, True), (Residual, False, True), (Residual, True, False)],
)
def test_round_trip(tmp_path, make, dynamo, dynamic):
    path = exported(settled(make()), tmp_path / "net.onnx", dynamo=dynamo, dynamic=dynamic, opset=18)
    check_round_trip(path, tmp_path / "out.onnx")


def test_round_trip_of_classes_over_pixels(tmp_path):
    """Logits `[B, classes, 1, 1]`, as a network leaves them that averages each class over its pixels."""
    net = settled(nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
    path = exported(net, tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    model, images = load_onnx(path), torch.rand(3, *SIZE)
    assert model.classes == CLASSES
    torch.testing.assert_close(model(images), net(images).flatten(1))
    check_round_trip(path, tmp_path / "out.onnx")


@pytest.mark.parametrize("name", PUBLIC)
def test_round_trip_of_public_networks(models_dir, tmp_path, name):
    check_round_trip(models_dir / f"{name}.onnx", tmp_path / "out.onnx")


def test_an_untouched_network_is_written_back_byte_for_byte(tmp_path):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    write_onnx(load_onnx(path), tmp_path / "out.onnx", torch.rand(2, *SIZE))
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(path)


def test_equal_weights_go_back_to_their_own_places(tmp_path):
    """Zero biases and unit scales look alike: places are kept by name, not found by value."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    for layer in net[1::2]:
        nn.init.zeros_(layer.bias)
    path = exported(net.eval(), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    check_round_trip(path, tmp_path / "out.onnx")


def test_transposed_and_constant_weights(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["W"], ["T"]),
        helper.make_node("MatMul", ["x", "T"], ["z"]),
        helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(weight(3))),
        helper.make_node("Add", ["z", "c"], ["a"]),
        helper.make_node("Constant", [], ["d"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Div", ["a", "d"], ["y"]),
    ]
    check_round_trip(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(3, 4)}), tmp_path / "out.onnx")


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.5, "beta": 2.0}, {"transB": 1}], ids=["as it is", "scaled", "turned"]
)
def test_every_form_of_a_linear_layer(tmp_path, options):
    """Square weights: shapes alone would not tell a transposed one. The first is used twice, and is one parameter."""
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"], **options),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "W", "c"], ["y"], **options),
    ]
    weights = {"W": weight(4, 4), "b": weight(4, seed=1), "c": weight(1, 4, seed=2)}
    path = by_hand(tmp_path / "net.onnx", nodes, weights)
    assert len(list(load_onnx(path).parameters())) == 3
    check_round_trip(path, tmp_path / "out.onnx")


@pytest.mark.parametrize("batch", [1, "N"])
def test_re_export_where_a_weight_has_no_place(tmp_path, batch):
    """The product of two stored matrices is one trained weight."""
    nodes = [
        helper.make_node("MatMul", ["A", "B"], ["W"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    options = {"inputs": [("x", 1, [batch, 4])], "outputs": [("y", 1, [batch, 3])]}
    path = by_hand(tmp_path / "net.onnx", nodes, {"A": weight(4, 2), "B": weight(2, 3, seed=1)}, **options)
    model, images = load_onnx(path), torch.rand(5, 4)
    disturb(model)
    assert write_onnx(model, tmp_path / "out.onnx", images, metadata={"robnet_fx.eps": "0.1"}) == "re-export"
    again = load_onnx(tmp_path / "out.onnx")
    assert (again.input_name, again.output_name) == ("x", "y")
    assert again.dynamic_batch == (batch == "N")
    assert again.metadata == {"labels": "a,b,c", "robnet_fx.eps": "0.1"}
    assert difference(model(images), again(images).detach()) < 1e-4


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_what_was_stored_once_and_came_apart_is_stored_twice(tmp_path, old):
    """The file of a fresh batch norm: scale and variance are one tensor. Old files list weights among inputs."""
    nodes = [
        helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["h"]),
        helper.make_node("MatMul", ["h", "W"], ["y"]),
    ]
    weights = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32), "W": weight(4, 3)}
    path, out = by_hand(tmp_path / "net.onnx", nodes, weights, opset=7 if old else 17), tmp_path / "out.onnx"
    if old:
        proto = onnx.load(path)
        proto.ir_version = 3
        proto.graph.input.extend(helper.make_tensor_value_info(name, 1, w.shape) for name, w in weights.items())
        onnx.save(proto, path)
    model, images = load_onnx(path), torch.rand(3, 4)
    disturb(model)
    assert write_onnx(model, out, images) == "initialisers"
    before, after = onnx.load(path), onnx.load(out)
    assert [(n.op_type, n.name, n.output, n.attribute) for n in before.graph.node] == [
        (n.op_type, n.name, n.output, n.attribute) for n in after.graph.node
    ]
    assert after.graph.node[0].input == ["x", "one", "zero", "zero.h.3", "one.h.4"]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in after.graph.initializer}
    assert (stored["one.h.4"], stored["zero.h.3"]) == ([1] * 4, [0] * 4)
    assert stored["one"] != [1] * 4
    assert stored["zero"] != [0] * 4
    again = load_onnx(out)
    assert difference(model(images), again(images).detach()) < 1e-6
    disturb(again)
    assert write_onnx(again, tmp_path / "again.onnx", images) == "initialisers"
    assert list(onnx.load(tmp_path / "again.onnx").graph.node) == list(after.graph.node)


def test_a_tied_weight_that_came_apart_is_re_exported(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Transpose", ["W"], ["T"]),
        helper.make_node("MatMul", ["h", "T"], ["y"]),
    ]
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 4)}))
    disturb(model)
    assert write_onnx(model, tmp_path / "out.onnx", torch.rand(2, 4)) == "re-export"


def test_a_module_that_came_from_no_file(tmp_path):
    net, images = settled(Residual()).train(), torch.rand(1, *SIZE)
    out = tmp_path / "net.onnx"
    assert write_onnx(net, out, images, metadata={"labels": "a"}) == "re-export"
    assert net.training
    proto, again = onnx.load(out), load_onnx(out)
    assert (again.input_name, again.output_name, again.dynamic_batch) == ("image", "logits", True)
    assert again.metadata["labels"] == "a"
    text = str(proto)
    assert os.path.dirname(__file__) not in text  # no note of where it was made
    assert ".py" not in text


def test_double_precision_is_written_as_float(tmp_path):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    model = load_onnx(path).double()
    disturb(model)
    assert write_onnx(model, tmp_path / "out.onnx", torch.rand(2, *SIZE).double()) == "initialisers"
    assert next(model.parameters()).dtype == torch.float64


def test_a_full_disk_leaves_nothing_new(tmp_path, monkeypatch):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    model, before = load_onnx(path), path.read_bytes()
    disturb(model)

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    for out in (path, tmp_path / "out.onnx"):
        with pytest.raises(RobnetError, match=r"cannot write .*\.onnx: No space left on device"):
            write_onnx(model, out, torch.rand(2, *SIZE))
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert path.read_bytes() == before


def test_a_network_torch_cannot_export(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(UnsupportedError, match=r"torch\.onnx cannot export Odd"):
        write_onnx(Odd(), tmp_path / "out.onnx", torch.rand(2, *SIZE))
    assert os.listdir(tmp_path) == []
