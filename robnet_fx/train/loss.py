"""The training loss of the paper's section 5: equation 6 over upper bounds of the margins, weighed in equation 7."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robnet_fx.bounded import BoundedModel
from robnet_fx.margins import correct

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
    """One batch: `total` carries the gradient, the others are figures (`correct` and `certified` count samples)."""

    total: Tensor
    standard: Tensor
    robust: Tensor
    correct: Tensor
    certified: Tensor


def batch_losses(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    robust: bool = True,
    frozen: bool = True,
    batch: int | None = None,
) -> Losses:
    """Equation 7 on images `[B, C, *spatial]` in [0, 1]: cross entropy + alpha * equation 6 at the box `net` has now.

    The user's module runs first, in train mode: a batch norm overwrites its running statistics then, without telling
    autograd, so bounds built earlier would be differentiated with statistics they were not computed with. "Correct"
    and the bounds come after, both in eval semantics. Bounds are built only for the correct samples. `batch` is the
    size of the whole batch when images are a part of it: the losses of the parts add up.

    `frozen` keeps the running statistics of batch norm as they are while the robust loss counts. Bounds treat them as
    constants, so an optimiser that may also move them shrinks the weights in front faster than the statistics follow,
    and loses the gain when they catch up.
    """
    net.model.train()
    if robust and frozen:
        for module in net.model.modules():
            if isinstance(module, _BATCH_NORM):
                module.eval()
    batch = batch or len(images)
    standard = cross_entropy(net.module_logits(images), labels, reduction="sum") / batch
    net.model.eval()
    with torch.no_grad():
        right = correct(net.logits(images), labels)
    zero = standard.new_zeros(())
    if not robust or not bool(right.any()):
        return Losses(standard, standard.detach(), zero, right.sum(), zero)
    margins = net.margins(images[right], labels[right])
    hinge = robust_loss(margins, batch=batch)
    certified = (margins.detach() < 0).all(1).sum()
    return Losses(standard + alpha * hinge, standard.detach(), hinge.detach(), right.sum(), certified)
