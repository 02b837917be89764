"""Equation 6 of the paper's section 5: hinges over the upper margins of what is classified correctly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robnet_fx.train.objectives.base import Found, Objective


def robust_loss(margins: Tensor, counted: Tensor | None = None, batch: int | None = None) -> Tensor:
    """Equation 6: the sum of `max(0, upper margin)` over the classes, averaged over the whole batch.

    margins `[B, classes]` upper bounds of logit_i - logit_label, -inf in the label's column; counted `bool [B]`,
    the correctly classified samples, all of them if not given: the others add neither value nor gradient.
    `batch` is what the sum is divided by when margins hold only a part of the batch. A sample whose margins are
    all below 0 is certified and adds nothing either.
    """
    rows = margins if counted is None else margins[counted]
    return rows.relu().sum() / (batch or len(margins))


@dataclass(frozen=True)
class Equation6(Objective):
    """The paper's robust loss: `sum_i max(0, upper margin_i)` of the correct samples over the whole box.

    A sum of hinges, so that its columns can be worked one after another, and what is certified has no gradient.
    """

    in_parts = True
    active_only = True

    def losses(self, found: Found) -> dict[str, Tensor]:
        """`robust`: equation 6 summed over these samples and columns, 0-d."""
        return {"robust": robust_loss(found.margins, batch=1)}


EQUATION_6 = Equation6()
