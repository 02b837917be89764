"""The paper's bias field (Definitions 3-5): tensor-product monomials on i/n, multiplicative, additive or both."""

from __future__ import annotations

import itertools
import math
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Form, Interval, Symbolic
from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Transform, TransformRules, check_eps

Pairs = Sequence[tuple[float, float]]

_HIGHER_TERMS = (
    15  # the paper divides eps by 15 for all terms but the constant, whatever the order (design: unit of eps)
)


@dataclass(frozen=True)
class BiasField:
    """`T(x; a) = x * B(a_m) + B(a_a)` with `B(a) = sum a_tg (i/n)^t (j/m)^g`, `t, g = 0 .. order` (Definition 4).

    eps is a plain number in [0, 1]: the constant coefficient of the multiplicative field lies in [1 - eps, 1 + eps],
    every other one in ± eps/15; `additive=True` puts its constant in ± eps and the rest in ± eps/15. Instead of True
    either part takes an explicit box, one (lower, upper) pair for each of its `(order + 1) ** dimensions` coefficients
    in row-power-major order; it is the box at `eps` and `set_eps` scales it about the identity. Order 0 is contrast
    (multiplicative) or brightness (additive). Raises `UsageError` for an order or eps out of range and for a box in the
    form of another tool; a box without the identity, 1 for the multiplicative constant and 0 for everything else, earns
    a warning, for its fields change every image.
    """

    order: int
    eps: float
    multiplicative: bool | Pairs = True
    additive: bool | Pairs = False

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or not isinstance(self.order, int) or self.order < 0:
            raise UsageError(f"the order of a bias field must be a whole number of at least 0, not {self.order!r}")
        object.__setattr__(self, "eps", check_eps(self.eps))
        explicit = [name for name in ("multiplicative", "additive") if not isinstance(getattr(self, name), bool)]
        if explicit and self.eps == 0:
            raise UsageError(f"an explicit {explicit[0]} box needs the eps it belongs to, and eps is 0")
        if self.multiplicative is False and self.additive is False:
            raise UsageError("a bias field needs a multiplicative or an additive part")
        for name in explicit:
            object.__setattr__(self, name, _pairs(getattr(self, name), name))

    def build(self, shape: tuple[int, ...]) -> FieldTransform:
        """The transform of images `[B, *shape]`: `[C, L]`, `[C, H, W]`, `[C, D, H, W]`, or `[n]` without channels."""
        return FieldTransform(self, shape)


def _pairs(given: Any, name: str) -> Pairs:
    """An explicit box as plain pairs of numbers, with a warning where it leaves out the identity."""
    try:
        box = tuple((float(lower), float(upper)) for lower, upper in given)
    except (TypeError, ValueError):
        raise UsageError(
            f"{name}={reprlib.repr(given)} is not a box of this field\n"
            "  MONAI's coeff_range and TorchIO's coefficients are no boxes of it either: theirs is the exponential of\n"
            "  a polynomial in other coordinates, with coefficients about 0 where these lie about 1, 0, 0, ...\n"
            "  remedy  give one (lower, upper) pair for each coefficient, or True for the box of eps"
        ) from None
    identity = [1.0 if name == "multiplicative" and index == 0 else 0.0 for index in range(len(box))]
    outside = [
        f"coefficient {index} runs from {lower:g} to {upper:g} without {value:g}"
        for index, ((lower, upper), value) in enumerate(zip(box, identity, strict=True))
        if not lower <= value <= upper
    ]
    if outside and all(math.isfinite(end) and lower <= upper for lower, upper in box for end in (lower, upper)):
        warnings.warn(
            f"the {name} box leaves out the unperturbed image: {'; '.join(outside[:3])}{'; ...' * (len(outside) > 3)}\n"
            "  (the identity is 1 for the multiplicative constant and 0 for every other coefficient; a field that is\n"
            "  the exponential of a polynomial, as MONAI's and TorchIO's, has its coefficients about 0 instead)",
            stacklevel=4,
        )
    return box


def monomials(order: int, spatial: tuple[int, ...]) -> Tensor:
    """`[(order + 1) ** dims, *spatial]`: `(i/n)^t (j/m)^g ...` with i from 1 to n and the row's power major."""
    axes = [torch.arange(1, n + 1, dtype=torch.float64) / n for n in spatial]
    terms = []
    for powers in itertools.product(range(order + 1), repeat=len(spatial)):
        term = torch.ones(spatial, dtype=torch.float64)
        for axis, (coordinate, power) in enumerate(zip(axes, powers, strict=True)):
            term = term * (coordinate**power).reshape([-1 if k == axis else 1 for k in range(len(spatial))])
        terms.append(term)
    return torch.stack(terms)


def _unit_box(given: bool | Pairs, name: str, terms: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(identity, centre offset per eps, radius per eps) of one part of the field."""
    if given is False:
        empty = torch.zeros(0, dtype=torch.float64)
        return empty, empty, empty
    identity = torch.zeros(terms, dtype=torch.float64)
    identity[0] = 1.0 if name == "multiplicative" else 0.0
    if given is True:
        radius = torch.full((terms,), 1 / _HIGHER_TERMS, dtype=torch.float64)
        radius[0] = 1.0
        return identity, torch.zeros_like(identity), radius
    box = torch.as_tensor(given, dtype=torch.float64).reshape(-1, 2)
    if box.shape != (terms, 2):
        raise UsageError(f"the {name} box needs {terms} (lower, upper) pairs, not {list(box.shape)} numbers")
    if not bool(box.isfinite().all()) or bool((box[:, 0] > box[:, 1]).any()):
        raise UsageError(f"the {name} box must be finite with lower <= upper in every pair")
    return identity, (box.mean(1) - identity) / eps, (box[:, 1] - box[:, 0]) / 2 / eps


def _evaluate(coefficients: Tensor, basis: Tensor) -> Tensor:
    """`[N, D], [D, *S'] -> [N, *S']`."""
    return (coefficients @ basis.flatten(1)).reshape(-1, *basis.shape[1:])


def _parts(values: Tensor, multiplicative: Tensor) -> tuple[Tensor, Tensor]:
    """Split `[..., D]` into the multiplicative and the additive coefficients."""
    return values[..., : len(multiplicative)], values[..., len(multiplicative) :]


def apply(coefficients: Tensor, image: Tensor, multiplicative: Tensor, additive: Tensor) -> Tensor:
    """The field applied: physical coefficients `[B, D]` and image `[B, *S]` to `[B, *S]` (Definition 4)."""
    scale, shift = _parts(coefficients, multiplicative)
    value = image * _evaluate(scale, multiplicative) if len(multiplicative) else image
    return value + _evaluate(shift, additive) if len(additive) else value


def ibp(image: Tensor, multiplicative: Tensor, additive: Tensor, center: Tensor, radius: Tensor) -> Interval:
    """Exact interval of every pixel over the box `[1 or B, D]`."""
    middle = apply(center, image, multiplicative, additive)
    scale, shift = _parts(radius, multiplicative)
    reach = torch.zeros_like(middle)
    if len(multiplicative):
        reach = reach + image.abs() * _evaluate(scale, multiplicative.abs())
    if len(additive):
        reach = reach + _evaluate(shift, additive.abs())
    return Interval(middle - reach, middle + reach)


def ssip(image: Tensor, multiplicative: Tensor, additive: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
    """The perturbed image as an exact symbolic value: Definition 7's W scaled to the unit box, no slack."""
    const = apply(center, image, multiplicative, additive)
    scale, shift = _parts(radius, multiplicative)
    tail = [1] * (multiplicative.dim() - 1)
    coef = []
    if len(multiplicative):
        coef.append(image.unsqueeze(1) * (scale.reshape(*scale.shape, *tail) * multiplicative))
    if len(additive):
        columns = shift.reshape(*shift.shape, *tail) * additive
        coef.append(columns.expand(image.shape[0], len(additive), *image.shape[1:]))
    return Symbolic(torch.cat(coef, 1), const, torch.zeros_like(const))


def rsip(form: Form, image: Tensor, multiplicative: Tensor, additive: Tensor) -> Form:
    """The form over the pixels as one over the coefficients: `g_d = sum_s coef_s image_s basis_ds`, no W built."""
    columns = []
    const = form.const
    weighted = form.coef * image.unsqueeze(1)
    if len(multiplicative):
        columns.append(_project(weighted, multiplicative))
    else:
        const = const + weighted.flatten(2).sum(2)
    if len(additive):
        columns.append(_project(form.coef, additive))
    return Form(torch.cat(columns, 2), const)


def _project(coef: Tensor, basis: Tensor) -> Tensor:
    """`[B, K, *S], [D, *S'] -> [B, K, D]`; channels share the field, so they are added up first."""
    if coef.dim() > 3:
        coef = coef.sum(2, keepdim=True)
    return coef.flatten(2) @ basis.flatten(1).T


class FieldTransform(Transform):
    """A bias field over images of one shape. Buffers `multiplicative` and `additive` are the bases
    `[D_m, 1, *spatial]` and `[D_a, 1, *spatial]`; the box runs over the multiplicative coefficients first."""

    multiplicative: Tensor
    additive: Tensor
    part_names = ("multiplicative", "additive")
    rules = TransformRules(apply, ibp, ssip, rsip)

    def __init__(self, spec: BiasField, shape: tuple[int, ...]) -> None:
        if not 1 <= len(shape) <= 4:
            raise UsageError(f"a bias field needs images of one to three spatial axes, not of shape {list(shape)}")
        spatial = shape if len(shape) == 1 else shape[1:]
        basis = monomials(spec.order, spatial)
        if len(shape) > 1:
            basis = basis.unsqueeze(1)
        parts = [_unit_box(getattr(spec, name), name, len(basis), spec.eps) for name in self.part_names]
        self._identity = torch.cat([part[0] for part in parts])
        self._unit_center = torch.cat([part[1] for part in parts])
        self._unit_radius = torch.cat([part[2] for part in parts])
        bases = {name: basis[: len(part[0])] for name, part in zip(self.part_names, parts, strict=True)}
        super().__init__(*self.box_at(spec.eps), **bases)

    def box_at(self, eps: float) -> tuple[Tensor, Tensor]:
        return self._identity + eps * self._unit_center, eps * self._unit_radius

    def deviations(self, coefficients: Tensor) -> dict[str, Tensor]:
        """How far each part of a field is from doing nothing, pixel by pixel: `[B, D]` to `[B, 1, *spatial]` by the
        part's name. A multiplicative 0.2 makes a pixel a fifth brighter, an additive one is added to it."""
        moved = coefficients - self._identity.to(coefficients)
        parts = zip(self.part_names, _parts(moved, self.multiplicative), strict=True)
        return {name: _evaluate(part, getattr(self, name)) for name, part in parts if part.shape[1]}
