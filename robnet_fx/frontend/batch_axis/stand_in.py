"""Where the batch is in a traced value, and the stand-in that has it in front.

Bounds keep images apart, so every value they know has the batch as its first axis. A model may move that axis, merge it
with another one and part it again: flips joined along the batch, the slices of volumes, `stack(...).mean(0)`. What is
computed meanwhile is computed on stand-ins with the batch in front and what it was merged with on axes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from robnet_fx import graphs
from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.places import place_of
from robnet_fx.machine.torch_internals import size_expression

aten = torch.ops.aten


class Place(NamedTuple):
    """The batch is in `axis`, whose size is `slow * B * fast`: all samples stand in each of the `slow` parts, and of
    each sample there are `fast` rows in a row.

    The stand-in of `[*before, slow * B * fast, *behind]` is `[B, *before, slow, fast, *behind]`, where slow and fast
    are left out if they are 1.
    """

    axis: int = 0
    slow: int = 1
    fast: int = 1

    @property
    def extra(self) -> list[int]:
        """The sizes that the batch is merged with."""
        return [size for size in (self.slow, self.fast) if size > 1]

    def of(self, axis: int) -> int:
        """Where another axis, counted from the first, is in the stand-in."""
        return axis + 1 if axis < self.axis else axis + len(self.extra)

    def shape(self, sizes: Sequence[Any], batch: Any) -> list[Any]:
        """The stand-in's shape, from that of the value."""
        return [batch, *sizes[: self.axis], *self.extra, *sizes[self.axis + 1 :]]

    def restored(self, name: str) -> str:
        """What a user writes for the value with the batch in front."""
        parts = [size for size in (self.slow, -1, self.fast) if size != 1]
        front = self.axis + (self.slow > 1)
        parted = f".unflatten({self.axis}, ({', '.join(map(str, parts))}))" if len(parts) > 1 else ""
        return name + parted + f".movedim({front}, 0)" * (front > 0)


PLAIN = Place()


class Apart:
    """The stand-ins of a graph's values so far. Values that do not depend on the image have none."""

    def __init__(self, image: fx.Node) -> None:
        self.batch = sizes(image.meta["val"])[0]
        self.known: dict[fx.Node, tuple[fx.Node, Place]] = {image: (image, PLAIN)}

    def varying(self, node: fx.Node) -> list[fx.Node]:
        """The inputs that depend on the image."""
        return [source for source in node.all_input_nodes if source in self.known]

    def is_plain(self, value: Any) -> bool:
        """Whether a value, or the first of several, has the batch as its first axis and nowhere else."""
        first, *rest = sizes(value if isinstance(value, Tensor) else value[0]) or [1]
        return bool(first == self.batch) and all(isinstance(size, int) for size in rest)

    def times(self, size: Any) -> int | None:
        """How many times the batch a size is, None if it is no multiple whatever the batch."""
        found = {(size.subs(self.batch, n) if hasattr(size, "subs") else size) / n for n in (2, 3, 5, 64)}
        ratio = found.pop()
        return int(ratio) if not found and int(ratio) == ratio else None

    def reshaped(self, node: fx.Node, source: fx.Node, shape: Sequence[Any]) -> fx.Node:
        """A stand-in in another shape, itself where it has it."""
        if sizes(source.meta["val"]) == [*shape]:
            return source
        return call(node, aten.reshape.default, source, [-1, *shape[1:]])

    def common(self, node: fx.Node) -> Place:
        """The place, counted from the value's last axis as `-axis`, that all varying inputs share."""
        found = {
            Place(self.known[source][1].axis - source.meta["val"].dim(), *self.known[source][1][1:])
            for source in self.varying(node)
        }
        if len(found) > 1:
            raise self.refusal(node)
        return found.pop()

    def aligned(self, node: fx.Node, operand: fx.Node, rank: int, place: Place) -> fx.Node:
        """An operand to be broadcast to `rank` axes, for the stand-ins of such values with the batch in `place`."""
        missing = rank - operand.meta["val"].dim()
        if operand in self.known:
            stand = self.known[operand][0]
            first, *rest = sizes(stand.meta["val"])
            return self.reshaped(node, stand, [first, *[1] * missing, *rest])
        constant = alone(node, operand)
        before = place.axis - missing
        if before < 0 or place.axis == 0:  # all of it behind the batch, or a 1 there
            return constant
        shape = [*constant.meta["val"].shape]
        if shape[before] != 1:
            raise self.refusal(node)
        shape[before : before + 1] = [1] * len(place.extra)
        return call(node, aten.reshape.default, constant, shape)

    def refusal(self, node: fx.Node) -> UnsupportedError:
        """An operation that would mix samples, or has no form behind the batch."""
        sources = self.varying(node)
        source = next((source for source in sources if self.known[source][1] != PLAIN), sources[0])
        place = self.known[source][1]
        if place == PLAIN:
            return UnsupportedError(
                f"{node.name} moves or merges the batch axis: {shape_text(node)}{place_of(node)}\n"
                "  remedy  keep the images along the first axis, x.shape[0] of them, and let each keep its own values"
            )
        return UnsupportedError(
            f"{node.target} has no form for a batch merged with another axis or moved: {shape_text(source)}"
            f"{place_of(node)}\n"
            f"  remedy  write it for {place.restored('y')}, which has the images alone in front, and mixes none of them"
        )


def call(node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call on the way to what replaces a traced node, with its place in the model."""
    return graphs.call(node.graph, target, args, kwargs, place=node.meta)


def alone(node: fx.Node, constant: fx.Node) -> fx.Node:
    """A constant repeated along the batch, with 1 there: it stands once for all samples."""
    if all(isinstance(size, int) for size in sizes(constant.meta["val"])):
        return constant
    args, kwargs = constant.args, constant.kwargs
    shape = [size if isinstance(size, int) else 1 for size in sizes(constant.meta["val"])]
    if constant.target is aten.expand.default:
        return call(node, aten.expand.default, alone(node, args[0]), shape)  # type: ignore[arg-type]
    if constant.target is aten.repeat.default:
        copies = [times if isinstance(times, int) else 1 for times in args[1]]  # type: ignore[union-attr]
        return call(node, aten.repeat.default, alone(node, args[0]), copies)  # type: ignore[arg-type]
    if constant.target in _FILLED:
        return call(node, constant.target, shape, *args[1:], **kwargs)
    if constant.target in _FILLED_LIKE:
        return call(node, constant.target, args[0], shape, *args[2:], **kwargs)
    raise UnsupportedError(f"{constant.name} makes a constant out of the batch size{place_of(constant)}")


def repeated(work: Apart, node: fx.Node) -> tuple[fx.Node, Place] | None:
    """The stand-in and the place of a constant that is repeated for each sample; such a one may be moved and merged
    as what depends on the image is. None where a constant is not, or is made in another way."""
    if work.is_plain(node.meta["val"]):
        return node, PLAIN
    shape = sizes(node.meta["val"])
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    repeats = node.args[node.target not in _FILLED] if node.target in _REPEATING else []
    if len(free) != 1 or shape[free[0]] != work.batch or len(repeats) != len(shape):  # type: ignore[arg-type]
        return None
    (axis,) = free
    behind = [place for place in range(len(shape)) if place != axis]
    with node.graph.inserting_before(node.next):
        once = call(node, aten.permute.default, alone(node, node), [axis, *behind])
        times = [repeats[axis], *(shape[place] for place in behind)]  # type: ignore[index]
        return call(node, aten.expand.default, once, times), Place(axis)


_FILLED = {aten.zeros.default, aten.ones.default, aten.full.default}
_REPEATING = {aten.expand.default, aten.repeat.default, *_FILLED}
_FILLED_LIKE = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default}
CONSTANTS = _FILLED | _FILLED_LIKE
"""What makes a constant, whichever value it takes dtype and device from."""


def sizes(value: Any) -> list[Any]:
    """The sizes of a value, free ones as expressions, which unlike a SymInt are not fixed by being compared."""
    return [number(size) for size in value.shape]


def number(argument: Any) -> Any:
    """An argument that may be a size, as a number or an expression."""
    value = argument.meta["val"] if isinstance(argument, fx.Node) else argument
    return size_expression(value) if isinstance(value, torch.SymInt) else value


def shape_text(node: fx.Node) -> str:
    """The sizes of a traced value as torch.export writes them."""
    value = node.meta["val"]
    return str([list(part.shape) for part in value] if isinstance(value, (list, tuple)) else list(value.shape))
