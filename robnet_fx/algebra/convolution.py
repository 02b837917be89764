"""Convolutions in float64 on a CPU, in parts that the cache holds or tap by tap.

Verdicts are computed in float64, for which PyTorch unfolds the whole batch at once: nine times its size for a kernel of
3 x 3, padding included. In parts that takes a third to all of the time and hardly any memory, and on maps of a few
pixels, of which a kernel sees more padding than pixels, one product for each tap takes a ninth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra.kernels import by_hand

_FEW = 16  # pixels of a map where taps are better
_UNFOLDED = 2**18  # numbers that PyTorch may unfold at once


class Geometry(NamedTuple):
    """What a convolution reads, axis by axis; padding is that before and that behind, cropped where negative."""

    stride: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]

    def sizes(self, spatial: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """Those of the output."""
        axes = zip(spatial, kernel, *self, strict=True)
        return [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]

    def taps(self, spatial: Sequence[int], kernel: Sequence[int]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
        """Of every tap that meets the input: its place in the kernel, the outputs for which it does, the inputs."""
        outs = self.sizes(spatial, kernel)
        for tap in itertools.product(*map(range, kernel)):
            reads, writes = [], []
            for t, n, out, s, (before, _), d in zip(tap, spatial, outs, *self, strict=True):
                start = t * d - before  # of the input, for output 0
                first, last = max(0, -(start // s)), min(out, (n - 1 - start) // s + 1)
                writes.append(slice(first, last))
                reads.append(slice(first * s + start, (last - 1) * s + start + 1, s))
            if all(side.start < side.stop for side in writes):
                yield tap, tuple(writes), tuple(reads)


def by_parts(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution is better done by `convolution`, which has no derivative."""
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return x.dtype == torch.float64 and by_hand(x) and not learning


def convolution(
    conv: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`conv(x, weight, None, stride, padding, dilation, groups)` for `conv` `F.conv1d` to `F.conv3d`."""
    geometry = Geometry(stride, [(p, p) for p in padding], dilation)
    pixels = math.prod(geometry.sizes(x.shape[2:], weight.shape[2:]))
    if groups == 1 and pixels <= _FEW:
        return _by_taps(x, weight, geometry)
    parts = x.split(max(1, _UNFOLDED // (pixels * groups * weight[0].numel())))
    first = conv(parts[0], weight, None, stride, padding, dilation, groups)
    if len(parts) == 1:
        return first
    made = torch.empty_strided((len(x), *first.shape[1:]), first.stride(), dtype=x.dtype)
    made[: len(first)] = first
    for part, out in zip(parts[1:], made.split(len(first))[1:], strict=True):
        out.copy_(conv(part, weight, None, stride, padding, dilation, groups))
    return made


def _by_taps(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """One product of matrices a tap, channels last."""
    values, factors = x.movedim(1, -1), weight.movedim((1, 0), (-2, -1))  # [N, *S, C], [*kernel, C, O]
    kernel = weight.shape[2:]
    made = x.new_zeros(len(x), *geometry.sizes(x.shape[2:], kernel), len(weight))
    for tap, writes, reads in geometry.taps(x.shape[2:], kernel):
        made[:, *writes].add_(values[:, *reads] @ factors[tap])
    return made.movedim(-1, 1)
