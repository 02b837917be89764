"""Operations written in others while a model is traced, before anything else looks at the graph.

Where PyTorch's own way of writing an operation uses only such as have rules, it is taken; the others are written here,
in the same words as a user would. What must tell bounded values from constants is left to `passes/lower*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

Decomposition = Callable[..., Any]

PYTORCHS = (
    aten.addcmul.default,
    aten.addcdiv.default,
    aten.baddbmm.default,
    aten.broadcast_tensors.default,
    aten.clip.default,
    aten.clip.Tensor,
    aten.cosine_similarity.default,
    aten.deg2rad.default,
    aten.glu.default,
    aten.inner.default,
    aten.linalg_matrix_norm.default,
    aten.linalg_matrix_norm.str_ord,
    aten.linalg_vecdot.default,
    aten.mse_loss.default,
    aten.norm.ScalarOpt_dim,
    aten.pairwise_distance.default,
    aten.rad2deg.default,
    aten.std_mean.dim,
    aten.std_mean.correction,
)
"""The operations that PyTorch's own decomposition turns into ones with rules."""

OURS: dict[Any, Decomposition] = {}
"""The operations decomposed here."""


def decompositions() -> dict[Any, Decomposition]:
    """The table that `ExportedProgram.run_decompositions` takes."""
    return _pytorchs() | OURS


@cache
def _pytorchs() -> dict[Any, Decomposition]:
    """Once for all traces: PyTorch goes through all its operations to make its table."""
    table = torch.export.default_decompositions()
    return {target: table[target] for target in PYTORCHS}


def decomposes(*targets: Any) -> Callable[[Decomposition], Decomposition]:
    """Enter a decomposition; it takes the operation's arguments, and may return NotImplemented to leave it as it is."""

    def enter(decomposition: Decomposition) -> Decomposition:
        OURS.update(dict.fromkeys(targets, decomposition))
        return decomposition

    return enter


@decomposes(aten.type_as.default)
def _type_as(x: Tensor, other: Tensor) -> Tensor:
    """The other value is asked for its dtype only, as it is for its shape by `expand_as` and the like."""
    return x.to(other.dtype)


@decomposes(aten.expand_as.default)
def _expand_as(x: Tensor, other: Tensor) -> Tensor:
    return x.expand(other.shape)


@decomposes(aten.view_as.default, aten.reshape_as.default)
def _reshape_as(x: Tensor, other: Tensor) -> Tensor:
    return x.reshape(other.shape)


@decomposes(aten.lerp.Scalar, aten.lerp.Tensor)
def _lerp(x: Tensor, y: Tensor, weight: Any) -> Tensor:
    return x + weight * (y - x) if isinstance(weight, Tensor) else x * (1 - weight) + y * weight


@decomposes(aten.hypot.default)
def _hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x**2 + y**2).sqrt()


@decomposes(aten.threshold.default)
def _threshold(x: Tensor, threshold: float, value: float) -> Any:
    """With a jump at the threshold it has no rule."""
    return x.clamp(min=threshold) if threshold == value else NotImplemented


@decomposes(aten.rrelu.default)
def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None) -> Any:
    return NotImplemented if training else F.leaky_relu(x, (lower + upper) / 2)


@decomposes(aten.rms_norm.default)
def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    axes = list(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    x = x * ((x**2).mean(axes, keepdim=True) + eps).rsqrt()
    return x if weight is None else x * weight


@decomposes(aten.var_mean.dim)
def _var_mean(x: Tensor, dim: list[int] | None, unbiased: bool = True, keepdim: bool = False) -> Any:
    return _var_mean_corrected(x, dim, correction=int(unbiased), keepdim=keepdim)


@decomposes(aten.var_mean.correction)
def _var_mean_corrected(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Any:
    correction = 1 if correction is None else correction
    return torch.var(x, dim, correction=correction, keepdim=keepdim), torch.mean(x, dim, keepdim=keepdim)


@decomposes(aten.aminmax.default)
def _aminmax(x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    return NotImplemented if dim is None else (x.amin(dim, keepdim), x.amax(dim, keepdim))


@decomposes(aten.prod.dim_int)
def _prod(x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """The product of the halves, again and again: the errors of a product of two grow with the factors."""
    dim %= x.dim()
    if (
        not isinstance(x.shape[dim], int)
        or not x.is_floating_point()
        or dtype not in (None, x.dtype)
        or x.shape[dim] == 0
    ):
        return NotImplemented
    while x.shape[dim] > 1:
        half = x.shape[dim] // 2
        halves, rest = x.narrow(dim, 0, 2 * half).chunk(2, dim), x.narrow(dim, 2 * half, x.shape[dim] % 2)
        x = halves[0] * halves[1]
        x = torch.cat([x, rest], dim) if rest.shape[dim] else x
    return x if keepdim else x.squeeze(dim)
