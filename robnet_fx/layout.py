"""Layouts: images are `[B, C, *spatial]` here; Keras has the channels last, and a perceptron may take a flat vector."""

from __future__ import annotations

import math

from torch import Tensor

from robnet_fx.errors import UsageError

Shape = tuple[int, ...]
"""Sizes without the batch."""

CHANNELS_FIRST, CHANNELS_LAST, FLAT = "channels first", "channels last", "flat"

_CHANNELS = (1, 3, 4)
_SMALLEST = 8  # pixels a side: a shorter vector is hardly an image


def layouts(images: Shape) -> list[tuple[str, Shape]]:
    """(layout, the input of a network that takes images of a shape `(C, *spatial)` so), the likeliest first.

    "channels first" is as they are; "flat" has one channel after the other, as a vector or as a column.
    """
    numbers = math.prod(images)
    flat = [(FLAT, (numbers,)), (FLAT, (numbers, 1))]
    return [(CHANNELS_FIRST, tuple(images)), (CHANNELS_LAST, (*images[1:], *images[:1])), *flat]


def layout(images: Shape, taken: Shape) -> str | None:
    """The first layout in which a network whose input is `taken` can get images of a shape; None where none fits."""
    return next((way for way, shape in layouts(images) if shape == tuple(taken)), None)


def arrange(images: Tensor, taken: Shape) -> Tensor:
    """Images `[B, C, *spatial]` as a network whose input is `taken` gets them, `[B, *taken]`.

    Raises `UsageError` for images that do not fit in any layout.
    """
    shape = tuple(images.shape[1:])
    way = layout(shape, taken)
    if way is None:
        raise UsageError(f"images {list(shape)} do not fit a network that takes {list(taken)}, in no layout")
    if way == CHANNELS_FIRST:
        return images
    return images.movedim(1, -1).contiguous() if way == CHANNELS_LAST else images.reshape(-1, *taken)


def image_shape(taken: Shape) -> Shape:
    """The likely shape `(C, *spatial)` of the images of a network whose input is `taken`, where no image is at hand.

    `[H, W, C]` where only the last size can be a number of channels; a square of one or three channels where a vector
    or a column has as many entries (no length allows both); else `taken` itself.
    """
    if len(taken) == 3 and taken[2] in _CHANNELS and taken[0] not in _CHANNELS:
        return (taken[2], *taken[:2])
    if len(taken) == 1 or taken[1:] == (1,):
        for channels in (1, 3):
            side = math.isqrt(taken[0] // channels)
            if side >= _SMALLEST and channels * side**2 == taken[0]:
                return (channels, side, side)
    return tuple(taken)
