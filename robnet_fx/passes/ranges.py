"""Between which numbers a node's values lie whatever its weights and images, as far as its operations tell."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra.ops import join
from robnet_fx.graphs import shape_of

aten = torch.ops.aten

Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)

_RISING = {
    aten.sigmoid.default,
    aten.special_expit.default,
    aten.log_sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.relu.default,
    aten.relu6.default,
    aten.elu.default,
    aten.softplus.default,
    aten.exp.default,
    aten.expm1.default,
    aten.exp2.default,
    aten.log.default,
    aten.log1p.default,
    aten.sqrt.default,
    aten.erf.default,
    aten.atan.default,
    aten.special_ndtr.default,
}
"""Functions of one value that never fall: their range is that of the ends."""
_AMONG = {
    *(getattr(aten, name).default for name in ("reshape", "permute", "expand", "flip", "repeat")),
    *(getattr(aten, name).int for name in ("select", "transpose")),
    *(getattr(aten, f"{kind}_pool{n}d").default for kind in ("max", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)),
    *(getattr(aten, f"max_pool{n}d_with_indices").default for n in (2, 3)),
    aten.slice.Tensor,
    aten.index.Tensor,
    aten.mean.dim,
    aten.mean.default,
    aten.amax.default,
    aten.amin.default,
    aten.max.dim,
    aten.min.dim,
    operator.getitem,
}
"""Each value is one of those that it is made of, or a mean of some."""
_NONNEGATIVE = {aten.linalg_vector_norm.default, aten.var.correction, aten.std.correction, aten.rsqrt.default}


def range_of(node: fx.Node) -> Range:
    """(lowest, highest), infinite where the operations leave it open: what usually makes a probability is known."""
    known: dict[fx.Node, Range] = {}

    def of(argument: Any) -> Range:
        if isinstance(argument, fx.Node):
            return known[argument]
        return (float(argument), float(argument)) if isinstance(argument, (int, float)) else ANY

    for each in node.graph.nodes:
        low, high = _found(each, each.target, of)
        known[each] = (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
        if each is node:
            break
    return known[node]


def _found(node: fx.Node, target: Any, of: Callable[[Any], Range]) -> Range:
    if node.op == "get_attr":
        value = operator.attrgetter(target)(node.graph.owning_module)
        return ANY if isinstance(value, nn.Parameter) or not value.numel() else _ends(value)
    args: tuple[Any, ...] = node.args
    if target in _RISING and not any(isinstance(arg, fx.Node) for arg in (*args[1:], *node.kwargs.values())):
        return _ends(target(torch.tensor(of(args[0]), dtype=torch.float64), *args[1:], **node.kwargs))
    if target in _AMONG:
        return of(args[0])
    if target in (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default):  # of zeros around, too
        return _union([of(args[0]), (0.0, 0.0)])
    if target in (aten.cat.default, aten.stack.default, join):
        return _union(map(of, args[0]))
    if target is aten.where.self:
        return _union(map(of, args[1:]))
    if target in _NONNEGATIVE:
        return 0.0, math.inf
    if target in _OF_RANGES and not node.kwargs:
        return _OF_RANGES[target](node, *map(of, args[: 2 if target in _OF_TWO else 1]))
    return ANY


def _ends(value: Tensor) -> Range:
    low, high = value.detach().double().aminmax()
    return float(low), float(high)


def _union(ranges: Iterable[Range]) -> Range:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _times(a: Range, b: Range) -> Range:
    ends = [x * y if x and y else 0.0 for x, y in itertools.product(a, b)]
    return min(ends), max(ends)


def _inverse(a: Range) -> Range:
    if a[0] >= 0:
        return 1 / a[1] if a[1] else math.inf, 1 / a[0] if a[0] else math.inf
    return _negative(_inverse(_negative(a))) if a[1] <= 0 else ANY


def _negative(a: Range) -> Range:
    return -a[1], -a[0]


def _sum(a: Range, b: Range) -> Range:
    return a[0] + b[0], a[1] + b[1]


def _magnitude(a: Range) -> Range:
    ends = sorted(map(abs, a))
    return (0.0 if a[0] < 0 < a[1] else ends[0]), ends[1]


def _square(a: Range) -> Range:
    low, high = _magnitude(a)
    return low * low, high * high


def _power(node: fx.Node, a: Range) -> Range:
    exponent: Any = node.args[1]
    if exponent % 2 == 0:
        a = _magnitude(a)
    elif a[0] < 0:
        return ANY
    if exponent < 0:
        a, exponent = _inverse(a), -exponent
    low, high = (torch.tensor(a, dtype=torch.float64) ** exponent).tolist()
    return low, high


def _terms(node: fx.Node, a: Range) -> Range:
    """Of the sum of as many as there are for each number of the result."""
    count = math.prod(shape_of(node.args[0])) // max(1, math.prod(shape_of(node)))  # type: ignore[arg-type]
    return count * a[0], count * a[1]


def _softmax(node: fx.Node, a: Range) -> Range:
    """Of one class it is a constant."""
    args: Any = node.args
    return (1.0 if args[0].meta["val"].shape[args[1]] == 1 else 0.0), 1.0


def _matmul(node: fx.Node, a: Range, b: Range) -> Range:
    args: Any = node.args
    return _times(_times(a, b), (args[0].meta["val"].shape[-1],) * 2)


_OF_TWO: dict[Any, Callable[[fx.Node, Range, Range], Range]] = {
    aten.add.Tensor: lambda node, a, b: _sum(a, b),
    aten.sub.Tensor: lambda node, a, b: _sum(a, _negative(b)),
    aten.rsub.Scalar: lambda node, a, b: _sum(b, _negative(a)),
    aten.mul.Tensor: lambda node, a, b: _square(a) if node.args[0] is node.args[1] else _times(a, b),
    aten.div.Tensor: lambda node, a, b: _times(a, _inverse(b)),
    aten.maximum.default: lambda node, a, b: (max(a[0], b[0]), max(a[1], b[1])),
    aten.minimum.default: lambda node, a, b: (min(a[0], b[0]), min(a[1], b[1])),
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), _matmul),
}
_OF_RANGES: dict[Any, Callable[..., Range]] = _OF_TWO | {
    aten.neg.default: lambda node, a: _negative(a),
    aten.abs.default: lambda node, a: _magnitude(a),
    aten.reciprocal.default: lambda node, a: _inverse(a),
    aten.pow.Tensor_Scalar: _power,
    aten.sum.dim_IntList: _terms,
    **dict.fromkeys((aten.softmax.int, aten._softmax.default), _softmax),
    **dict.fromkeys((aten.log_softmax.int, aten._log_softmax.default), lambda node, a: (-math.inf, 0.0)),
}
