"""Parts of a box: what splitting works on, and the tree of halves that a proof is.

A part lies in the unit box `[-1, 1]^D` of the coefficients' box, whose ends are halved exactly in binary, so that the
two halves of a part are all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Box

_OUTWARD = 1 + 2.0**-49  # more than what computing a centre and a radius in float64 can lose
_OPEN = -1


class Part(NamedTuple):
    """From `lower` to `upper`, each `[D]` float64 on the CPU, in the unit box."""

    lower: Tensor
    upper: Tensor

    @staticmethod
    def whole(dimensions: int) -> Part:
        """The unit box."""
        ones = torch.ones(dimensions, dtype=torch.float64)
        return Part(-ones, ones)

    def halves(self, dimension: int) -> tuple[Part, Part]:
        """Both sides of the middle of a coefficient."""
        below, above = self.upper.clone(), self.lower.clone()
        below[dimension] = above[dimension] = (self.lower[dimension] + self.upper[dimension]) / 2
        return Part(self.lower, below), Part(above, self.upper)

    @property
    def share(self) -> float:
        """Of the whole box."""
        return float(((self.upper - self.lower) / 2).prod())


def boxes(parts: Sequence[Part], over: Box) -> Box:
    """The parts as one `Box` `[B, D]`, each row a part of its own of `over`, rounded outward."""
    lower, upper = (torch.stack(ends).to(over.center) for ends in zip(*parts, strict=True))
    center = over.center + over.radius * ((lower + upper) / 2)
    away = (center.abs() + over.radius) * 2.0**-52
    radius = over.radius * ((upper - lower) / 2) * _OUTWARD
    return Box(center, torch.where(over.radius > 0, radius + away, radius))


class Node:
    """A part in the tree of a proof: halved along `dimension`, or proved at a `level` of bounds, or still open."""

    __slots__ = ("below", "dimension", "level")

    def __init__(self) -> None:
        self.below: tuple[Node, Node] | None = None
        self.dimension = self.level = _OPEN

    def split(self, dimension: int) -> tuple[Node, Node]:
        """Halve it, and return the two halves."""
        self.dimension, self.below = dimension, (Node(), Node())
        return self.below

    def proved(self) -> bool:
        """Whether nothing of it is open."""
        return _OPEN not in self.written()

    def written(self) -> list[int]:
        """The tree as numbers, in the order of a walk that takes the lower half first: a coefficient's number where a
        part is halved, `-2 - level` where it is proved, -1 where it is open."""
        numbers, left = [], [self]
        while left:
            node = left.pop()
            if node.below is not None:
                numbers.append(node.dimension)
                left += reversed(node.below)
            else:
                numbers.append(_OPEN if node.level == _OPEN else -2 - node.level)
        return numbers

    @staticmethod
    def read(numbers: Sequence[int], dimensions: int) -> Node:
        """The tree that was written so; `UsageError` where these numbers are none."""
        root = Node()
        left = [root]
        for number in numbers:
            if not left or not isinstance(number, int) or number >= dimensions:
                raise UsageError("the numbers of a proof are no tree of halves")
            node = left.pop()
            if number >= 0:
                left += reversed(node.split(number))
            elif number != _OPEN:
                node.level = -2 - number
        if left:
            raise UsageError("the tree of a proof ends before all of its parts are told")
        return root

    def leaves(self, dimensions: int) -> Iterator[tuple[Part, Node]]:
        """The parts that are not halved; together they are the whole box."""
        left = [(Part.whole(dimensions), self)]
        while left:
            part, node = left.pop()
            if node.below is None:
                yield part, node
            else:
                left += reversed([*zip(part.halves(node.dimension), node.below, strict=True)])
