"""White noise (Definition 2): an l-infinity ball around the image, the perturbation most of the field works with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, Interval, Symbolic
from robnet_fx.perturbations.base import Transform, TransformRules, check_eps

MAX_SSIP_DIMENSIONS = 1024  # one coefficient a pixel: beyond this forward symbolic bounds stop being affordable


@dataclass(frozen=True)
class WhiteNoise:
    """`x + a` with every pixel's `a` in ± eps (a plain number in [0, 1]); D is the number of pixels times channels.

    SSIP carries D coefficients for every unit and is refused above 1024; RSIP-IBP has no such limit.
    """

    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_eps(self.eps))

    def build(self, shape: tuple[int, ...]) -> NoiseTransform:
        return NoiseTransform(self.eps, shape)


def apply(coefficients: Tensor, image: Tensor) -> Tensor:
    """`[B, D], [B, *S] -> [B, *S]`: the noise added pixel by pixel."""
    return image + coefficients.reshape(-1, *image.shape[1:])


def ibp(image: Tensor, center: Tensor, radius: Tensor) -> Interval:
    """Exact interval of every pixel over the ball, `[1 or B, D]`."""
    middle = apply(center, image)
    reach = radius.reshape(-1, *image.shape[1:])
    return Interval(middle - reach, middle + reach)


def ssip(image: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
    """The noisy image as an exact symbolic value: one coefficient a pixel, no slack."""
    const = apply(center, image)
    coef = torch.diag_embed(radius).reshape(*radius.shape, *image.shape[1:])
    return Symbolic(coef.expand(len(image), *[-1] * image.dim()), const, torch.zeros_like(const))


def rsip(form: Form, image: Tensor) -> Form:
    """The form over the pixels as one over the noise, `[B, K, D]`: its own coefficients."""
    g = form.coef.flatten(2)
    return Form(g, (g * image.flatten(1).unsqueeze(1)).sum(2) + form.const)


class NoiseTransform(Transform):
    """White noise over images of one shape; the box runs over the numbers of `[C, *spatial]` in row-major order,
    channels first whatever the axes of the user's arrays."""

    max_ssip_dimensions = MAX_SSIP_DIMENSIONS
    rules = TransformRules(apply, ibp, ssip, rsip)

    def __init__(self, eps: float, shape: tuple[int, ...]) -> None:
        self._pixels = math.prod(shape)
        super().__init__(*self.box_at(eps))

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        return torch.zeros(self._pixels, dtype=torch.float64), torch.full((self._pixels,), eps, dtype=torch.float64)
