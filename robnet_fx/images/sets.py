"""A set of images for training: what it must offer, and its split into training, validation and test images."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.images.layout import channels_first
from robnet_fx.images.pixels import subset

Pair = tuple[Tensor, Tensor]
"""Images `[N, C, *spatial]`, uint8 or float in [0, 1], and labels int64 `[N]`."""

_VALIDATION_SHARE, _VALIDATION_MOST = 10, 1000  # one training image in ten is held out, 1000 at most


class Data(Protocol):
    """Images uint8 (or float in [0, 1]) `[N, C, *spatial]`, or with the axes of another layout, and labels int64 `[N]`.

    `x_val` and `y_val`, where they are there and not None, validate; `notes` are phrases on how the data was read, and
    `axes` the axes of the images (`images.layout.AXES`) where it says.
    """

    @property
    def name(self) -> str: ...
    @property
    def x_train(self) -> Tensor: ...
    @property
    def y_train(self) -> Tensor: ...
    @property
    def x_test(self) -> Tensor: ...
    @property
    def y_test(self) -> Tensor: ...


class Parts(NamedTuple):
    """What trains, what chooses, and what judges; no image is in two of them."""

    train: Pair
    validation: Pair
    test: Pair


def split(data: Data, limit: int | None, test_limit: int | None, seed: int, axes: str = "nchw") -> Parts:
    """The parts of `data`, channels first, whose images have the `axes`; limits leave a fixed random choice.

    The data's own validation images validate, up to 1000 of them, else some of the training images, held out by `seed`.
    Raises `UsageError` where there are too few.
    """
    chosen = subset(len(data.x_train), limit)
    test = subset(len(data.x_test), test_limit)

    def some(images: Tensor, labels: Tensor, index: Tensor) -> Pair:
        return channels_first(images[index], axes), labels[index]

    judged = some(data.x_test, data.y_test, test)
    x_val, y_val = (getattr(data, name, None) for name in ("x_val", "y_val"))
    if x_val is not None and y_val is not None:
        val = subset(len(x_val), _VALIDATION_MOST)
        return Parts(some(data.x_train, data.y_train, chosen), some(x_val, y_val, val), judged)
    if len(chosen) < 2:
        raise UsageError("training needs at least two images: one is held out for validation")
    shuffled = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))]
    held_out = min(max(len(chosen) // _VALIDATION_SHARE, 1), _VALIDATION_MOST)
    val, rest = shuffled[:held_out].sort().values, shuffled[held_out:].sort().values
    return Parts(some(data.x_train, data.y_train, rest), some(data.x_train, data.y_train, val), judged)
