"""Plain logits: what counts as some, their margins, and what "correct" means everywhere in this package."""

from __future__ import annotations

import torch
from torch import Tensor


def as_logits(output: Tensor) -> Tensor:
    """`[B, K]` of `[B, K, 1, 1]`, as a network ends that averages each class over its pixels; `[B, 1]` of `[B]`."""
    if output.dim() == 1:
        return output.unsqueeze(1)
    single = all(isinstance(size, int) and size == 1 for size in output.shape[2:])  # asking a free size would fix it
    return output.flatten(1) if output.dim() > 2 and single else output


def worst_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """`logits [B, classes]`, `labels [B]` to `[B]`: the largest other logit minus the label's. NaN stays NaN."""
    column = labels.unsqueeze(1)
    return logits.scatter(1, column, -torch.inf).amax(1) - logits.gather(1, column).squeeze(1)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """`bool [B]`: the label's logit is above every other. A tie is wrong (the paper's section 5), and so is NaN."""
    return worst_margin(logits, labels) < 0
