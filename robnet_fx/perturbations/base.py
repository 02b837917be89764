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

from robnet_fx.algebra.domains import Form, Interval, Symbolic
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
    """All `center + radius * t` with t in `[-1, 1]^D`; both `[1 or B, D]`, one box for all samples or one for each."""

    center: Tensor
    radius: Tensor


def check_box(box: Box, default: Tensor, batch: int) -> Box:
    """The box in the dtype and on the device of `default [D]`; `UsageError` unless it fits D and the batch, is finite
    and has no negative radius."""
    parts = Box(*(torch.as_tensor(part) for part in box))
    sizes = [list(part.shape) for part in parts]
    if any(len(size) != 2 or size[1] != len(default) or size[0] not in (1, batch) for size in sizes):
        rows = "1" if batch == 1 else f"1 or {batch}"
        raise UsageError(
            f"a box has a center and a radius [{rows}, {len(default)}] each, not {sizes[0]} and {sizes[1]}"
        )
    if not all(bool(part.isfinite().all()) for part in parts):
        raise UsageError("the center and the radius of a box must be finite")
    if bool((parts.radius < 0).any()):
        raise UsageError("the radius of a box must be at least 0 in every coefficient")
    return Box(*(part.to(default) for part in parts))


class TransformRules(NamedTuple):
    """The functions that graphs call, of a map that is affine in the coefficients once the image `[B, *S]` is known.

    `apply(coefficients [B, D], image, *parts)` is its value `[B, *S]`. `ibp` and `ssip` take
    `(image, *parts, center, radius)`, the box `[1 or B, D]`, and give the value's exact `Interval` and `Symbolic` over
    it. `rsip(form, image, *parts)` is a `Form` over the value as one over the coefficients, `coef [B, K, D]`.
    """

    apply: Callable[..., Tensor]
    ibp: Callable[..., Interval]
    ssip: Callable[..., Symbolic]
    rsip: Callable[..., Form]


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
