"""Setting a share of every class aside."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of the rest and of a random `share` (rounded) of every class in `labels [N]`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(share * len(members))]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
