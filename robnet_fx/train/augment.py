"""The usual augmentation of small photographs: a mirror image half of the time, and a shift."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from robnet_fx.errors import UsageError

SHIFT = 4


def augment(images: Tensor) -> Tensor:
    """`[B, C, H, W]` to the same shape, each image mirrored at random and moved by up to 4 pixels, zeros moving in.

    Draws from torch's global CPU generator, whatever the device.
    """
    if images.dim() != 4:
        raise UsageError(f"augmentation is for images [B, C, H, W], not {list(images.shape)}")
    count, channels, height, width = images.shape
    mirrored = torch.rand(count) < 0.5
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, count))
    mirrored, down, right = (x.to(images.device) for x in (mirrored, down, right))
    turned = torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
    framed = pad(turned, (SHIFT,) * 4)
    rows = down.unsqueeze(1) + torch.arange(height, device=images.device)
    columns = right.unsqueeze(1) + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device).reshape(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).reshape(1, -1, 1, 1)
    return framed[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
