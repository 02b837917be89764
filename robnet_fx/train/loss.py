"""The training loss of the paper's section 5: equation 6 over upper bounds of the margins, weighed in equation 7."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robnet_fx.algebra.logits import correct
from robnet_fx.bounds.model import BoundedModel

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


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
class Losses:
    """One batch, as figures: equation 7 is `standard + alpha * robust`, `correct` and `certified` count samples, and
    `active`, `bool [B]`, marks the samples that are correct and not certified, the only ones with a robust loss."""

    standard: Tensor
    robust: Tensor
    correct: Tensor
    certified: Tensor
    active: Tensor


def accumulate(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    robust: bool = True,
    frozen: bool = True,
    likely: Tensor | None = None,
    part: int | None = None,
    rows: int | None = None,
    batch: int | None = None,
    precision: str = "float32",
) -> Losses:
    """Add to the parameters' gradients those of equation 7, cross entropy + alpha * equation 6, at the box `net` has
    now, for images `[B, C, *spatial]` in [0, 1].

    The user's module runs first, in train mode: a batch norm overwrites its running statistics then, without telling
    autograd, so bounds built earlier would be differentiated with statistics they were not computed with. "Correct"
    and the bounds come after, both in eval semantics.

    Only active samples have a gradient, and it costs twice the bounds themselves. Samples that are `likely` (`bool
    [B]`, all if not given) to be active get bounds with gradients at once; the others are bounded without, and once
    more with gradients if they turn out to be active. So a guess changes the time a step takes and nothing else.
    `part` samples and `rows` margins of each are worked at a time, all if not given, but for a batch norm that learns
    from the whole batch; `batch` is what the losses are divided by, if not B. `precision` is that of the bounds
    (`bounds_precision`), from which the robust loss and who is active follow.

    `frozen` keeps the running statistics of batch norm as they are while the robust loss counts. Bounds treat them as
    constants, so an optimiser that may also move them shrinks the weights in front faster than the statistics follow,
    and loses the gain when they catch up.
    """
    if not len(images):  # what a rank has of a small batch; not every module takes none
        none = images.new_zeros(())
        return Losses(none, none, none, none, torch.zeros_like(labels, dtype=torch.bool))
    net.model.train()
    norms = [module for module in net.model.modules() if isinstance(module, _BATCH_NORM)]
    if robust and frozen:
        for norm in norms:
            norm.eval()
    batch = batch or len(images)
    learning = any(norm.training for norm in norms)
    size = len(images) if learning or part is None else part
    standard = images.new_zeros(())
    for some, theirs in zip(images.split(size), labels.split(size), strict=True):
        loss = cross_entropy(net.module_logits(some), theirs, reduction="sum") / batch
        loss.backward()
        standard = standard + loss.detach()
    net.model.eval()
    with torch.no_grad():
        right = correct(net.logits(images), labels)
    active = torch.zeros_like(right)
    hinge, certified = torch.zeros_like(standard), torch.zeros_like(right.sum())
    if robust:

        def margins(index: Tensor) -> Iterator[Tensor]:
            return net.margins_in_parts(images[index], labels[index], rows=rows, precision=precision)

        likely = right if likely is None else right & likely
        with torch.no_grad():
            for index in _parts(right & ~likely, part):
                for some in margins(index):
                    active[index] |= _uncertified(some)
        for index in _parts(likely | active, part):
            for some in margins(index):
                active[index] |= _uncertified(some)
                loss = robust_loss(some, batch=batch)
                (alpha * loss).backward()
                hinge = hinge + loss.detach()
        certified = (right & ~active).sum()
    return Losses(standard, hinge, right.sum(), certified, active)


def _uncertified(margins: Tensor) -> Tensor:
    """`bool [B]`: some upper margin is not below 0, or is not a number."""
    return ~(margins.detach() < 0).all(1)


def _parts(chosen: Tensor, size: int | None) -> list[Tensor]:
    """The indices of the chosen samples, at most `size` at a time."""
    index = chosen.nonzero().squeeze(1)
    return [piece for piece in index.split(size or max(1, len(index))) if len(piece)]
