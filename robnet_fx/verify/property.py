"""A property of a network as values: boxes on its inputs, and for each of them what must not happen to its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.verify.question import Question


@dataclass(frozen=True)
class Case:
    """One box of a property: all inputs between `lower` and `upper`, `[n]` float64 in the row-major order of the input.

    `open [2, n]` are the ends that do not belong to it (`X_0 < 1`): bounds cover them, a counterexample avoids them.
    `question`, of one sample in float64, is about the network's outputs `[m]` in the same order.
    """

    lower: Tensor
    upper: Tensor
    open: Tensor
    question: Question

    def nearest(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """The inputs `[n]` as numbers of `dtype` inside the box: rounded, and brought to the nearest end where they
        leave it. Where an interval has no such number, as of an input fixed at 0.1, it is the nearest to its middle."""
        infinity = torch.full_like(self.lower, torch.inf, dtype=dtype)
        low, high = self.lower.to(dtype), self.upper.to(dtype)
        below = (low.double() < self.lower) | ((low.double() == self.lower) & self.open[0])
        above = (high.double() > self.upper) | ((high.double() == self.upper) & self.open[1])
        low = torch.where(below, torch.nextafter(low, infinity), low)
        high = torch.where(above, torch.nextafter(high, -infinity), high)
        middle = (self.lower / 2 + self.upper / 2).to(dtype)
        return torch.where(low <= high, torch.minimum(torch.maximum(inputs.to(dtype), low), high), middle)

    def violated(self, outputs: Tensor) -> bool:
        """Whether outputs `[m]` are what must not happen; on the border of a strict row they are not."""
        values = self.question.values(outputs.double().unsqueeze(0))[0]
        met = torch.where(self.question.strict, values > 0, values >= 0)
        return any(bool(met[self.question.group == group].all()) for group in self.question.group.unique())


@dataclass(frozen=True)
class Property:
    """That no input of any case brings the outputs where they must not be: of a network with `inputs` numbers in and
    `outputs` out. `empty` boxes of the file hold no input and are no cases."""

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    empty: int = 0
