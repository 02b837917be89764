"""Images as a perturbation leaves them."""

from __future__ import annotations

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.layout import channels_first


def perturbed_images(net: BoundedModel, coefficients: Tensor, images: Tensor) -> Tensor:
    """Images `[B, *S]` in [0, 1] under physical coefficients `[B, D]`, clipped as the net's are, channels first."""
    transform, images = net.transform, channels_first(images, net.layout.axes)
    parts = [getattr(transform, name) for name in transform.part_names]
    made: Tensor = transform.tail(transform.rules.apply(coefficients, images, *parts))
    return made if net.clip is None else made.clamp(0, 1)
