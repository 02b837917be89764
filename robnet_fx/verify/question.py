"""What is asked of a network over a box: that no coefficient brings the logits into a bad set, in disjunctive form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import to_float


@dataclass(frozen=True)
class Question:
    """Of each of N samples: whether some point of a box brings its logits y into the bad set.

    The bad set is a union of intersections of half-spaces: of any group, all rows `rows[k] . y + offset[k] >= 0`.
    `rows [N, K, classes]` and `offset [N, K]` are those of a sample, `group [K]` (whole numbers from 0) says which rows
    are met together. `strict [K]` are rows that ask for more than 0: a point on the border is then no counterexample,
    and is excluded all the same where a proof is asked for.
    """

    rows: Tensor
    offset: Tensor
    group: Tensor
    strict: Tensor

    def __getitem__(self, samples: Tensor | slice) -> Question:
        """The same of some samples."""
        return Question(self.rows[samples], self.offset[samples], self.group, self.strict)

    def to(self, like: Tensor) -> Question:
        """In the dtype and on the device of a tensor."""
        device = like.device
        return Question(self.rows.to(like), self.offset.to(like), self.group.to(device), self.strict.to(device))

    def values(self, logits: Tensor) -> Tensor:
        """`[N, K]`: the rows at logits `[N, classes]`."""
        return torch.einsum("nkc,nc->nk", self.rows, logits) + self.offset

    def worst(self, values: Tensor) -> Tensor:
        """`[N]`: the largest over the groups of the smallest of a group's `values [N, K]`, which are those of points or
        upper bounds over a box. Below 0 the bad set is not met. NaN stays NaN."""
        groups = int(self.group.max()) + 1
        if groups == len(self.group):
            return values.amax(1)
        index = self.group.expand_as(values)
        smallest = values.new_full((len(values), groups), torch.inf)
        return smallest.scatter_reduce(1, index, values, "amin").amax(1)

    def met(self, values: Tensor) -> Tensor:
        """`bool [N]`: whether points with the rows' `values [N, K]` lie in the bad set."""
        inside = torch.where(self.strict, values > 0, values >= 0)
        return self.worst(torch.where(inside, 1.0, -1.0).to(values)) > 0


def posed(net: BoundedModel, images: Tensor, labels: Tensor, index: Sequence[int]) -> tuple[Tensor, Question]:
    """The images of these numbers and the question whether each keeps its label, as `net` takes them."""
    own = torch.tensor(index, dtype=torch.long)
    targets = labels[own].to(net.center.device)
    return to_float(images[own], net.center), classification(targets, net.classes, net.center.dtype)


def classification(labels: Tensor, classes: int, dtype: torch.dtype) -> Question:
    """Whether another class than the label `[N]` gets a logit as large: the question of every certificate."""
    rows = margin_spec(labels, other_classes(labels, classes), classes).to(dtype)
    count = classes - 1
    group, strict = torch.arange(count), torch.zeros(count, dtype=torch.bool)
    return Question(rows, rows.new_zeros(len(labels), count), group.to(labels.device), strict.to(labels.device))
