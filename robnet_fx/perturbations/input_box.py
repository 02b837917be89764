"""A box on the inputs of any network, as a perturbation of its midpoint: what a property of the competition bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, Interval, Symbolic
from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Transform, TransformRules, check_eps
from robnet_fx.perturbations.white_noise import MAX_SSIP_DIMENSIONS

_LARGEST = 1e38  # of an input: float32 holds it, and the radius of a box between two of these


@dataclass(frozen=True)
class InputBox:
    """All inputs between `lower` and `upper`, number by number in row-major order: `x + a` with x the `midpoint`.

    D is the number of inputs that are not fixed (`lower < upper`), or 1 where all are, with a radius of 0. Inputs need
    not be images nor lie in [0, 1]: the clip of such a problem is None. `eps` scales the box about its midpoint: 1 is
    all of it, 0 the midpoint alone. Raises `UsageError` for bounds that are no box.
    """

    lower: Sequence[float]
    upper: Sequence[float]
    eps: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_eps(self.eps))
        for name in ("lower", "upper"):
            values = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            object.__setattr__(self, name, tuple(values.flatten().tolist()))
        if len(self.lower) != len(self.upper) or not self.lower:
            raise UsageError(
                f"a box has a lower and an upper end for each input, not {len(self.lower)} and {len(self.upper)}"
            )
        for index, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not (low <= high and abs(low) <= _LARGEST and abs(high) <= _LARGEST):  # NaN is none of it
                raise UsageError(f"input {index} has no interval between {low:g} and {high:g}")

    @property
    def midpoint(self) -> Tensor:
        """`[n]` float64: the image that this is a perturbation of."""
        return around(*_ends(self))[0]

    def build(self, shape: tuple[int, ...]) -> InputBoxTransform:
        """The transform of inputs `[B, *shape]`. Raises `UsageError` where these are not as many as the box has."""
        if math.prod(shape) != len(self.lower):
            raise UsageError(f"the box has {len(self.lower)} inputs, and the network takes {list(shape)}")
        return InputBoxTransform(self)


def _ends(box: InputBox) -> tuple[Tensor, Tensor]:
    return torch.tensor(box.lower, dtype=torch.float64), torch.tensor(box.upper, dtype=torch.float64)


def around(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """(midpoint, radius), float64, of boxes `[..., n]`: all that lies between the ends lies in midpoint ± radius.

    What rounding takes off is added to the radius; both are numbers that float32 has too, so that the box is the same
    one in either. An input that is fixed is its own midpoint, with a radius of 0.
    """
    lower, upper = lower.double(), upper.double()
    fixed = lower == upper
    middle = torch.where(fixed, lower, (lower / 2 + upper / 2).float().double())
    reach = torch.maximum(upper - middle, middle - lower)
    reach = torch.nextafter(reach, torch.full_like(reach, torch.inf))  # the difference is rounded to nearest
    short = reach.float()
    up = torch.nextafter(short, torch.full_like(short, torch.inf))
    radius = torch.where(short.double() < reach, up, short).double()
    return middle, radius.masked_fill(fixed, 0)


def apply(coefficients: Tensor, image: Tensor, free: Tensor) -> Tensor:
    """`[B, D], [B, *S], [D] -> [B, *S]`: the coefficients added to the inputs that are free, by their numbers."""
    moved = image.flatten(1).index_add(1, free, coefficients.expand(len(image), -1))
    return moved.reshape(image.shape)


def ibp(image: Tensor, free: Tensor, center: Tensor, radius: Tensor) -> Interval:
    """Exact interval of every input over the box, `[1 or B, D]`."""
    middle, reach = apply(center, image, free), apply(radius, torch.zeros_like(image), free)
    return Interval(middle - reach, middle + reach)


def ssip(image: Tensor, free: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
    """The inputs as an exact symbolic value: one coefficient for each that is free, no slack."""
    const = apply(center, image, free)
    numbers = torch.arange(const[0].numel(), device=free.device)
    coef = radius.unsqueeze(2) * (free.unsqueeze(1) == numbers)
    coef = coef.reshape(*radius.shape, *image.shape[1:])
    return Symbolic(coef.expand(len(image), *[-1] * image.dim()), const, torch.zeros_like(const))


def rsip(form: Form, image: Tensor, free: Tensor) -> Form:
    """The form over the inputs as one over the coefficients, `[B, K, D]`: its own, of the inputs that are free."""
    g = form.coef.flatten(2)
    return Form(g.index_select(2, free), (g * image.flatten(1).unsqueeze(1)).sum(2) + form.const)


class InputBoxTransform(Transform):
    """A box over inputs of one shape. The buffer `free [D]` has the numbers of the inputs that are not fixed, in
    row-major order, and the box is a radius about 0 in each of them."""

    free: Tensor
    part_names = ("free",)
    max_ssip_dimensions = MAX_SSIP_DIMENSIONS
    rules = TransformRules(apply, ibp, ssip, rsip)

    def __init__(self, box: InputBox) -> None:
        _, radius = around(*_ends(box))
        free = radius.nonzero().squeeze(1)
        free = free if len(free) else torch.zeros(1, dtype=torch.int64)  # graphs need a coefficient
        self._radius = radius[free]
        super().__init__(*self.box_at(box.eps), free=free)

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self._radius), eps * self._radius
