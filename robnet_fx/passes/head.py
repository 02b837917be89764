"""What a network's output is to the logits that are bounded: theirs, a softmax or sigmoid of them, or one number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from robnet_fx.algebra.logits import as_logits
from robnet_fx.graphs import describe, output_of, shape_of
from robnet_fx.passes.ranges import range_of

aten = torch.ops.aten

_SOFTMAX = (aten.softmax.int, aten._softmax.default)
_LOG_SOFTMAX = (aten.log_softmax.int, aten._log_softmax.default)
_KEEP_ORDER = {  # one by one, so that they may also be taken off in front of a move
    aten.sigmoid.default: "sigmoid",
    aten.special_expit.default: "sigmoid",
    aten.log_sigmoid.default: "log_sigmoid",
}
_ROUNDING = 1e-6  # of weights that sum to one
_MOVES = (aten.reshape.default, aten.select.int, aten.slice.Tensor, aten.permute.default, aten.transpose.int)


@dataclass(frozen=True)
class Head:
    """`function` is what the network ends in, "softmax", "log_softmax", "sigmoid", "log_sigmoid" or "hardsigmoid": it
    is left out of the bounds. "probability" stands for one number between 0 and 1 that comes about in another way.
    `single`: the network has one number a sample; `refusal` is why that can be no logit, empty where it can."""

    function: str | None
    single: bool
    refusal: str = ""

    @property
    def remark(self) -> str:
        """What a report says of it; empty where the network gives its logits."""
        if self.function == "probability":
            return "one probability p, bounded as two classes with logits 0 and p - 1/2"
        left_out = f"{self.function}, left out of the bounds: margins are those of "
        if self.single:
            number = f"{left_out}the one logit z before it" if self.function else "one logit z"
            return f"{number}, as two classes with logits 0 and z"
        return f"{left_out}the logits before it" if self.function else ""

    def logits(self, output: Tensor) -> Tensor:
        """`[B, classes]`: logits whose function an output is, for training; those of a softmax up to a constant a
        sample. Where the function has rounded them away they stop at what its type can tell apart."""
        values, kind = as_logits(output), torch.finfo(output.dtype)
        if self.function == "softmax":
            values = values.clamp(min=kind.tiny).log()
        elif self.function == "log_sigmoid":
            values = values - (1 - values.exp()).clamp(min=kind.eps).log()
        elif self.function in ("sigmoid", "hardsigmoid", "probability"):
            values = values.clamp(min=kind.tiny).log() - (1 - values).clamp(min=kind.eps).log()
        return torch.nn.functional.pad(values, [1, 0]) if self.single else values


def head_of(module: fx.GraphModule) -> Head:
    """The head of a canonical graph."""
    last, single = output_of(module), is_single(module)
    found = last_function(module)
    if not single:
        return Head(found[0] if found else None, False)
    if found is not None:
        return Head(found[0], True)
    low, high = range_of(last)
    if low >= 0 and high <= 1 + _ROUNDING and low < high:
        return Head("probability", True)
    if low >= 0 or high <= 0:
        refusal = (
            "the network has one number a sample, which always has the same sign: no logit of two classes, whose sign"
            f" tells them apart\n{describe(last, f'its values lie in [{low:g}, {high:g}]')}\n"
            "  remedy  let it return its logit, or name that with --output (Python: output=); of a probability p,"
            " p - 0.5 will do"
        )
        return Head(None, True, refusal)
    return Head(None, True)


def is_single(module: fx.GraphModule) -> bool:
    """Whether the network has one number a sample."""
    return math.prod(shape_of(output_of(module))) == 1


def last_function(module: fx.GraphModule) -> tuple[str, fx.Node] | None:
    """The function at the very end that keeps the order of the classes, or for one number the side of the threshold
    that it lies on, and its node."""
    last, single = output_of(module), is_single(module)
    source = last.args[0] if last.target is aten.reshape.default else last  # `[classes, 1, 1]`, flattened
    source = source if shape_of(source)[:1] == shape_of(last)[:1] else last
    over_classes = source.target in (*_SOFTMAX, *_LOG_SOFTMAX) and source.args[1] in (1, -len(shape_of(source)))
    if over_classes and shape_of(source)[0] > 1:  # of one class it is a constant
        return ("softmax" if source.target in _SOFTMAX else "log_softmax"), source
    while last.target in _MOVES:
        last = last.args[0]
    if last.target in _KEEP_ORDER:
        return _KEEP_ORDER[last.target], last
    return ("hardsigmoid", last) if single and last.target is aten.hardsigmoid.default else None
