"""The networks of the paper and a small one for digits: plain `nn.Sequential`, images `[B, C, H, W]` to logits.

DM-Small, DM-Medium and DM-Large are the CIFAR-10 networks of Zhang et al. 2020; the layers of the MRI network are not
published, these match its ReLU and parameter counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from robnet_fx.errors import UsageError


def dm_small() -> nn.Sequential:
    """DM-Small: `[B, 3, 32, 32]` to 10 logits; 6,244 ReLUs, 214,918 parameters."""
    return nn.Sequential(
        *_conv(3, 16, kernel=4, stride=2),
        *_conv(16, 32, kernel=4, stride=2),
        *_head(32 * 8 * 8, 100, classes=10),
    )


def dm_medium() -> nn.Sequential:
    """DM-Medium: `[B, 3, 32, 32]` to 10 logits; 62,464 ReLUs, 2,466,858 parameters."""
    return nn.Sequential(
        *_conv(3, 32, kernel=3),
        *_conv(32, 32, kernel=4, stride=2),
        *_conv(32, 64, kernel=3),
        *_conv(64, 64, kernel=4, stride=2),
        *_head(64 * 8 * 8, 512, 512, classes=10),
    )


def dm_large() -> nn.Sequential:
    """DM-Large: `[B, 3, 32, 32]` to 10 logits; 229,888 ReLUs, 17,190,602 parameters."""
    return nn.Sequential(
        *_conv(3, 64, kernel=3),
        *_conv(64, 64, kernel=3),
        *_conv(64, 128, kernel=3, stride=2),
        *_conv(128, 128, kernel=3),
        *_conv(128, 128, kernel=3),
        *_head(128 * 16 * 16, 512, classes=10),
    )


def mri_net() -> nn.Sequential:
    """The brain tumour network: `[B, 1, 128, 128]` to 4 logits; 311,808 ReLUs, 17,197,492 parameters."""
    return nn.Sequential(
        *_conv(1, 16, kernel=3, stride=2),
        *_conv(16, 16, kernel=3, stride=2),
        *_conv(16, 64, kernel=3),
        *_conv(64, 64, kernel=3),
        *_conv(64, 128, kernel=3, stride=2),
        *_conv(128, 128, kernel=3),
        *_conv(128, 128, kernel=3),
        *_head(128 * 16 * 16, 512, classes=4),
    )


def digits_net() -> nn.Sequential:
    """A small network for 8x8 digits: `[B, 1, 8, 8]` to 10 logits; 832 ReLUs, 18,346 parameters."""
    return nn.Sequential(
        *_conv(1, 8, kernel=3),
        *_conv(8, 16, kernel=3, stride=2),
        *_head(16 * 4 * 4, 64, classes=10),
    )


@dataclass(frozen=True)
class Architecture:
    """One network of the zoo: how to build it, what it takes and what it was made for."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]  # without the batch
    classes: int
    description: str
    data: str | None = None  # the data set it is for, where `robnet_fx.zoo.data.load` knows one


REGISTRY: dict[str, Architecture] = {
    "digits": Architecture(digits_net, (1, 8, 8), 10, "two convolutions, 832 ReLUs; exported trained", "digits"),
    "dm-small": Architecture(dm_small, (3, 32, 32), 10, "two convolutions, 6,244 ReLUs", "cifar10"),
    "dm-medium": Architecture(dm_medium, (3, 32, 32), 10, "four convolutions, 62,464 ReLUs", "cifar10"),
    "dm-large": Architecture(dm_large, (3, 32, 32), 10, "five convolutions, 229,888 ReLUs", "cifar10"),
    "mri": Architecture(mri_net, (1, 128, 128), 4, "seven convolutions, 311,808 ReLUs, brain MRI slices"),
}


def architecture(name: str) -> Architecture:
    """The registered network of this name; `UsageError` lists the known ones."""
    if name not in REGISTRY:
        raise UsageError(f"unknown network {name!r}; known: {', '.join(REGISTRY)}")
    return REGISTRY[name]


def fresh(name: str, seed: int = 0) -> nn.Module:
    """A registered network with the random weights that `seed` gives; `UsageError` for an unknown name."""
    entry = architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build()


def _conv(channels: int, out: int, *, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out, kernel, stride, padding=1), nn.ReLU()


def _head(features: int, *hidden: int, classes: int) -> list[nn.Module]:
    """Flatten, hidden fully connected layers with ReLUs, logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return [*layers, nn.Linear(features, classes)]
