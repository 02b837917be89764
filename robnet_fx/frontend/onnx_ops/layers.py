"""ONNX operators with weights, normalisations and pooling."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robnet_fx.frontend.onnx_ops import Function, Node, Refused, op, plain

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

plain({"MatMul": torch.matmul})


def _window(node: Node, kernel: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, padding before and padding after, one entry for each spatial axis."""
    rank = len(kernel)
    if rank not in _CONV or len(node.shape()) != rank + 2:
        raise Refused(f"{rank} spatial axes over a value of shape {node.shape()}")
    strides, dilations = node.attribute("strides", [1] * rank), node.attribute("dilations", [1] * rank)
    pads, auto = node.attribute("pads", [0] * 2 * rank), node.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = []
        for size, k, s, d in zip(node.shape()[2:], kernel, strides, dilations, strict=True):
            total.append(max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size))
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if auto == "SAME_UPPER" else more + less
    elif auto == "VALID":
        pads = [0] * 2 * rank
    return list(strides), list(dilations), list(pads[:rank]), list(pads[rank:])


def _torch_pads(before: list[int], after: list[int]) -> list[int]:
    """The order of `F.pad`: last axis first, before and after interleaved."""
    return list(itertools.chain(*reversed(list(zip(before, after, strict=True)))))


@op("Conv")
def convolution(node: Node) -> Function:
    """Uneven padding becomes a pad of its own."""
    strides, dilations, before, after = _window(node, list(node.shape(1)[2:]))
    function, groups = _CONV[len(strides)], node.attribute("group", 1)
    if before == after:
        return lambda x, w, b=None: function(x, w, b, strides, before, dilations, groups)
    pads = _torch_pads(before, after)
    return lambda x, w, b=None: function(F.pad(x, pads), w, b, strides, 0, dilations, groups)


@op("ConvTranspose")
def transposed_convolution(node: Node) -> Function:
    """Even padding and no explicit output shape."""
    if "output_shape" in node.attributes or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Refused("an output shape or automatic padding in a transposed convolution")
    strides, dilations, before, after = _window(node, list(node.shape(1)[2:]))
    if before != after:
        raise Refused("uneven padding in a transposed convolution")
    function, groups = _CONV_TRANSPOSE[len(strides)], node.attribute("group", 1)
    extra = node.attribute("output_padding", [0] * len(strides))
    return lambda x, w, b=None: function(x, w, b, strides, before, extra, groups, dilations)


@op("Gemm")
def gemm(node: Node) -> Function:
    """`alpha A B + beta C`; with the usual attributes it is a linear layer or one addmm."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    left, right = node.attribute("transA", 0), node.attribute("transB", 0)
    if (alpha, left) == (1.0, 0) and (beta == 1.0 or not node.has(2)):
        if right and (not node.has(2) or node.shape(2) == node.shape(1)[:1]):
            return lambda a, b, c=None: F.linear(a, b, c)
        if not right and node.has(2) and len(node.shape(2)) <= 2:
            return lambda a, b, c: torch.addmm(c, a, b)

    def general(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1.0 else product * alpha
        return product if c is None else product + (c if beta == 1.0 else c * beta)

    return general


@op("BatchNormalization")
def batch_norm(node: Node) -> Function:
    """Always with the stored statistics: a converted network runs in inference form."""
    if node.attribute("training_mode", 0):
        raise Refused("batch normalisation exported in training mode; export the model after model.eval()")
    epsilon = node.attribute("epsilon", 1e-5)
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)


@op("InstanceNormalization")
def instance_norm(node: Node) -> Function:
    """Statistics of each sample and channel."""
    epsilon = node.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@op("LayerNormalization")
def layer_norm(node: Node) -> Function:
    """Over the axes from `axis` on."""
    epsilon, shape = node.attribute("epsilon", 1e-5), node.shape()[node.axis(default=-1) :]
    if node.shape(1) != shape or (node.has(2) and node.shape(2) != shape):
        raise Refused(f"a layer norm whose scale is not of the normalised shape {shape}")
    return lambda x, scale, bias=None: F.layer_norm(x, shape, scale, bias, epsilon)


@op("GroupNormalization")
def group_norm(node: Node) -> Function:
    """Scale and bias are per group in opset 18 and per channel from 21 on."""
    epsilon, groups = node.attribute("epsilon", 1e-5), node.attribute("num_groups")
    repeats = node.shape()[1] // groups if node.opset < 21 else 1

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if repeats > 1:
            scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


@op("LRN")
def local_response_norm(node: Node) -> Function:
    """Across neighbouring channels."""
    size, k = node.attribute("size"), node.attribute("bias", 1.0)
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    return lambda x: F.local_response_norm(x, size, alpha, beta, k)


@op("MaxPool")
def max_pool(node: Node) -> Function:
    """Padding that PyTorch's pooling has no word for becomes a pad with minus infinity."""
    kernel = node.attribute("kernel_shape")
    strides, dilations, before, after = _window(node, kernel)
    function, ceil = _MAX_POOL[len(kernel)], bool(node.attribute("ceil_mode", 0))
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return lambda x: function(x, kernel, strides, before, dilations, ceil)
    pads = _torch_pads(before, after)
    return lambda x: function(F.pad(x, pads, value=-math.inf), kernel, strides, 0, dilations, ceil)


@op("AveragePool")
def average_pool(node: Node) -> Function:
    """Uneven padding can only be counted in."""
    kernel, count_padding = node.attribute("kernel_shape"), bool(node.attribute("count_include_pad", 0))
    strides, dilations, before, after = _window(node, kernel)
    function, ceil = _AVERAGE_POOL[len(kernel)], bool(node.attribute("ceil_mode", 0))
    if any(d != 1 for d in dilations):
        raise Refused("dilated average pooling")
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return lambda x: function(x, kernel, strides, before, ceil, count_padding)
    if not count_padding or ceil:
        raise Refused("average pooling with uneven padding that is not counted")
    pads = _torch_pads(before, after)
    return lambda x: function(F.pad(x, pads), kernel, strides)


@op("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node) -> Function:
    """Over all spatial axes, which stay with size 1."""
    axes = list(range(2, len(node.shape())))
    function = torch.mean if node.op == "GlobalAveragePool" else torch.amax
    return lambda x: function(x, dim=axes, keepdim=True)
