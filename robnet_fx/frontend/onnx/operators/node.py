"""What is known of one ONNX node once everything that needs no image has been computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from torch import Tensor


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

    def fixed(self) -> np.ndarray:
        """The value for any batch. One that has the batch as an axis (a class token repeated) has it with size 1."""
        base, lifted = self.base, self.lifted
        if base is lifted or np.array_equal(base, lifted, equal_nan=base.dtype.kind == "f"):
            return base
        if base.ndim == lifted.ndim:
            axes = [i for i, (b, c) in enumerate(zip(base.shape, lifted.shape, strict=True)) if b != c]
            if len(axes) == 1:
                first = base.take([0], axis=axes[0])
                if (base == first).all() and (lifted == first).all():
                    return first
        raise Refused("a constant that depends on the batch size")

    def flat(self) -> Known:
        """The same elements in the same order along one axis."""
        return Known(self.base.reshape(-1), self.lifted.reshape(-1), self.stored)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Known:
        """The value with its elements moved (transposed, say), and still where each of them is stored."""
        return Known(move(self.base), move(self.lifted), self.stored and Stored(self.stored.name, move(self.places())))

    def places(self) -> np.ndarray:
        """For each element, which one it is of what is stored; half the memory of int64 where that suffices."""
        if self.stored is not None and self.stored.index is not None:
            return self.stored.index.reshape(self.base.shape)
        kind = np.int32 if self.base.size < 2**31 else np.int64
        return np.arange(self.base.size, dtype=kind).reshape(self.base.shape)


@dataclass
class Data:
    """A value computed from the images: two samples of it, its torch.fx node, and if a weight came before.

    `levels`: in the file these are whole numbers still, which the samples hold as floating point.
    """

    base: Tensor
    lifted: Tensor
    place: Any
    learned: bool
    levels: bool = False


Literal = float | list[int]  # a constant written into the call itself
Value = Known | Data | Literal | None


@dataclass
class Node:
    """An ONNX node with its inputs. What converts it may rewrite it first: other attributes, another opset's form."""

    op: str
    domain: str
    opset: int
    batch: int  # the batch size of the base samples
    inputs: list[Value]
    outputs: int
    attributes: dict[str, Any]
    output: str = ""  # the file's name of its first output: which node of the file it is
    used: set[int] = field(default_factory=set)  # inputs whose values the conversion has read: not passed to the module
    unfolded: bool = False  # constants are to be passed to the module, not to become its own

    @classmethod
    def of(cls, proto: onnx.NodeProto, domain: str, opset: int, batch: int, inputs: list[Known | Data | None]) -> Node:
        """The view of one node of a file."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        decoded = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
        return cls(proto.op_type, domain, opset, batch, list(inputs), len(proto.output), decoded, proto.output[0])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether the node has this input (an empty name means it has not)."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input at the base batch size."""
        value = self.inputs[index]
        return tuple(value.base.shape) if isinstance(value, (Known, Data)) else ()

    def data(self) -> Data:
        """The first input that depends on the image."""
        return next(value for value in self.inputs if isinstance(value, Data))

    def known(self, index: int) -> np.ndarray | None:
        """The value of an input that needs no image, for the conversion to use up; None if absent."""
        if not self.has(index):
            return None
        value = self.inputs[index]
        if not isinstance(value, Known):
            raise Refused(f"input {index} is computed from the image, and it must be constant")
        self.used.add(index)
        return value.base

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A list of integers kept in an attribute by some opsets and in an input by others; None if in neither."""
        value = self.attributes[attribute] if attribute in self.attributes else self.known(index)
        return None if value is None else [int(i) for i in np.atleast_1d(value)]

    def number(self, index: int, attribute: str, default: Any = None) -> Any:
        """A number kept in an attribute or in an input."""
        if attribute in self.attributes:
            return self.attributes[attribute]
        value = self.known(index)
        return default if value is None else float(value.reshape(-1)[0])

    def axis(self, default: int | None = None) -> int:
        """The `axis` attribute, counted from the front."""
        return int(self.attribute("axis", default)) % max(1, self.data().base.dim())

    def batch_axis(self) -> int:
        """The axis of the (first) image-dependent input that grows with the batch."""
        value = self.data()
        growing = [i for i, (b, c) in enumerate(zip(value.base.shape, value.lifted.shape, strict=True)) if b != c]
        if len(growing) != 1:
            raise Refused("the batch is not one axis of the input")
        return growing[0]

    def not_the_batch(self, *axes: int) -> None:
        """Refuse to treat the images of a batch differently."""
        if self.batch_axis() in axes:
            raise Refused("it works along the batch: images would not be independent of each other")

    def numbers_for_scalars(self) -> None:
        """Constants of one element that cannot change a shape become plain numbers: they are no weights."""
        rank = max(v.base.dim() for v in self.inputs if isinstance(v, Data))
        for index, value in enumerate(self.inputs):
            if not isinstance(value, Known) or value.base.size != 1 or value.base.ndim > rank:
                continue
            if value.base.dtype.kind == "f" and np.array_equal(value.base, value.lifted):
                self.inputs[index] = float(value.base.reshape(-1)[0])
