"""What one batch gave, as named figures: computed by a rank for its part, summed over ranks, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robnet_fx.machine import ranks


@dataclass(frozen=True)
class Figures:
    """Figures of a batch or of a rank's part of it, all 0-d tensors by name.

    `losses` are sums over the samples divided by the size of the whole batch, "standard" (the cross entropy) first;
    the loss that is minimised is their sum, each times its `weights`. `counts` are numbers of samples. `active`, `bool
    [B]`, marks the samples that are bounded and not certified.
    """

    losses: dict[str, Tensor]
    weights: dict[str, float]
    counts: dict[str, Tensor]
    active: Tensor


@dataclass(frozen=True)
class Numbers:
    """The figures of a whole batch, read: the `loss` minimised, what each figure adds to the `sums` of an epoch over
    all its samples, the `shares` of the batch that the counts are, and the `norm` of the gradient."""

    loss: float
    sums: dict[str, float]
    shares: dict[str, float]
    norm: float


def over_ranks(figures: Figures, own: slice, count: int, parameters: Sequence[Tensor]) -> Figures:
    """The figures of the whole batch of `count` samples, from those of every rank's `own` part; gradients likewise.

    DistributedDataParallel would do so within each backward pass, but a step has several, one for each part of the
    samples that have a gradient, and ranks differ in how many. So it is done once, when a rank's gradients are
    complete. All ranks' figures have the same names in the same order.
    """
    active = torch.zeros(count, dtype=torch.bool, device=figures.active.device)
    active[own] = figures.active
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    parts = [*figures.losses.values(), *figures.counts.values(), active, *gradients]
    totals = iter(ranks.total(parts))
    losses, counts = ({name: next(totals) for name in named} for named in (figures.losses, figures.counts))
    active, *gradients = totals
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return replace(figures, losses=losses, counts=counts, active=active)


def read(figures: Figures, count: int, parameters: Sequence[Tensor]) -> Numbers:
    """Wait for the device, once, for all numbers of a batch of `count` samples and its gradient."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    tensors = *figures.losses.values(), *figures.counts.values(), norm
    *values, size = torch.stack([tensor.to(norm.dtype) for tensor in tensors]).tolist()
    named = dict(zip((*figures.losses, *figures.counts), values, strict=True))
    return Numbers(
        loss=sum(weight * named[name] for name, weight in figures.weights.items()),
        sums={name: value * count if name in figures.losses else value for name, value in named.items()},
        shares={name: named[name] / count for name in figures.counts},
        norm=size,
    )
