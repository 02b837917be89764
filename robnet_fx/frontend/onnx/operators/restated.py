"""Nodes said the way onnx2torch's converters can read them, and nodes that would mix the images of a batch refused.

A node is restated in place: constants become the attributes they were in an older opset (onnx2torch reads such
inputs while it runs, which torch.export cannot follow), automatic padding becomes numbers, negative axes positive.
`node.opset` then names the opset whose words these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from robnet_fx.frontend.onnx.operators.node import Known, Node, Refused

Restatement = Callable[[Node], None]
RESTATED: dict[str, Restatement] = {}
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def restates(*names: str) -> Callable[[Restatement], Restatement]:
    """Register how nodes of one or more operator types are restated."""

    def register(rewrite: Restatement) -> Restatement:
        RESTATED.update(dict.fromkeys(names, rewrite))
        return rewrite

    return register


def _say(node: Node, op: str, opset: int, **attributes: object) -> None:
    """Make it a node of one input, with everything else in attributes."""
    node.op, node.opset, node.inputs = op, opset, node.inputs[:1]
    node.attributes.update(attributes)


@restates("Conv", "MaxPool", "AveragePool")
def window(node: Node) -> None:
    """Padding that keeps the size, in numbers."""
    kernel, auto = node.attribute("kernel_shape") or node.shape(1)[2:], node.attribute("auto_pad")
    strides, dilations = node.attribute("strides", [1] * len(kernel)), node.attribute("dilations", [1] * len(kernel))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        windows = zip(node.shape()[2:], kernel, strides, dilations, strict=True)
        total = [max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size) for size, k, s, d in windows]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        node.attributes |= {"auto_pad": "NOTSET", "pads": less + more if auto == "SAME_UPPER" else more + less}


@restates("Gemm")
def gemm(node: Node) -> None:
    """A linear layer where the numbers of the file are its parameters; a product with the constants beside it if not.

    onnx2torch transposes and scales the constants of its linear layers. Transposed here, it is known where each
    element is stored; scaled, they would not be the file's.
    """
    weight, bias, right = node.inputs[1], node.inputs[2] if node.has(2) else None, node.attribute("transB", 0)
    scaled = node.attribute("alpha", 1.0) != 1.0 or (bias is not None and node.attribute("beta", 1.0) != 1.0)
    node.unfolded = scaled or bool(node.attribute("transA", 0))
    if isinstance(bias, Known) and bias.base.size == node.shape(1)[0 if right else 1]:
        node.inputs[2] = bias = bias.flat()
    if isinstance(weight, Known) and not right and (bias is None or len(node.shape(2)) == 1):
        node.inputs[1], node.attributes["transB"] = weight.moved(np.transpose), 1


@restates("BatchNormalization")
def batch_norm(node: Node) -> None:
    """With the stored statistics; old files name outputs that only training has."""
    if node.attribute("training_mode", 0):
        raise Refused("batch normalisation exported in training mode; export the model after model.eval()")
    node.outputs = 1


@restates("Softmax", "LogSoftmax")
def softmax(node: Node) -> None:
    """Over one axis from opset 13 on; before, over all axes from `axis` on, which for the last axis is the same."""
    axis, last = node.axis(default=-1 if node.opset >= 13 else 1), len(node.shape()) - 1
    node.not_the_batch(*([axis] if node.opset >= 13 else range(axis, last + 1)))
    node.attributes["axis"] = axis
    node.opset = max(node.opset, 13) if axis == last else node.opset


@restates(*(f"Reduce{kind}" for kind in _REDUCTIONS))
def reduction(node: Node) -> None:
    """Axes as an attribute, in order; without axes, all of them or (if asked) none."""
    axes, rank = node.integers(1, "axes"), len(node.shape())
    if node.attributes.pop("noop_with_empty_axes", 0) and not axes:
        return _say(node, "Identity", node.opset)
    axes = sorted(a % rank for a in axes or range(rank))
    node.not_the_batch(*axes)
    return _say(node, node.op, 11, axes=axes)


@restates("GlobalMaxPool")
def global_max_pool(node: Node) -> None:
    """onnx2torch has the maximum over axes."""
    _say(node, "ReduceMax", 11, axes=list(range(2, len(node.shape()))))


@restates("Squeeze")
def squeeze(node: Node) -> None:
    """The named axes, or every axis of size 1 but the batch."""
    axes, shape, batch = node.integers(1, "axes"), node.shape(), node.batch_axis()
    axes = [a % len(shape) for a in axes] if axes else [i for i, n in enumerate(shape) if n == 1 and i != batch]
    _say(node, "Squeeze" if axes else "Identity", 11, axes=axes)


@restates("Unsqueeze")
def unsqueeze(node: Node) -> None:
    """Axes are counted in the result."""
    axes = node.integers(1, "axes") or []
    _say(node, "Unsqueeze", 11, axes=[a % (len(node.shape()) + len(axes)) for a in axes])


@restates("Split")
def split(node: Node) -> None:
    """The sizes given, or even ones for as many parts as there are outputs (the last one may be smaller)."""
    axis, sizes = node.axis(default=0), node.integers(1, "split")
    full, parts = node.shape()[axis], node.attributes.pop("num_outputs", node.outputs)
    size = math.ceil(full / parts)
    _say(node, "Split", 11, axis=axis, split=sizes or [min(size, full - start) for start in range(0, full, size)])


@restates("Clip")
def clip(node: Node) -> None:
    """Bounds as attributes: onnx2torch reads one bound without the other only there."""
    _say(node, "Clip", 6, min=node.number(1, "min"), max=node.number(2, "max"))


@restates("Tile")
def tile(node: Node) -> None:
    """The number of copies along each axis, in the call itself."""
    node.inputs[1] = node.integers(1, "repeats")


@restates("Add", "Mul", "Sub", "Div", "Pow", "Sum", "Max", "Min")
def arithmetic(node: Node) -> None:
    """Constants of one element as plain numbers, last where the order is free: torch.add takes a tensor first."""
    node.numbers_for_scalars()
    if node.op not in ("Sub", "Div", "Pow"):
        node.inputs.sort(key=lambda value: isinstance(value, float))
