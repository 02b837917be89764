"""Operations that ATen has no name of its own for: what lowering puts in a graph in place of an overloaded one.

`aten.mul` by a constant is affine, and of two values that both depend on the perturbation it is not; a graph that says
which is which needs no rule that looks at its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def product(x: Tensor, y: Tensor) -> Tensor:
    """`x * y`, broadcast, of two bounded values."""
    return x * y


def matrix_product(x: Tensor, y: Tensor) -> Tensor:
    """`x @ y` of two bounded values, batched over the leading axes."""
    return torch.matmul(x, y)


def larger(x: Tensor, y: Tensor, excess: Tensor) -> Tensor:
    """`maximum(x, y)` of two bounded values, given `excess = relu(x - y)`."""
    return y + excess


def cast(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the dtype that `like` has now: what a graph makes of masks and whole numbers follows it to another."""
    return x.to(like.dtype)


def within(x: Tensor, low: float, high: float) -> Tensor:
    """`x`, which is known to lie in `[low, high]` whatever the bounds of what it is made of say."""
    return x


def join(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """`cat` along an axis behind the batch, where constants stand once, `[1, *S]`, for all samples."""
    batch = next((t.shape[0] for t in tensors if t.shape[0] != 1), 1)
    return torch.cat([t.expand(batch, *t.shape[1:]) for t in tensors], dim)


class Windowed:
    """An operation on samples `[N, *S]`, on samples that have several windows each: `[B, windows, *S]`."""

    def __init__(self, target: Any, name: str) -> None:
        self.target = target
        self.__name__ = self.__qualname__ = name
        self.__module__ = __name__

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made: Tensor = self.target(x.flatten(0, 1), *args, **kwargs)
        return made.reshape(-1, x.shape[1], *made.shape[1:])

    def __str__(self) -> str:
        return f"{self.target} of windows"

    def __reduce__(self) -> str:
        return self.__name__  # pickled by its name, as a function is


WINDOWED = (
    *(getattr(aten, f"conv{dims}d").default for dims in (1, 2, 3)),
    *(getattr(aten, f"conv{dims}d").padding for dims in (1, 2, 3)),
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.batch_norm.default,
    aten.channel_shuffle.default,
    aten.im2col.default,
    aten.col2im.default,
)
"""The operations whose axes have a fixed meaning, and that do not work each channel by itself."""

_WINDOWED: dict[Any, Windowed] = {}
for _target in WINDOWED:  # as functions of this module: `conv2d_windows`, `conv2d_padding_windows`
    _name, _, _overload = _target.__name__.partition(".")
    _name = f"{_name}_padding_windows" if _overload == "padding" else f"{_name}_windows"
    _WINDOWED[_target] = globals()[_name] = Windowed(_target, _name)


def windowed(target: Any) -> Windowed:
    """The operation on windows, of one of `WINDOWED`: one and the same object for every call."""
    return _WINDOWED[target]


def labels(equation: str) -> tuple[list[str], str]:
    """The labels of each operand and of the result, an ellipsis as the one label `.`."""
    left, _, out = equation.replace(" ", "").replace("...", ".").partition("->")
    terms = left.split(",")
    if "->" not in equation:
        out = "".join(sorted(label for label in set(left) - {","} if label == "." or left.count(label) == 1))
    return terms, out
