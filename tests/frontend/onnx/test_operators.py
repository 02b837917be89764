"""Each ONNX operator, in its forms and opsets: loading compares with onnxruntime, so to load is to be right."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.onnx.load import load_onnx
from tests.onnx_files import by_hand, exported, weight

C, H, W = 4, 6, 8
N = C * H * W
make = helper.make_node


class Wrapped(nn.Module):
    """An image, one operation, and everything it left in a row."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x).flatten(1)


def windows(x):
    """Batch and windows on one axis for a while, as in Swin."""
    parts = x.view(x.size(0), C, 2, H // 2, W).permute(0, 2, 1, 3, 4).reshape(-1, C, H // 2, W)
    return parts.mean(3).view(x.size(0), -1)


TORCH = {
    "elu": nn.ELU(0.7),
    "celu": nn.CELU(0.7),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU("tanh"),
    "leaky relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(C),
    "prelu one": nn.PReLU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "relu6": nn.ReLU6(),
    "softplus": nn.Softplus(),
    "tanh": nn.Tanh(),
    "log softmax": nn.LogSoftmax(1),
    "softmax": nn.Softmax(-1),
    "batch norm": nn.BatchNorm2d(C).eval(),
    "layer norm": nn.LayerNorm([H, W]),
    "group norm": nn.GroupNorm(2, C),
    "instance norm": nn.InstanceNorm2d(C, affine=True),
    "conv": nn.Conv2d(C, 6, 3, stride=2, padding=1, dilation=2, groups=2),
    "conv transposed": nn.ConvTranspose2d(C, 3, 3, stride=2, padding=1, output_padding=1),
    "max pool": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average pool": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool counted": nn.AvgPool2d(2, ceil_mode=True),
    "global average": nn.AdaptiveAvgPool2d(1),
    "global max": nn.AdaptiveMaxPool2d(1),
    "reflect": nn.ReflectionPad2d((1, 2, 0, 1)),
    "replicate": nn.ReplicationPad2d(1),
    "zero pad": nn.ZeroPad2d((1, 0, 2, -1)),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "upsample nearest": nn.Upsample(scale_factor=2),
    "upsample bilinear": nn.Upsample(size=(9, 12), mode="bilinear"),
    "upsample corners": nn.Upsample(size=(9, 12), mode="bilinear", align_corners=True),
    "mean": lambda x: x.mean((2, 3)),
    "sum and square": lambda x: x.square().sum(1, keepdim=True),
    "amax": lambda x: x.amax(2),
    "norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "logsumexp": lambda x: x.logsumexp(1),
    "one minus": lambda x: 1 - x,
    "power and root": lambda x: (x**3 + 1).sqrt() / (2 * x + 1) - 1 / (x + 1),
    "exp log erf": lambda x: x.exp().log() + x.erf() - x.abs().neg(),
    "maximum": lambda x: torch.maximum(x, x.flip(3)) + x.clamp(min=0.3),
    "minimum": lambda x: torch.minimum(x, 1 - x),
    "slice": lambda x: x[:, 1:3, ::2, -5:],
    "select": lambda x: x[:, 1],
    "pick": lambda x: x[:, [2, 0, 3, 3]],
    "split": lambda x: torch.cat([part * i for i, part in enumerate(x.split([1, 3], 1))], 1),
    "chunk": lambda x: torch.stack(x.chunk(2, 1), 1),
    "transpose": lambda x: x.transpose(1, 3).reshape(x.shape[0], W // 2, -1),
    "shuffle": lambda x: x.view(x.size(0), 2, C // 2, H, W).transpose(1, 2).contiguous().view(x.size(0), C, H, W),
    "windows": windows,
    "unsqueeze": lambda x: x.unsqueeze(2).squeeze(2),
    "tile": lambda x: x.repeat(1, 2, 1, 3),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "where": lambda x: torch.where(torch.arange(W) % 2 == 0, x, -x),
    "channel constants": lambda x: x * torch.arange(1.0, C + 1).view(C, 1, 1) + torch.ones(1, C, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", TORCH)
def test_operations_as_pytorch_writes_them(tmp_path, name, dynamic):
    net = Wrapped(TORCH[name]).eval()
    path = exported(net, tmp_path / "net.onnx", dynamo=False, dynamic=dynamic, opset=20, size=(C, H, W))
    model, images = load_onnx(path), torch.rand(3, C, H, W)
    torch.testing.assert_close(model(images), net(images), rtol=1e-4, atol=1e-4)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))


@pytest.mark.parametrize("size", [(3, 12), (3, 6, 6, 4)], ids=["1-D", "3-D"])
def test_other_dimensions(tmp_path, size):
    rank = len(size) - 1
    conv, pool = {1: (nn.Conv1d, nn.MaxPool1d), 3: (nn.Conv3d, nn.AvgPool3d)}[rank]
    net = nn.Sequential(conv(3, 4, 3, padding=1), nn.ReLU(), pool(2), nn.Flatten(), nn.LazyLinear(5))
    net(torch.rand(1, *size))
    model = load_onnx(exported(net.eval(), tmp_path / "net.onnx", dynamo=False, dynamic=False, opset=17, size=size))
    images = torch.rand(4, *size)
    torch.testing.assert_close(model(images), net(images), rtol=1e-4, atol=1e-5)


IMAGE = {"inputs": [("x", 1, ["N", C, H, W])]}
FLAT = [make("Flatten", ["h"], ["y"])]


def node(kind, *inputs, **attributes):
    return [make(kind, ["x", *inputs], ["h"], **attributes), *FLAT]


def gemm(*bias, **attributes):
    return [make("Flatten", ["x"], ["f"]), make("Gemm", ["f", "w", *bias], ["y"], **attributes)]


def ints(*values):
    return np.array(values, np.int64)


BY_HAND = {  # nodes, constants, opset
    "auto pad upper": (node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), {"w": weight(3, C, 3, 3)}, 9),
    "auto pad lower": (node("Conv", "w", auto_pad="SAME_LOWER"), {"w": weight(3, C, 2, 2)}, 13),
    "uneven pads": (node("Conv", "w", pads=[0, 1, 1, 0]), {"w": weight(3, C, 3, 3)}, 11),
    "uneven max pool": (node("MaxPool", kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2]), {}, 12),
    "uneven average": (node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1), {}, 11),
    "wide max pool": (node("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2], strides=[2, 2]), {}, 12),
    "global max": (node("GlobalMaxPool"), {}, 9),
    "lrn": (node("LRN", size=3, alpha=0.1), {}, 13),
    "clip attributes": (node("Clip", min=0.2, max=0.6), {}, 6),
    "clip one side": (node("Clip", "", "top"), {"top": np.array(0.6, np.float32)}, 13),
    "pad attributes": (node("Pad", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5), {}, 2 + 7),
    "pad axes": (node("Pad", "p", "", "a"), {"p": ints(1, 2), "a": ints(-1)}, 18),
    "slice attributes": (node("Slice", starts=[1], ends=[2**31 - 1], axes=[2]), {}, 9),
    "slice backwards": (
        node("Slice", "s", "e", "a", "t"),
        {"s": ints(-1), "e": ints(-(2**31)), "a": ints(3), "t": ints(-3)},
        13,
    ),
    "running sum": (node("CumSum", "a"), {"a": np.array(2, np.int64)}, 14),
    "running sum of those before, from the end": (node("CumSum", "a", exclusive=1, reverse=1), {"a": ints(-1)}, 11),
    "uneven average, padding not counted": (
        node("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 1]), {}, 11
    ),
    "squeeze": ([make("GlobalAveragePool", ["x"], ["g"]), make("Squeeze", ["g"], ["y"], axes=[2, 3])], {}, 11),
    "softmax of old": (node("Softmax", axis=1), {}, 11),
    "softmax of new": (node("Softmax", axis=1), {}, 13),
    "reduce attribute": (node("ReduceMean", axes=[2, 3], keepdims=0), {}, 13),
    "reduce input": (node("ReduceMean", "a"), {"a": ints(-1)}, 18),
    "gather matrix": (node("Gather", "i", axis=3), {"i": ints(0, -1, 5, 2).reshape(2, 2)}, 13),
    "gather nd": (
        [
            make("Transpose", ["x"], ["t"], perm=[2, 3, 0, 1]),
            make("GatherND", ["t", "i"], ["g"]),
            make("Transpose", ["g"], ["h"], perm=[1, 0, 2]),
            *FLAT,
        ],
        {"i": ints(0, 1, 5, -1, 2, 2).reshape(3, 2)},
        13,
    ),
    "prelu of odd shape": (node("PRelu", "w"), {"w": weight(H, 1)}, 9),
    "thresholded relu": (node("ThresholdedRelu", alpha=0.5), {}, 10),
    "hard sigmoid": (node("HardSigmoid", alpha=0.3, beta=0.4), {}, 6),
    "selu of its own": (node("Selu", alpha=1.5, gamma=1.1), {}, 6),
    "from a number": (
        [make("Sub", ["c", "x"], ["d"]), make("Div", ["c", "d"], ["h"]), *FLAT],
        {"c": np.array(1.5, np.float32)},
        13,
    ),
    "softsign": (node("Softsign"), {}, 9),
    "sum of three": (node("Sum", "x", "w"), {"w": weight(C, 1, 1)}, 13),
    "max with zero": (node("Max", "zero"), {"zero": np.zeros((), np.float32)}, 13),
    "from depth": (node("DepthToSpace", blocksize=2), {}, 13),
    "to depth": (node("SpaceToDepth", blocksize=2), {}, 13),
    "upsample": (node("Upsample", "s"), {"s": np.array([1, 1, 2, 2], np.float32)}, 9),
    "batch norm of old": (
        node("BatchNormalization", "s", "c", "m", "v"),
        {"s": weight(C), "c": weight(C), "m": weight(C), "v": weight(C) + 1},
        7,
    ),
    "reduce, no axes": (node("ReduceSum", noop_with_empty_axes=1), {}, 13),
    "sum of squares": (node("ReduceSumSquare", "a", keepdims=0), {"a": ints(-1, -2)}, 18),
    "largest of two axes": (node("ReduceMax", "a", keepdims=0), {"a": ints(-1, -2)}, 18),
    "group norm": (node("GroupNormalization", "w", "b", num_groups=2), {"w": weight(C), "b": weight(C)}, 21),
    "group norm of old": (node("GroupNormalization", "w", "b", num_groups=2), {"w": weight(2), "b": weight(2)}, 18),
    "times itself": (node("Mul", "x"), {}, 13),
    "flatten elsewhere": (
        [make("Flatten", ["x"], ["f"], axis=2), make("Reshape", ["f", "s"], ["y"])],
        {"s": ints(-1, C * H * W)},
        13,
    ),
    "gemm": (gemm("b"), {"w": weight(N, 3), "b": weight(3)}, 11),
    "gemm, no bias": (gemm(), {"w": weight(N, 3)}, 13),
    "gemm, scaled": (gemm("b", alpha=0.5, beta=2.0, transB=1), {"w": weight(3, N), "b": weight(1, 3)}, 11),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_operators_by_hand(tmp_path, name):
    nodes, constants, opset = BY_HAND[name]
    outputs = [(nodes[-1].output[0], 1, None)]
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, constants, opset=opset, outputs=outputs, **IMAGE))
    images = torch.rand(2, *model.input_shape)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        (node("Slice", "s", "e"), {"s": ints(1), "e": ints(3)}, "along the batch"),
        (node("ReduceSum", "a"), {"a": ints(0)}, "along the batch"),
        (node("CumSum", "a"), {"a": ints(0)}, "along the batch"),
        (node("Cast", to=7), {}, "a cast to INT64"),
    ],
    ids=["slice", "sum", "running sum", "cast"],
)
def test_refusals(tmp_path, nodes, constants, reason):
    with pytest.raises(UnsupportedError, match=rf"1 node\(s\) cannot be converted to PyTorch\n.*{reason}"):
        load_onnx(by_hand(tmp_path / "net.onnx", nodes, constants, opset=13, **IMAGE))
