"""What an objective is: named losses of upper margins, and where it likes of an adversary's logits, for one batch.

A new one is a file here with a frozen dataclass derived from `Objective`, and its line in `objectives/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Box


@dataclass(frozen=True)
class Batch:
    """A rank's part of one training batch, which is never empty, and how it is worked; all in eval semantics.

    images `[B, C, *spatial]` in [0, 1], labels `[B]`, and `bool [B]` `right`, classified correctly unperturbed, and
    `likely`, guessed to be active. `weights` are those of the objective, `size` is what losses are divided by, the
    samples of the whole batch. At most `part` samples and `rows` margins of each are bounded at once, all if None, in
    the `precision` of `machine.precision`.
    """

    net: BoundedModel
    images: Tensor
    labels: Tensor
    right: Tensor
    likely: Tensor
    weights: dict[str, float]
    size: int
    part: int | None = None
    rows: int | None = None
    precision: str = "float32"

    def margins(self, index: Tensor, box: Box | None, *, in_parts: bool = True) -> Iterator[Tensor]:
        """Upper margins `[n, at most classes - 1]` of the samples in `index [n]`, the label's column left out."""
        over = box and Box(*(_of(value, index) for value in box))
        rows = self.rows if in_parts else None
        images, labels = self.images[index], self.labels[index]
        return self.net.margins_in_parts(images, labels, box=over, rows=rows, precision=self.precision)

    def nothing(self) -> dict[str, Tensor]:
        """No loss yet, 0-d by name, of those that are the objective's own."""
        return {name: self.images.new_zeros(()) for name in self.weights if name != "standard"}

    def descend(self, losses: dict[str, Tensor], totals: dict[str, Tensor]) -> None:
        """Add the gradients of weighed `losses`, 0-d sums over samples by name, and their values to `totals`."""
        losses = {name: loss / self.size for name, loss in losses.items()}
        torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum().backward()
        totals |= {name: totals[name] + loss.detach() for name, loss in losses.items()}


class Wanted(NamedTuple):
    """What an objective wants of a batch: upper margins of `samples`, `bool [B]`, over `box`, `[1 or B, D]` each (None:
    the box that the net has), and, where `points [B, D]` is given, the logits at these coefficients as well."""

    samples: Tensor
    box: Box | None = None
    points: Tensor | None = None


class Found(NamedTuple):
    """What `n` of the wanted samples have: upper `margins [n, classes - 1]` of logit_i - logit_label, in order and
    without the label's column (some of these columns where the objective is worked `in_parts`), `labels [n]`, and the
    `logits [n, classes]` at the points asked for. Margins and logits are differentiable in the parameters."""

    margins: Tensor
    labels: Tensor
    logits: Tensor | None


class Outcome(NamedTuple):
    """What an objective made of a batch: 0-d losses by name, as in `Figures`, and `bool [B]` which samples are
    certified (correct, and every upper margin below 0) and which active (bounded, and not so)."""

    losses: dict[str, Tensor]
    certified: Tensor
    active: Tensor


class Objective:
    """A loss over bounds. Frozen dataclasses derive from it, whose repr, with all parameters, tells runs apart.

    `losses` always, and `wanted` and `weights` where what they say here is not meant, make an objective. One that does
    more than that (a term in the parameters, the same batch several times) overrides `accumulate`.
    """

    in_parts = False
    """Whether `losses` of all columns is the sum of `losses` of some, as of a sum of hinges: then, where memory is
    scarce, columns are bounded and differentiated one part after another, and no points can be asked for."""

    active_only = False
    """Whether a certified sample has neither loss nor gradient: then bounds without gradients, at half the cost, do for
    samples that turn out certified."""

    bounded = True
    """Whether bounds are lowered. Where they are not nobody is known to be certified while training, epochs are not
    compared by that, and the last one's weights are kept."""

    @property
    def boxes(self) -> int:
        """How many parts of its box an image's verdict may take where epochs are compared (`train.validation`)."""
        return 1

    def weights(self, alpha: float) -> dict[str, float]:
        """Name of a loss -> its weight in the loss that is minimised: equation 7, cross entropy + alpha * robust.

        "standard" is always there, for the cross entropy of the images as they are. A figure of weight 0 is only shown,
        and comes detached.
        """
        return {"standard": 1.0, "robust": alpha}

    def wanted(self, batch: Batch) -> Wanted:
        """Which samples are bounded, and over which boxes: the correct ones over the box that the net has.

        Called once a step, without gradients; the place to look for an adversary (`verify.ascent`)."""
        return Wanted(batch.right)

    def losses(self, found: Found) -> dict[str, Tensor]:
        """0-d sums over the samples of `found`, for every name in `weights` but "standard"."""
        raise NotImplementedError

    def accumulate(self, batch: Batch) -> Outcome:
        """Add the gradients of the weighed losses to those of the parameters.

        Of an objective with gradients for active samples only, those that are `likely` to be active get bounds with
        gradients at once. The others are bounded without, and once more with gradients if they turn out to be active:
        a guess changes the time a step takes and nothing else.
        """
        with torch.no_grad():
            samples, box, points = self.wanted(batch)
        active = torch.zeros_like(samples)
        likely = samples & batch.likely if self.active_only else samples
        with torch.no_grad():
            for index in _parts(samples & ~likely, batch.part):
                for margins in batch.margins(index, box):
                    active[index] |= _uncertified(margins)
        totals = batch.nothing()
        for index in _parts(likely | active, batch.part):
            for margins in batch.margins(index, box, in_parts=self.in_parts):
                active[index] |= _uncertified(margins)
                logits = None if points is None else batch.net.perturbed(points[index], batch.images[index])
                batch.descend(self.losses(Found(margins, batch.labels[index], logits)), totals)
        return Outcome(totals, batch.right & samples & ~active, active)


def _of(value: Tensor, index: Tensor) -> Tensor:
    """A box's part `[1 or B, D]` for the samples in `index`."""
    return value if len(value) == 1 else value[index]


def _uncertified(margins: Tensor) -> Tensor:
    """`bool [B]`: some upper margin is not below 0, or is not a number."""
    return ~(margins.detach() < 0).all(1)


def _parts(chosen: Tensor, size: int | None) -> list[Tensor]:
    """The indices of the chosen samples, at most `size` at a time."""
    index = chosen.nonzero().squeeze(1)
    return [piece for piece in index.split(size or max(1, len(index))) if len(piece)]
