"""ONNX files of other types than float32: read with the weights as stored, written back in their own types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.onnx.header import read_header
from robnet_fx.frontend.onnx.load import OnnxModel, load_onnx
from robnet_fx.frontend.onnx.runtime import OnnxSession
from robnet_fx.interchange.network import write_onnx
from robnet_fx.verify import certify
from tests.onnx_files import by_hand, weight

node = helper.make_node
SIZE = (1, 4, 4)
THIRDS = weight(16, 3).astype(np.float64) / 3  # more digits than float32 has


def file(path, kind, first=(), *, weights=THIRDS, cast=None, taken=(1, 4, 4)):
    """A linear classifier whose images are of one type, with nodes of its own from x to `pixels`."""
    numpy = np.float32 if cast is not None else helper.tensor_dtype_to_np_dtype(kind)
    nodes = [*first, node("Flatten", ["pixels" if first else "x"], ["f"]), node("MatMul", ["f", "W"], ["y"])]
    constants = {"W": weights.astype(numpy), "k": np.array(1 / 255, np.float32), "three": np.array(3, np.uint8)}
    used = {key: value for key, value in constants.items() if any(key in n.input for n in nodes)}
    out = kind if cast is None else TensorProto.FLOAT
    return by_hand(path, nodes, used, inputs=[("x", kind, ["N", *taken])], outputs=[("y", out, ["N", 3])])


LEVELS = {
    "through int32": [node("Cast", ["x"], ["i"], to=6), node("Cast", ["i"], ["pixels"], to=TensorProto.FLOAT)],
    "scaled": [node("Cast", ["x"], ["c"], to=TensorProto.FLOAT), node("Mul", ["c", "k"], ["pixels"])],
    "moved first": [
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        node("Cast", ["t"], ["c"], to=TensorProto.FLOAT),
        node("Mul", ["c", "k"], ["pixels"]),
    ],
}


@pytest.mark.parametrize("name", LEVELS)
def test_uint8_images_are_bounded_behind_their_cast(tmp_path, name):
    taken = (4, 4, 1) if name == "moved first" else SIZE
    path = file(tmp_path / "net.onnx", TensorProto.UINT8, LEVELS[name], cast=1, taken=taken)
    model = load_onnx(path)
    scale = 1.0 if "moved" in name or name == "scaled" else 255.0
    pixels = torch.rand(4, *taken)
    plain = (pixels.flatten(1) @ torch.from_numpy(THIRDS.astype(np.float32))) * scale
    torch.testing.assert_close(model(pixels), plain, rtol=1e-4, atol=1e-4)
    whole = (pixels * 255).round() / 255
    torch.testing.assert_close(model(whole), OnnxSession(path)(whole), rtol=1e-4, atol=1e-3)
    assert "rounding to whole levels is not covered" in model.remarks["file"]
    assert write_onnx(model, tmp_path / "out.onnx", pixels) == "initialisers"
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(path)


def test_the_certificate_of_uint8_images_says_what_it_does_not_cover(tmp_path):
    model = load_onnx(file(tmp_path / "net.onnx", TensorProto.UINT8, LEVELS["scaled"], cast=1))
    images = torch.randint(0, 256, (4, *SIZE), dtype=torch.uint8)
    net = robnet_fx.bound(model, BiasField(0, 0.01), example=images / 255)
    certificate = certify(net, images, net.logits(images / 255).argmax(1)).document()
    assert certificate["remarks"]["file"] == model.remarks["file"] and certificate["clean_accuracy"] == 1
    with pytest.raises(UsageError, match="leave out --mean and --std"):
        robnet_fx.bound(model, BiasField(0, 0.01), mean=0.5, example=images / 255)


@pytest.mark.parametrize("name", ["arithmetic", "to int8", "no cast"])
def test_whole_numbers_only_move(tmp_path, name):
    first = {
        "arithmetic": [node("Add", ["x", "three"], ["a"]), node("Cast", ["a"], ["pixels"], to=1)],
        "to int8": [node("Cast", ["x"], ["i"], to=TensorProto.INT8), node("Cast", ["i"], ["pixels"], to=1)],
        "no cast": [node("Identity", ["x"], ["pixels"])],
    }[name]
    path = file(tmp_path / "net.onnx", TensorProto.UINT8, first, cast=1)
    with pytest.raises(UnsupportedError, match=r"whole numbers|cast to INT8"):
        load_onnx(path)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.BOOL, TensorProto.STRING, TensorProto.INT64])
def test_images_of_other_types_are_refused_by_name(tmp_path, kind):
    path = by_hand(tmp_path / "net.onnx", [node("Cast", ["x"], ["y"], to=1)], inputs=[("x", kind, ["N", 3])])
    with pytest.raises(RobnetError, match=TensorProto.DataType.Name(kind)):
        load_onnx(path)


KEPT_OUTSIDE = [node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT16)]
FLOATS = {
    "float16": (TensorProto.FLOAT16, torch.float32, np.float16),
    "float64": (TensorProto.DOUBLE, torch.float64, np.float64),
    "float32 in float64": (TensorProto.DOUBLE, torch.float32, np.float64),
}


@pytest.mark.parametrize("name", FLOATS)
def test_weights_are_read_as_stored_and_written_back_in_their_type(tmp_path, name):
    kind, held, stored = FLOATS[name]
    weights = THIRDS.astype(np.float32) if name == "float32 in float64" else THIRDS
    path, out = file(tmp_path / "net.onnx", kind, weights=weights), tmp_path / "out.onnx"
    model = load_onnx(path)
    (parameter,) = model.parameters()
    file_weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert parameter.dtype == held and file_weights.dtype == stored
    assert np.array_equal(parameter.detach().numpy().astype(np.float64), file_weights.astype(np.float64))
    assert ("float16" in model.remarks.get("file", "")) == (name == "float16")
    images = torch.rand(4, *SIZE, dtype=held)
    net = robnet_fx.bound(path, BiasField(1, 0.01), example=images.float())
    exact = images.double().flatten(1).numpy() @ file_weights.astype(np.float64)
    judged = certify(net, images, torch.from_numpy(exact).argmax(1))
    assert judged.clean_accuracy == 1
    with torch.no_grad():
        parameter.add_(0.01)
    assert write_onnx(model, out, images) == "initialisers"
    again = load_onnx(out)
    written = numpy_helper.to_array(onnx.load(out).graph.initializer[0])
    assert written.dtype == stored and np.array_equal(written, parameter.detach().numpy().astype(stored))
    assert np.array_equal(next(again.parameters()).detach().numpy().astype(stored), written)


def test_float16_inside_a_float32_file(tmp_path):
    """As converters write it that keep inputs and outputs."""
    nodes = [
        *KEPT_OUTSIDE,
        node("Flatten", ["pixels"], ["f"]),
        node("MatMul", ["f", "W"], ["h"]),
        node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    path = by_hand(tmp_path / "net.onnx", nodes, {"W": THIRDS.astype(np.float16)}, inputs=[("x", 1, ["N", *SIZE])])
    graph = robnet_fx.trace(path, torch.rand(2, *SIZE))
    assert {n.target for n in graph.graph.nodes if n.op == "call_function"} <= {
        torch.ops.aten.reshape.default,
        torch.ops.aten.matmul.default,
    }


def test_parity_in_float16_does_not_hide_another_network(tmp_path, monkeypatch):
    """A difference far below what float16 rounds: the same network in float32 shows it."""
    path = file(tmp_path / "net.onnx", TensorProto.FLOAT16)
    forward = OnnxModel.forward
    monkeypatch.setattr(OnnxModel, "forward", lambda self, x: forward(self, x) + 1e-3)
    with pytest.raises(UnsupportedError, match="PyTorch and onnxruntime disagree"):
        load_onnx(path)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_a_new_export_takes_what_the_file_took(tmp_path, kind):
    """The product of two stored matrices is one trained weight, which has no place in the file."""
    numpy = np.float32 if kind == TensorProto.UINT8 else helper.tensor_dtype_to_np_dtype(kind)
    nodes = [node("MatMul", ["A", "B"], ["W"]), node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "W"], ["y"])]
    nodes.append(node("Cast", ["x"], ["p"], to=1) if kind == TensorProto.UINT8 else node("Identity", ["x"], ["p"]))
    weights = {"A": weight(16, 2).astype(numpy) / 255, "B": weight(2, 3, seed=1).astype(numpy)}
    shapes = {
        "inputs": [("x", kind, ["N", *SIZE])],
        "outputs": [("y", helper.np_dtype_to_tensor_dtype(np.dtype(numpy)), None)],
    }
    model, images = load_onnx(by_hand(tmp_path / "net.onnx", nodes, weights, **shapes)), torch.rand(3, *SIZE)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    assert write_onnx(model, tmp_path / "out.onnx", images) == "re-export"
    image = read_header(tmp_path / "out.onnx").image
    assert (image.name, image.type) == ("x", TensorProto.DataType.Name(kind))
    again = load_onnx(tmp_path / "out.onnx")
    torch.testing.assert_close(again(images).float(), model.float()(images), rtol=1e-3, atol=1e-3)
