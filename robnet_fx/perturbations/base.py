"""What a perturbation must offer: a specification a user writes, and the module that enters the graphs.

A perturbation turns an image x and D coefficients a into an image, `T(x; a) = tail(entry(x, a))`. The *entry* is
affine in the coefficients once the image is known, `entry(x, a) = M(x) a + b(x)`, and is bounded exactly. The *tail* is
made of ordinary torch operations on the entry's value, such as exp, and is bounded by their rules. The paper's field
and white noise are entries alone. To write another, make one file:

1. Write T as an affine map and what follows it. Gamma is `x^a = exp(a log x)`: the entry is `a log x`, the tail exp.
2. Write the four functions of `TransformRules` for the entry, at module level, for generated code calls them by name.
   What depends on the image, as the logarithm here, goes into them; guard what is infinite (`log max(x, 1e-3)`). With
   M and b: `apply` is `M a + b`; `ibp` is `M center + b` ± `|M| radius`; `ssip` has `M_d radius_d` as coefficient d,
   `M center + b` as constant and no slack; `rsip` pulls a form back, `<coef, M_d>` for each d and `<coef, b>` into its
   constant.
3. Write a `Transform`: `rules` are these functions, `part_names` the tensors that they take between the image and the
   box (a basis), `box_at(eps)` the box at an eps, with the identity at 0, `tail(value)` what follows the
   entry, and `max_ssip_dimensions` a limit where D may be too many for SSIP.
4. Write the specification, a frozen dataclass with `eps` and `build(shape)`, and name it in `robnet_fx/__init__.py`.

`robnet_fx.testing.check_sound` then hunts for coefficients that leave a bound. The default box lies in the buffers
`center` and `radius [D]`, which `set_eps` changes in place, so that a graph is generated once; any other box is an
argument of the graphs.
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
    """eps as a plain number in [0, 1], `UsageError` for anything else; pixel levels are for the command line."""
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
    """The perturbation of one image shape: its default box and the tensors `part_names` as buffers, the rules of its
    entry as functions, and its tail."""

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
            self.register_buffer(name, value.clone(), persistent=False)  # the problem's, not a part of any weights

    @property
    def dimensions(self) -> int:
        """D."""
        return self.center.numel()

    @property
    def fits_ssip(self) -> bool:
        """Whether the coefficients are few enough for forward symbolic bounds, which carry each of them."""
        return self.max_ssip_dimensions is None or self.dimensions <= self.max_ssip_dimensions

    def tail(self, value: Tensor) -> Tensor:
        """What follows the entry, `[B, *S] -> [B, *S]`: ordinary torch code that is traced into nodes of the graph.

        It works each sample alone and reads nothing but the value and tensors of this module."""
        return value

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
    def eps(self) -> float:
        """A plain number in [0, 1]; 0 is the identity."""

    def build(self, shape: tuple[int, ...]) -> Transform:
        """The transform of images `[B, *shape]`, channels first."""
