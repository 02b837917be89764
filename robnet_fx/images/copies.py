"""Test images that have a near copy among the training images: what they say of a network is what it has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches, to_float
from robnet_fx.machine.progress import SILENT, Progress

_AT_ONCE = 512  # images of either set: 64 MiB each of 128x128 pixels


def distances(images: Tensor, others: Tensor, progress: Progress = SILENT) -> Tensor:
    """The root mean square difference, in grey levels of 255, of each image to the nearest of `others`: float64 `[N]`.

    images `[N, *S]`, others `[M, *S]`, uint8 or float in [0, 1]. Sums are exact where images are uint8. |a - b|^2 is
    |a|^2 + |b|^2 - 2 ab, so that all pairs are products of matrices. Raises `UsageError` for sets of other shapes.
    """
    if images.shape[1:] != others.shape[1:] or not len(others):
        raise UsageError(f"images {list(images.shape)} cannot be compared with {list(others.shape)}")
    nearest = torch.full((len(images),), torch.inf, dtype=torch.float64)
    with progress.task("near copies", len(others)) as task:
        for part in batches(len(others), _AT_ONCE):
            b = _levels(others[part])
            for own in batches(len(images), _AT_ONCE):
                a = _levels(images[own])
                squares = (a * a).sum(1, keepdim=True) + (b * b).sum(1) - 2 * a @ b.T
                nearest[own] = torch.minimum(nearest[own], squares.amin(1))
            task.advance(len(b))
    return (nearest.clamp(min=0) / images[0].numel()).sqrt() if len(images) else nearest


def _levels(images: Tensor) -> Tensor:
    """`[n, pixels]` in grey levels."""
    flat = images.flatten(1)
    like = torch.zeros((), dtype=torch.float64)
    return flat.double() if flat.dtype == torch.uint8 else to_float(flat, like) * 255
