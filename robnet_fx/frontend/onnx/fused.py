"""What onnxruntime fuses when it optimises a file, in ONNX's own operators again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import helper

Unfuse = Callable[[onnx.NodeProto, dict[str, Any], dict[str, int]], Iterator[onnx.NodeProto]]
_DOMAIN = "com.microsoft"
_UNFUSED: dict[str, Unfuse] = {}
_PARAMETERS = {  # of an activation, in the order of `activation_params`
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
    "Clip": ("min", "max"),
}


def unfuse(model: onnx.ModelProto) -> None:
    """Write fused nodes out, in place and under their own names; those that are not known stay as they are."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        written = _UNFUSED.get(node.op_type) if node.domain == _DOMAIN else None
        if written is None:
            nodes.append(node)
            continue
        for part in written(node, {a.name: helper.get_attribute_value(a) for a in node.attribute}, ranks):
            part.name = node.name
            nodes.append(part)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _unfuses(*names: str) -> Callable[[Unfuse], Unfuse]:
    def enter(written: Unfuse) -> Unfuse:
        _UNFUSED.update(dict.fromkeys(names, written))
        return written

    return enter


@_unfuses("FusedConv", "FusedGemm")
def _fused(node: onnx.NodeProto, attributes: dict[str, Any], _: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """A convolution (with a sum behind it, where it has a fourth input) or a linear layer, and then its activation."""
    name = attributes.pop("activation", b"").decode()
    values = attributes.pop("activation_params", [])
    given = {key.removeprefix("activation_"): attributes.pop(key) for key in [*attributes] if "activation_" in key}
    activation = dict(zip(_PARAMETERS.get(name, ()), values, strict=False)) | given
    summed = node.op_type == "FusedConv" and len(node.input) > 3 and node.input[3]
    steps = [(node.op_type.removeprefix("Fused"), [*node.input[:3]], attributes)]
    steps += [("Add", ["", node.input[3]], {})] if summed else []
    steps += [(name, [""], activation)] if name else []
    yield from _chain(node.output[0], steps)


@_unfuses("FusedMatMul", "TransposeMatMul")
def _fused_matmul(node: onnx.NodeProto, attributes: dict[str, Any], ranks: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """A product, of which either side may be transposed in its last two axes (a vector has none), and scaled."""
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0):
        yield node
        return
    sides = []
    for side, key in zip(node.input, ("transA", "transB"), strict=True):
        turned = f"{node.output[0]}/{key}" if attributes.get(key, 0) and ranks.get(side) != 1 else side
        if turned != side and side in ranks:
            order = [*range(ranks[side] - 2), ranks[side] - 1, ranks[side] - 2]
            yield helper.make_node("Transpose", [side], [turned], perm=order)
        elif turned != side:
            yield helper.make_node("Einsum", [side], [turned], equation="...ij->...ji")
        sides.append(turned)
    yield from _scaled(node, [("MatMul", sides, {})], attributes.get("alpha", 1.0))


def _scaled(node: onnx.NodeProto, steps: list[Any], alpha: float) -> Iterator[onnx.NodeProto]:
    if alpha != 1.0:
        scale = f"{node.output[0]}/alpha"
        yield helper.make_node("Constant", [], [scale], value_float=alpha)
        steps = [*steps, ("Mul", ["", scale], {})]
    yield from _chain(node.output[0], steps)


@_unfuses("Gelu", "BiasGelu", "FastGelu")
def _gelu(node: onnx.NodeProto, attributes: dict[str, Any], _: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """With a bias in front, where there is one."""
    form = {"approximate": "tanh"} if node.op_type == "FastGelu" else {}
    biased = len(node.input) > 1 and node.input[1]
    steps: list[Any] = [("Add", list(node.input), {}), ("Gelu", [""], form)] if biased else []
    yield from _chain(node.output[0], steps or [("Gelu", [node.input[0]], form)])


@_unfuses("QuickGelu")
def _quick_gelu(node: onnx.NodeProto, attributes: dict[str, Any], _: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """`x sigmoid(alpha x)`."""
    yield helper.make_node("Swish", node.input, node.output, alpha=attributes.get("alpha", 1.702))


@_unfuses("SkipLayerNormalization")
def _skip_layer_norm(node: onnx.NodeProto, attributes: dict[str, Any], _: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """The sum of two values (and a bias), normalised; the fourth output is the sum itself."""
    skipped = [name for name in (*node.input[:2], *node.input[4:5]) if name]
    total = node.output[3] if len(node.output) > 3 and node.output[3] else f"{node.output[0]}/sum"
    yield from _chain(total, [("Add", skipped[:2], {}), *(("Add", ["", bias], {}) for bias in skipped[2:])])
    scales = [total, *node.input[2:4]]
    yield helper.make_node("LayerNormalization", scales, node.output[:1], epsilon=attributes.get("epsilon", 1e-12))


def _chain(output: str, steps: list[Any]) -> Iterator[onnx.NodeProto]:
    """One operator behind the other; an empty input stands for what the one before gave, the last gives `output`."""
    before = ""
    for place, (op, inputs, attributes) in enumerate(steps):
        after = output if place == len(steps) - 1 else f"{output}/{place}"
        yield helper.make_node(op, [name or before for name in inputs], [after], **attributes)
        before = after
