"""Whole files as converters of each time wrote them: onnxruntime's numbers, sound bounds, and back into the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from robnet_fx import BiasField, bound
from tests.interchange.test_network import check_round_trip
from tests.onnx_files import by_hand, weight

make = helper.make_node
OPSETS = (7, 8, 9, 11, 13, 15, 17, 18, 20, 21, 22, 23)

Parts = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def norm(channels: int) -> dict[str, np.ndarray]:
    return {"s": weight(channels) + 1, "c": weight(channels), "m": weight(channels) / 4, "v": weight(channels) + 1}


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return make("Constant", [], [name], value=onnx.numpy_helper.from_array(value, name))


def axes(opset: int, since: int, *values: int) -> tuple[list[str], dict[str, list[int]], dict[str, np.ndarray]]:
    """Axes as the opset has them: an attribute, or since some opset an input."""
    return ([], {"axes": list(values)}, {}) if opset < since else (["axes"], {}, {"axes": ints(*values)})


def caffe(opset: int) -> Parts:
    """Convolution, batch norm, padded average pooling, dropout, a reshape to a stored shape, Gemm."""
    spatial = {"spatial": 1} if opset < 9 else {}
    nodes = [
        make("Conv", ["x", "w", "b"], ["h1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        make("BatchNormalization", ["h1", "s", "c", "m", "v"], ["h2"], epsilon=1e-5, momentum=0.9, **spatial),
        make("Relu", ["h2"], ["h3"]),
        make(
            "AveragePool", ["h3"], ["h4"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
        ),
        make(
            "MaxPool",
            ["h4"],
            ["h5"],
            kernel_shape=[2, 2],
            strides=[1, 1],
            **({"storage_order": 0} if opset > 7 else {}),
        ),
        make("Dropout", ["h5"], ["h6", "mask"], **({"ratio": 0.5} if opset < 12 else {})),
        make("Reshape", ["h6", "shape"], ["h7"]),
        make("Gemm", ["h7", "W", "B"], ["y"], alpha=1.0, beta=1.0, transB=1),
    ]
    weights = {"w": weight(4, 3, 3, 3), "b": weight(4), **norm(4), "shape": ints(-1, 64), "W": weight(5, 64)}
    return nodes, weights | {"B": weight(5)}


def mobile(opset: int) -> Parts:
    """Explicit padding, depthwise convolution, ReLU6 as a clip, squeezed and excited means, a scaled Gemm, softmax."""
    names, options, stored = axes(opset, 18, 2, 3)
    if opset < 11:
        pads = make("Pad", ["x"], ["p"], mode="constant", pads=[0, 0, 0, 0, 0, 0, 1, 1], value=0.0)
        clip = make("Clip", ["h2"], ["h3"], min=0.0, max=6.0)
    else:
        pads = make("Pad", ["x", "pads", "zero"], ["p"], mode="constant")
        clip = make("Clip", ["h2", "zero", "six"], ["h3"])
        stored |= {
            "pads": ints(0, 0, 0, 0, 0, 0, 1, 1),
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        }
    nodes = [
        pads,
        make("Conv", ["p", "w1"], ["h1"], kernel_shape=[3, 3], strides=[2, 2]),
        make("Conv", ["h1", "w2"], ["h2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4),
        clip,
        make("GlobalAveragePool", ["h3"], ["g"]),
        make("Conv", ["g", "w3"], ["g1"], kernel_shape=[1, 1]),
        make("Sigmoid", ["g1"], ["g2"]),
        make("Mul", ["h3", "g2"], ["h4"]),
        make("ReduceMean", ["h4", *names], ["h5"], keepdims=0, **options),
        make("Gemm", ["h5", "W", "B"], ["h6"], alpha=0.5, beta=2.0),
        make("Softmax", ["h6"], ["y"], axis=1),
    ]
    weights = {"w1": weight(4, 3, 3, 3), "w2": weight(4, 1, 3, 3), "w3": weight(4, 4, 1, 1), "W": weight(4, 5)}
    return nodes, weights | {"B": weight(1, 5)} | stored


def keras(opset: int) -> Parts:
    """The image turned to NHWC and back around every layer, constants in nodes, Flatten, MatMul and Add, Identity."""
    names, options, stored = axes(opset, 13, 2, 3)
    nodes = [
        make("Transpose", ["x"], ["nhwc"], perm=[0, 2, 3, 1]),
        make("Transpose", ["nhwc"], ["nchw"], perm=[0, 3, 1, 2]),
        make("Conv", ["nchw", "w"], ["h1"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
        make("Transpose", ["h1"], ["h2"], perm=[0, 2, 3, 1]),
        constant("bias", weight(4)),
        make("Add", ["h2", "bias"], ["h3"]),
        make("LeakyRelu", ["h3"], ["h4"], alpha=0.2),
        make("Flatten", ["h4"], ["h5"]),
        make("Identity", ["W"], ["W1"]),
        make("MatMul", ["h5", "W1"], ["h6"]),
        make("Add", ["h6", "B"], ["h7"]),
        make("Unsqueeze", ["h7", *names], ["h8"], **options),
        make("BatchNormalization", ["h8", "s", "c", "m", "v"], ["h9"]),
        make("Squeeze", ["h9", *names], ["h10"], **options),
        make("Softmax", ["h10"], ["y"], **({"axis": 1} if opset < 13 else {})),
    ]
    return nodes, {"w": weight(4, 3, 3, 3), "W": weight(64, 5), "B": weight(5), **norm(5)} | stored


def upsampling(opset: int) -> Parts:
    """Nearest neighbours, scales as an attribute, a 1-D input and an input of an operator that came for it; log softmax
    over all axes from the first on, where that was its meaning."""
    if opset < 9:
        up = make("Upsample", ["h1"], ["h2"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    elif opset < 11:
        up = make("Upsample", ["h1", "scales"], ["h2"], mode="nearest")
    else:
        up = make("Resize", ["h1", "roi", "scales"], ["h2"], mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip
    nodes = [
        make("Conv", ["x", "w"], ["h1"], kernel_shape=[3, 3], strides=[3, 3]),
        up,
        make("PRelu", ["h2", "slope"], ["h3"]),
        make("Concat", ["h3", "h2"], ["h4"], axis=1),
        make("GlobalMaxPool", ["h4"], ["h5"]),
        make("Flatten", ["h5"], ["h6"], axis=1),
        make("LogSoftmax", ["h6"], ["y"], axis=1),
    ]
    stored = {} if opset < 9 else {"scales": np.array([1, 1, 2, 2], np.float32)}
    stored |= {} if opset < 11 else {"roi": np.zeros(0, np.float32)}
    return nodes, {"w": weight(3, 3, 3, 3), "slope": weight(3, 1, 1) + 0.7} | stored


def written(path: Path, parts: Parts, opset: int, batch: int | str) -> Path:
    """The file, before opset 9 in the manner of the time: IR version 3, where weights are inputs too."""
    nodes, weights = parts
    by_hand(path, nodes, weights, inputs=[("x", 1, [batch, 3, 8, 8])], outputs=[("y", 1, [batch, "K"])], opset=opset)
    proto = onnx.load(path)
    proto.ir_version = 3 if opset < 9 else 8
    if opset < 9:
        kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in weights.items()}
        values = (helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in weights.items())
        proto.graph.input.extend(values)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("build", [caffe, mobile, keras, upsampling])
def test_a_file_of_its_time(tmp_path, build: Callable[[int], Parts], opset: int):
    path = written(tmp_path / "net.onnx", build(opset), opset, batch="N" if opset % 2 else 1)
    check_round_trip(path, tmp_path / "out.onnx")
    if opset not in (OPSETS[0], OPSETS[-1]):
        return  # what is bounded is the same graph
    net, images = bound(path, BiasField(0, 0.1)), torch.rand(2, 3, 8, 8)
    lower, upper = net.bounds(images, torch.eye(net.classes).expand(2, -1, -1))
    for t in torch.linspace(-1, 1, 9):
        logits = net((net.center + t * net.radius).expand(2, -1), images)
        assert bool(((lower - 1e-5 <= logits) & (logits <= upper + 1e-5)).all())
