"""Interpolation: nearest and linear weights are not negative, cubic ones are, so |W| is built axis by axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from robnet_fx.rules.affine import affine
from robnet_fx.rules.refusals import needs_axes
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _in_any_dtype(upsample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A CPU does not antialias in bfloat16."""
    if "_aa" not in upsample.__name__:
        return upsample

    def f(x: Tensor, *rest: Any) -> Tensor:
        return upsample(x.float(), *rest).to(x.dtype) if x.dtype == torch.bfloat16 else upsample(x, *rest)

    return f


for _name in (
    *(f"upsample_nearest{dims}d" for dims in (1, 2, 3)),
    *(f"_upsample_nearest_exact{dims}d" for dims in (1, 2, 3)),
    "upsample_linear1d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_trilinear3d",
):
    _target = getattr(aten, _name).vec
    _dims = next(dims for dims in (1, 2, 3) if f"{dims}d" in _name)
    register(__name__, affine(_name.strip("_"), _in_any_dtype(_target), supports=needs_axes(_dims + 1)), _target)


def _absolute(upsample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """|W| of a separable interpolation in the plane: |rows| by |columns|, each read off from the unit vectors."""

    def weights(x: Tensor, axis: int, size: Sequence[int] | None, align: bool, scale: Sequence[float] | None) -> Tensor:
        """`[n, out]` along `axis`; the other axis holds the same value twice, and stays (1 wide, torch goes astray)."""

        def along(values: Sequence[Any] | None, still: float) -> list[Any] | None:
            return None if values is None else [values[axis - 2], still][:: 1 if axis == 2 else -1]

        other = 5 - axis
        units = torch.eye(x.shape[axis], dtype=x.dtype, device=x.device)[None].unsqueeze(other)
        wide = torch.cat([units, units], other)
        return upsample(wide, along(size, 2), align, along(scale, 1.0)).select(other, 0)[0].abs()

    def abs_f(x: Tensor, size: Sequence[int] | None, align: bool, scale: Sequence[float] | None = None) -> Tensor:
        rows, columns = (weights(x, axis, size, align, scale) for axis in (2, 3))
        return rows.T @ x @ columns

    return abs_f


for _target in (aten.upsample_bicubic2d.vec, aten._upsample_bicubic2d_aa.vec):
    _name = _target.__name__.split(".")[0].strip("_")
    _f = _in_any_dtype(_target)
    register(__name__, affine(_name, _f, abs_f=_absolute(_f), supports=needs_axes(3)), _target)
