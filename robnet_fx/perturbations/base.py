"""What a perturbation must offer: a specification a user writes, and the module that enters the graphs.

A perturbation is affine in its coefficients `a` once the image is known. The specification (`BiasField`, `WhiteNoise`)
is a frozen dataclass; `build(shape)` gives the `Transform` for images of that shape, whose buffers `center` and
`radius [D]` are the box and are changed in place by `set_eps`, so that a graph is generated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from robnet_fx.algebra.domains import Interval, Symbolic
from robnet_fx.errors import UsageError


def check_eps(eps: float) -> float:
    """eps as a plain number in [0, 1]; pixel levels are a matter of the command line."""
    try:
        value = float(eps)
    except (TypeError, ValueError):
        raise UsageError(f"eps must be a number, not {eps!r}") from None
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"eps must be finite and at least 0, not {value}")
    if value > 1:
        raise UsageError(f"eps must be at most 1, not {value}: in Python eps is a plain number, 40 levels are 40/255")
    return value


class Box(NamedTuple):
    """The coefficients `center + radius * t`, `t` in `[-1, 1]^D`: each `[1 or B, D]`, one for all or one a sample."""

    center: Tensor
    radius: Tensor


class TransformRules(NamedTuple):
    """The functions that graphs call: `apply(coefficients, image, *parts)` is the perturbed image `[B, *S]`;
    `ibp` and `ssip` take `(image, *parts, center, radius)` and `upper` a form in front of these."""

    apply: Callable[..., Tensor]
    ibp: Callable[..., Interval]
    ssip: Callable[..., Symbolic]
    upper: Callable[..., Tensor]


class Transform(nn.Module):
    """The perturbation of one image shape: its box and the tensors `part_names` as buffers, its rules as functions."""

    center: Tensor
    radius: Tensor
    part_names: tuple[str, ...] = ()
    rules: TransformRules
    max_ssip_dimensions: int | None = None

    def __init__(self, center: Tensor, radius: Tensor, **parts: Tensor) -> None:
        """All in float64; `parts` are the tensors named by `part_names`."""
        super().__init__()
        self._exact = parts
        for name, value in {"center": center, "radius": radius, **parts}.items():
            self.register_buffer(name, value.clone())

    @property
    def dimensions(self) -> int:
        return self.center.numel()

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        """(center, radius) of the box at another eps; 0 gives the identity."""
        raise NotImplementedError

    @torch.no_grad()
    def set_eps(self, eps: float) -> None:
        """Move the box to another eps in place (the ramp); 0 collapses it onto the unperturbed image.

        Every buffer is set from its float64 original, so after `.double()` nothing of float32's rounding is left.
        """
        center, radius = self.box_at(check_eps(eps))
        for name, value in {"center": center, "radius": radius, **self._exact}.items():
            getattr(self, name).copy_(value)


class Perturbation(Protocol):
    """What a user writes: `BiasField(3, 40 / 255)`, `WhiteNoise(0.01)`."""

    @property
    def eps(self) -> float: ...

    def build(self, shape: tuple[int, ...]) -> Transform: ...
