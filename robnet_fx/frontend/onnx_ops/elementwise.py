"""ONNX operators that treat elements one by one, softmax, and reductions over axes."""

from __future__ import annotations

import functools
import operator
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from robnet_fx.frontend.onnx_ops import Function, Known, Node, Refused, op, plain

plain(
    {
        "Abs": torch.abs,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "HardSwish": F.hardswish,
        "Log": torch.log,
        "Mish": F.mish,
        "Neg": torch.neg,
        "Reciprocal": torch.reciprocal,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Sqrt": torch.sqrt,
        "Tanh": torch.tanh,
        "Where": torch.where,
    }
)


@op("Add", "Mul", "Div", "Pow", "Sum")
def arithmetic(node: Node) -> Function:
    """`Sum` adds any number of inputs."""
    node.numbers_for_scalars()
    functions = {"Mul": operator.mul, "Div": operator.truediv, "Pow": operator.pow}
    function = functions.get(node.op, operator.add)
    return lambda *inputs: functools.reduce(function, inputs)


@op("Sub")
def subtraction(node: Node) -> Function:
    """A number less a tensor is written as an addition: one spelling fewer for what follows."""
    node.numbers_for_scalars()
    return lambda a, b: a - b if isinstance(a, Tensor) else -b + a


@op("Max", "Min")
def extremum(node: Node) -> Function:
    """The largest or smallest of any number of inputs; against one number it is a clamp."""
    node.numbers_for_scalars()
    tensors, bound = (torch.maximum, "min") if node.op == "Max" else (torch.minimum, "max")

    def pair(a: Any, b: Any) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return tensors(a, b)
        tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
        return torch.clamp(tensor, **{bound: number})

    return lambda *inputs: functools.reduce(pair, inputs)


@op("Clip")
def clip(node: Node) -> Function:
    """Bounds are attributes before opset 11 and inputs from it on."""
    lower, upper = node.number(1, "min"), node.number(2, "max")
    return lambda x, *_: x if lower is None and upper is None else torch.clamp(x, lower, upper)


@op("LeakyRelu")
def leaky_relu(node: Node) -> Function:
    """The slope of the negative side is `alpha`."""
    slope = node.attribute("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@op("PRelu")
def prelu(node: Node) -> Function:
    """One slope for all, or one for each channel."""
    shape, rank = node.shape(1), len(node.shape(0))
    size = max(shape, default=1)
    per_channel = len(shape) == rank - 1 and shape[:1] == (size,) and all(n == 1 for n in shape[1:])
    slope = node.inputs[1]
    if (size == 1 or per_channel) and isinstance(slope, Known):
        node.replace(1, slope.base.reshape(-1), slope.stored)
        return F.prelu
    return lambda x, slope: torch.relu(x) - slope * torch.relu(-x)


@op("ThresholdedRelu")
def thresholded_relu(node: Node) -> Function:
    """`x` above `alpha`, 0 below."""
    threshold = node.attribute("alpha", 1.0)
    return lambda x: F.threshold(x, threshold, 0.0)


@op("Elu", "Celu")
def elu(node: Node) -> Function:
    """Exponential on the negative side."""
    alpha, function = node.attribute("alpha", 1.0), F.elu if node.op == "Elu" else F.celu
    return lambda x: function(x, alpha)


@op("Selu")
def selu(node: Node) -> Function:
    """`gamma * elu(x, alpha)`; PyTorch knows one pair of constants."""
    alpha, gamma = node.attribute("alpha", 1.67326), node.attribute("gamma", 1.0507)
    if abs(alpha - 1.67326324) < 1e-5 and abs(gamma - 1.05070098) < 1e-5:
        return F.selu
    return lambda x: gamma * F.elu(x, alpha)


@op("HardSigmoid")
def hard_sigmoid(node: Node) -> Function:
    """`clamp(alpha x + beta, 0, 1)`."""
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@op("Gelu")
def gelu(node: Node) -> Function:
    """Exact, or its tanh approximation."""
    approximate = node.attribute("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@op("Swish")
def swish(node: Node) -> Function:
    """`x * sigmoid(alpha x)`."""
    alpha = node.attribute("alpha", 1.0)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@op("Cast")
def cast(node: Node) -> Function:
    """Between floating-point types; anything else leaves the numbers a network can be bounded over."""
    to = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.DOUBLE: torch.float64}.get(node.attribute("to"))
    if to is None:
        raise Refused(f"a cast to {onnx.TensorProto.DataType.Name(node.attribute('to'))}")
    return lambda x: x.to(to)


@op("Softmax", "LogSoftmax")
def softmax(node: Node) -> Function:
    """Over one axis from opset 13 on; before, over all axes from `axis` on."""
    function = F.softmax if node.op == "Softmax" else F.log_softmax
    axis = node.axis(default=-1 if node.opset >= 13 else 1)
    node.not_the_batch(axis)
    if node.opset >= 13 or axis == len(node.shape()) - 1:
        return lambda x: function(x, dim=axis)
    return lambda x: function(x.flatten(axis), dim=axis).reshape_as(x)


def _l2(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return x.square().sum(dim, keepdim).sqrt()


_REDUCTIONS: dict[str, Function] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": _l2,
    "ReduceLogSumExp": torch.logsumexp,
}


@op(*_REDUCTIONS)
def reduction(node: Node) -> Function:
    """Axes are an attribute in old opsets and an input in new ones; without axes, all of them or (if asked) none."""
    function, keep = _REDUCTIONS[node.op], bool(node.attribute("keepdims", 1))
    axes = node.integers(1, "axes")
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return lambda x, *_: x
    rank = len(node.shape())
    axes = [a % rank for a in axes] if axes else list(range(rank))
    for axis in axes:
        node.not_the_batch(axis)
    return lambda x, *_: function(x, dim=axes, keepdim=keep)
