"""The gradients of one batch: the cross entropy of the images as they are, then what the objective makes of bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robnet_fx.algebra.logits import correct
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.train.figures import Figures
from robnet_fx.train.objectives import EQUATION_6, Batch, Objective

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def accumulate(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    objective: Objective = EQUATION_6,
    alpha: float,
    robust: bool = True,
    frozen: bool = True,
    likely: Tensor | None = None,
    part: int | None = None,
    rows: int | None = None,
    batch: int | None = None,
    precision: str = "float32",
) -> Figures:
    """Add to the parameters' gradients those of the losses that `objective` weighs with `alpha` (equation 7), at the
    box `net` has now, for images `[B, C, *spatial]` in [0, 1]; if not `robust`, of the cross entropy alone.

    The user's module runs first, in train mode: a batch norm overwrites its running statistics then, without telling
    autograd, so bounds built earlier would be differentiated with statistics they were not computed with. What is
    correct and the bounds come after, both in eval semantics.

    Samples that are `likely` (`bool [B]`, all if not given) to be active get bounds with gradients at once (see
    `Objective.accumulate`). `part` samples and `rows` margins of each are worked at a time, all if not given, but for a
    batch norm that learns from the whole batch; margins of which the objective needs all at once are not split. `batch`
    is what the losses are divided by, if not B. `precision` is that of the bounds (`bounds_precision`), from which the
    objective's losses and who is active follow.

    `frozen` keeps the running statistics of batch norm as they are while a robust loss counts. Bounds treat them as
    constants, so an optimiser that may also move them shrinks the weights in front faster than the statistics follow,
    and loses the gain when they catch up.
    """
    weights = objective.weights(alpha)
    if not robust:
        weights = dict.fromkeys(weights, 0.0) | {"standard": 1.0}
    none = images.new_zeros(())
    losses = dict.fromkeys(weights, none)
    if not len(images):  # what a rank has of a small batch; not every module takes none
        nobody = torch.zeros_like(labels, dtype=torch.bool)
        return Figures(losses, weights, _counts(objective, none, none), nobody)
    net.model.train()
    norms = [module for module in net.model.modules() if isinstance(module, _BATCH_NORM)]
    if robust and frozen:
        for norm in norms:
            norm.eval()
    batch = batch or len(images)
    learning = any(norm.training for norm in norms)
    size = len(images) if learning or part is None else part
    for some, theirs in zip(images.split(size), labels.split(size), strict=True):
        loss = cross_entropy(net.module_logits(some), theirs, reduction="sum") / batch
        (weights["standard"] * loss).backward()
        losses["standard"] = losses["standard"] + loss.detach()
    net.model.eval()
    with torch.no_grad():
        right = correct(net.logits(images), labels)
    certified = active = torch.zeros_like(right)
    if robust:
        guess = torch.ones_like(right) if likely is None else likely
        work = Batch(net, images, labels, right, guess, weights, batch, part, rows, precision)
        found, certified, active = objective.accumulate(work)
        losses |= found
    return Figures(losses, weights, _counts(objective, right.sum(), certified.sum()), active)


def _counts(objective: Objective, clean: Tensor, certified: Tensor) -> dict[str, Tensor]:
    """Numbers of samples by name: who is certified where there are bounds to say it."""
    return {"clean": clean, "certified": certified} if objective.bounded else {"clean": clean}
