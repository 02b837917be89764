"""ONNX files for tests: small networks through both PyTorch exporters, and graphs made by hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

SIZE = (3, 8, 8)
CLASSES = 5


class Residual(nn.Module):
    """A residual add, adaptive pooling and `view(x.size(0), -1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.second(x))
        x = self.pool(x)
        return self.last(x.view(x.size(0), -1))


def convnet() -> nn.Sequential:
    """Convolution, batch norm after a ReLU (so that no exporter folds it away), max pooling, dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.Dropout(),
        nn.ReLU(),
        nn.Linear(8, CLASSES),
    )


def settled(net: nn.Module) -> nn.Module:
    """The network in eval mode, its batch norms with statistics and weights that are not 0 and 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return net.eval()


def exported(
    net: nn.Module, path: Path, *, dynamo: bool, dynamic: bool, opset: int, size: Sequence[int] = SIZE
) -> Path:
    """`net` as an ONNX file by one of PyTorch's exporters, input `pixels`, output `scores`."""
    images = torch.rand(2 if dynamic else 1, *size)
    if not dynamic:
        shapes: dict = {}
    elif dynamo:
        shapes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    else:
        shapes = {"dynamic_axes": {"pixels": {0: "n"}, "scores": {0: "n"}}}
    names = {"input_names": ["pixels"], "output_names": ["scores"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (images,), str(path), dynamo=dynamo, opset_version=opset, verbose=False, **names, **shapes
        )
    return path


def by_hand(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    inputs: Sequence[tuple] = (("x", 1, ["N", 4]),),
    outputs: Sequence[tuple] = (("y", 1, None),),
    opset: int = 17,
) -> Path:
    """A file from nodes; inputs and outputs are (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    helper.set_model_props(model, {"labels": "a,b,c"})
    onnx.save(model, path)
    return path


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """A float32 array in ± 1/2."""
    return (np.random.default_rng(seed).random(shape) - 0.5).astype(np.float32)
