"""Write composite operations out in those that have a rule: normalisations, quotients, attention products.

Every relaxation is exact to first order in the width of its input, so what is written out stays as tight as what it is
made of; only products of two bounded values and functions of one value need rules of their own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.ops import matrix_product, product, within
from robnet_fx.graphs import argument, call, prune, shape_of
from robnet_fx.passes.base import graph_pass
from robnet_fx.passes.conditions import CANONICAL, Fault

aten = torch.ops.aten

Lowering = Callable[["Builder", fx.Node], fx.Node | None]
_TABLE: dict[Any, Lowering] = {}


def lowers(*targets: Any) -> Callable[[Lowering], Lowering]:
    """Enter a lowering for ATen operations. It returns the value that replaces the node, or None to leave it."""

    def enter(lowering: Lowering) -> Lowering:
        _TABLE.update(dict.fromkeys(targets, lowering))
        return lowering

    return enter


def lowerings() -> dict[Any, Lowering]:
    """A copy of the table of lowerings."""
    return dict(_TABLE)


class Builder:
    """Adds nodes in front of the one that is lowered; shapes are worked out on the fake values of the trace."""

    def __init__(self, module: fx.GraphModule, node: fx.Node, bounded: set[fx.Node]) -> None:
        self.module, self.graph, self.node, self.bounded = module, module.graph, node, bounded

    def call(self, target: Any, *args: Any) -> fx.Node:
        """`target(*args)` as a node, in the name of the lowered node's layer."""
        made = call(self.graph, target, args, place=self.node.meta)
        if any(n in self.bounded for n in made.all_input_nodes):
            self.bounded.add(made)
        return made

    def depends(self, value: Any) -> bool:
        """Whether a value depends on the image."""
        return value in self.bounded

    def value(self, constant: Any) -> Tensor:
        """A value that does not depend on the image, as it is now."""
        if not isinstance(constant, fx.Node):
            return torch.as_tensor(constant)
        if constant.op == "get_attr":
            found: Tensor = operator.attrgetter(str(constant.target))(self.module)
            return found
        args, kwargs = fx.node.map_arg((constant.args, constant.kwargs), self.value)
        return constant.target(*args, **kwargs)  # type: ignore[operator]

    def matmul(self, x: Any, y: Any) -> fx.Node:
        """`x @ y`, with the name that has a rule: whether one is bounded or both."""
        return self.call(matrix_product if self.depends(x) and self.depends(y) else aten.matmul.default, x, y)

    def times(self, x: Any, y: Any) -> fx.Node:
        """`x * y`, with the name that has a rule: whether one is bounded or both."""
        if self.depends(x) and self.depends(y):
            return self.call(product, x, y)
        return self.call(aten.mul.Tensor, *((x, y) if self.depends(x) else (y, x)))


def nothing_composite(module: fx.GraphModule) -> Iterator[Fault]:
    """No composite operation of bounded values is left."""
    bounded = _bounded(module)
    for node in module.graph.nodes:
        if node in bounded and node.target in _COMPOSITE:
            yield f"{node.target} of what depends on the image is written out", node


@graph_pass(requires=CANONICAL, ensures=CANONICAL.and_also(nothing_composite))
def lower(module: fx.GraphModule) -> None:
    """Replace composite operations of bounded values, front to back, until none is left."""
    bounded = _bounded(module)
    for node in list(module.graph.nodes):
        lowering = _TABLE.get(node.target) if node in bounded else None
        if lowering is None:
            continue
        with module.graph.inserting_before(node):
            replacement = lowering(Builder(module, node, bounded), node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
    prune(module.graph)


def _bounded(module: fx.GraphModule) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "placeholder" or (node.op != "output" and any(n in found for n in node.all_input_nodes)):
            found.add(node)
    return found


@lowers(aten.mul.Tensor)
def _mul(build: Builder, node: fx.Node) -> fx.Node | None:
    x, y = node.args[:2]
    if not (build.depends(x) and build.depends(y)):
        return None
    return build.call(aten.pow.Tensor_Scalar, x, 2) if x is y else build.call(product, x, y)


@lowers(aten.matmul.default, aten.bmm.default)
def _matmul(build: Builder, node: fx.Node) -> fx.Node | None:
    x, y = node.args[:2]
    return build.call(matrix_product, x, y) if build.depends(x) and build.depends(y) else None


@lowers(aten.div.Tensor)
def _div(build: Builder, node: fx.Node) -> fx.Node | None:
    x, y = node.args[:2]
    if not build.depends(y):
        return None
    return build.times(x, build.call(aten.reciprocal.default, y))


@lowers(aten.log_softmax.int, aten._log_softmax.default)
def _log_softmax(build: Builder, node: fx.Node) -> fx.Node:
    x, axis = node.args[:2]
    return build.call(aten.sub.Tensor, x, build.call(aten.logsumexp.default, x, [axis], True))


def _standardise(build: Builder, x: fx.Node, axes: list[int], eps: float) -> fx.Node:
    """`(x - mean) / sqrt(var + eps)` over the axes: of n values none is larger than sqrt(n - 1)."""
    centred = build.call(aten.sub.Tensor, x, build.call(aten.mean.dim, x, axes, True))
    variance = build.call(aten.mean.dim, build.call(aten.pow.Tensor_Scalar, centred, 2), axes, True)
    scale = build.call(aten.rsqrt.default, build.call(aten.add.Tensor, variance, eps))
    most = math.prod((0, *shape_of(x))[axis] for axis in axes) ** 0.5
    return build.call(within, build.call(product, centred, scale), -most, most)


def _affine(build: Builder, x: fx.Node, weight: Any, bias: Any) -> fx.Node:
    if weight is not None:
        x = build.call(aten.mul.Tensor, x, weight)
    return x if bias is None else build.call(aten.add.Tensor, x, bias)


def _affine_and_eps(node: fx.Node) -> tuple[Any, Any, float]:
    return argument(node, "weight", None), argument(node, "bias", None), argument(node, "eps", 1e-5)


@lowers(aten.layer_norm.default)
def _layer_norm(build: Builder, node: fx.Node) -> fx.Node:
    x: Any = node.args[0]
    axes = list(range(-len(node.args[1]), 0))  # type: ignore[arg-type]
    weight, bias, eps = _affine_and_eps(node)
    return _affine(build, _standardise(build, x, axes, eps), weight, bias)


@lowers(aten.group_norm.default)
def _group_norm(build: Builder, node: fx.Node) -> fx.Node:
    weight, bias, eps = _affine_and_eps(node)
    return _grouped(build, node.args[0], node.args[1], weight, bias, eps)


@lowers(aten.instance_norm.default)
def _instance_norm(build: Builder, node: fx.Node) -> fx.Node | None:
    x, weight, bias, _, _, from_input, _, eps = node.args[:8]
    if not from_input:
        return None
    return _grouped(build, x, shape_of(x)[0], weight, bias, eps)  # type: ignore[arg-type]


def _grouped(build: Builder, x: Any, groups: Any, weight: Any, bias: Any, eps: Any) -> fx.Node:
    shape = shape_of(x)
    flat = build.call(aten.reshape.default, x, [-1, groups, shape[0] // groups, *shape[1:]])
    axes = list(range(2, len(shape) + 2))
    back = build.call(aten.reshape.default, _standardise(build, flat, axes, eps), [-1, *shape])
    tail = [1] * (len(shape) - 1)
    constants = [c if c is None else build.call(aten.reshape.default, c, [-1, *tail]) for c in (weight, bias)]
    return _affine(build, back, *constants)


_COMPOSITE = {
    aten.log_softmax.int,
    aten._log_softmax.default,
    aten.layer_norm.default,
    aten.group_norm.default,
}
