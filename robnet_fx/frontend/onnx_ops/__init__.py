"""ONNX operators as PyTorch functions: one builder for each operator, in one table.

A builder takes a `Node` (attributes, opset, sample shapes, inputs whose values are known) and returns the function the
node computes. The function receives one argument for each ONNX input, in ONNX order: tensors, numbers, or None for an
input that is absent or that the builder has read with `integers` or `number`. It must hold no tensor of its own, and
it must work for any batch size. Operators need no opset of their own: a builder looks where its opset keeps things.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from torch import Tensor

Function = Callable[..., Any]


class Refused(Exception):
    """This node cannot be taken; the text says why."""


@dataclass(frozen=True)
class Stored:
    """Where a constant is kept in the file: the initialiser's (or Constant node's) name, and how it was moved around.

    With `index`, element k of the constant is element `index.flat[k]` of what is stored (a transposed weight).
    """

    name: str
    index: np.ndarray | None = None


@dataclass
class Known:
    """A value that needs no image: a weight, a shape. `base` and `lifted` are it at the two sample batch sizes."""

    base: np.ndarray
    lifted: np.ndarray
    stored: Stored | None = None


@dataclass
class Data:
    """A value computed from the images: two samples of it, its torch.fx node, and if a weight came before."""

    base: Tensor
    lifted: Tensor
    place: Any
    learned: bool


@dataclass
class Node:
    """What a builder sees of an ONNX node."""

    op: str
    name: str
    opset: int
    batch: int  # the batch size of the base samples
    inputs: list[Known | Data | None]
    outputs: int
    attributes: dict[str, Any]
    immediate: dict[int, float | None] = field(default_factory=dict)  # inputs replaced by a number or by nothing

    @classmethod
    def of(cls, proto: onnx.NodeProto, name: str, opset: int, batch: int, inputs: list[Known | Data | None]) -> Node:
        """The view of one node of a file."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        decoded = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
        return cls(proto.op_type, name, opset, batch, inputs, len(proto.output), decoded)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether the node has this input (an empty name means it has not)."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input at the base batch size."""
        value = self.inputs[index]
        assert value is not None
        return tuple(value.base.shape)

    def known(self, index: int) -> np.ndarray | None:
        """The value of an input that needs no image, taken out of the function's arguments; None if absent."""
        if not self.has(index):
            return None
        value = self.inputs[index]
        if not isinstance(value, Known):
            raise Refused(f"input {index} is computed from the image, and it must be constant")
        self.immediate[index] = None
        return value.base

    def replace(self, index: int, value: np.ndarray, stored: Stored | None = None) -> None:
        """Give the function this constant in place of an input."""
        self.inputs[index] = Known(value, value, stored)
        self.immediate.pop(index, None)

    def integers(self, index: int | None, attribute: str) -> list[int] | None:
        """A list of integers kept in an attribute by some opsets and in an input by others; None if in neither."""
        if attribute in self.attributes:
            return [int(i) for i in np.atleast_1d(self.attributes[attribute])]
        value = None if index is None else self.known(index)
        return None if value is None else [int(i) for i in np.atleast_1d(value)]

    def number(self, index: int | None, attribute: str, default: Any = None) -> Any:
        """A number kept in an attribute or in an input."""
        if attribute in self.attributes:
            return self.attributes[attribute]
        value = None if index is None else self.known(index)
        return default if value is None else float(value.reshape(-1)[0])

    def numbers_for_scalars(self) -> None:
        """Constants of one element that cannot change a shape become plain numbers."""
        rank = max(v.base.ndim for v in self.inputs if isinstance(v, Data))
        for index, value in enumerate(self.inputs):
            if not isinstance(value, Known) or value.base.size != 1 or value.base.ndim > rank:
                continue
            if value.base.dtype.kind == "f" and np.array_equal(value.base, value.lifted):
                self.immediate[index] = float(value.base.reshape(-1)[0])

    def axis(self, default: int | None = None) -> int:
        """The `axis` attribute, counted from the front."""
        axis = int(self.attribute("axis", default))
        return axis % len(self.shape()) if self.shape() else axis

    def batch_axis(self) -> int:
        """The axis of the (first) image-dependent input that grows with the batch."""
        value = next(v for v in self.inputs if isinstance(v, Data))
        growing = [i for i, (b, c) in enumerate(zip(value.base.shape, value.lifted.shape, strict=True)) if b != c]
        if len(growing) != 1:
            raise Refused("the batch is not one axis of the input")
        return growing[0]

    def not_the_batch(self, axis: int) -> None:
        """Refuse to treat the images of a batch differently."""
        if axis == self.batch_axis():
            raise Refused("it works along the batch: images would not be independent of each other")

    def any_batch(self, target: list[int]) -> list[int]:
        """A reshape's target shape with -1 where the batch is, given the shape it takes at the base batch size.

        Files exported with a fixed batch have it baked into their reshapes. A reshape keeps the order of the elements,
        so the batch stays where as many elements lie before it as did in the input.
        """
        before = int(np.prod(self.shape()[: self.batch_axis()]))
        fits = [i for i, size in enumerate(target) if size % self.batch == 0]
        spans = [(int(np.prod(target[:i])), int(np.prod(target[: i + 1])), i) for i in fits]
        exact = [i for start, _, i in spans if start == before]
        inside = [i for start, end, i in spans if start < before < end]
        if not (exact or inside or fits):
            raise Refused(f"no axis of the target shape {target} holds the batch")
        place = (exact or inside or fits)[0]
        return [-1 if i == place else size for i, size in enumerate(target)]


Builder = Callable[[Node], Function]
OPS: dict[str, Builder] = {}


def op(*names: str) -> Callable[[Builder], Builder]:
    """Register a builder for one or more operator types; a second builder for a type is an error."""

    def register(builder: Builder) -> Builder:
        for name in names:
            if name in OPS:
                raise ValueError(f"two builders for the ONNX operator {name}")
            OPS[name] = builder
        return builder

    return register


def plain(functions: dict[str, Function]) -> None:
    """Register operators that have no attributes: the function is the operator."""
    for name, function in functions.items():
        op(name)(functools.partial(_always, function))


def _always(function: Function, node: Node) -> Function:
    return function


from robnet_fx.frontend.onnx_ops import elementwise, layers, layout  # noqa: E402, F401  (they fill the table)
