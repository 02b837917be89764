"""Sets of pictures: stored as uint8 (or float in [0, 1]), checked once, worked on in float batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robnet_fx.errors import UsageError

_SUBSET_SEED = 0  # a limited set is the same set in every command and run


def check(images: Tensor, labels: Tensor, classes: int) -> None:
    """Refuse a set that cannot be worked on; `UsageError` says what is wrong.

    images `[N, C, *spatial]`, uint8 or float in [0, 1]; labels `[N]`, whole numbers in `0 .. classes - 1`.
    """
    if images.dim() < 2 or labels.dim() != 1 or len(images) != len(labels):
        raise UsageError(f"images {list(images.shape)} and labels {list(labels.shape)} do not belong together")
    if not len(images):
        raise UsageError("the data set holds no images")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(f"labels must be whole numbers, not {labels.dtype}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UsageError(f"labels run from {int(labels.min())} to {int(labels.max())}; the model has {classes} classes")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise UsageError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
    low, high = (float(end) for end in images.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise UsageError(
            f"float images must lie in [0, 1], not from {low:g} to {high:g}; pixel values 0 .. 255 are given as uint8"
        )


def to_float(images: Tensor, like: Tensor) -> Tensor:
    """The same images in [0, 1], with the dtype and on the device of `like`."""
    moved = images.to(device=like.device)
    return moved.to(like.dtype) / 255 if moved.dtype == torch.uint8 else moved.to(like.dtype)


def batches(count: int, size: int) -> Iterator[slice]:
    """`0 .. count - 1` in consecutive slices of at most `size`."""
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}")
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def subset(count: int, limit: int | None) -> Tensor:
    """The indices `[min(count, limit)]` that a limit leaves, in order: a fixed random choice.

    The first so many would be a single class in a set sorted by class.
    """
    if limit is None or limit >= count:
        return torch.arange(count)
    if limit < 1:
        raise UsageError(f"a limit must be at least 1, not {limit}")
    generator = torch.Generator().manual_seed(_SUBSET_SEED)
    return torch.randperm(count, generator=generator)[:limit].sort().values
