"""Convolutions with one kernel a channel in float64 on a CPU, tap by tap.

PyTorch's fast form is for float32. In float64, which verdicts are computed in, it goes channel by channel and takes 25
to 250 times as long; a product for each tap of the kernel takes about a quarter of that, and less where
a map is small: only what a tap meets is worked, no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.convolution import Geometry
from robnet_fx.algebra.kernels import by_hand, parts_for_cache


def by_taps(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether a convolution of `x [N, C, *S]` with `weight [C, 1, *kernel]` is better done here."""
    one_each = groups == x.shape[1] == weight.shape[0] > 1 and weight.shape[1] == 1
    return one_each and x.dtype == torch.float64 and by_hand(x)


def depthwise(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """`F.conv2d(x, weight, None, stride, padding, dilation, groups=C)`, in any number of dimensions."""
    return _summed(x, weight, stride, [(p, p) for p in padding], dilation)


def depthwise_transpose(
    g: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """`F.conv_transpose2d(g, weight, None, stride, padding, output_padding, C, dilation)`, likewise."""
    if any(s > 1 for s in stride):
        apart = g.new_zeros(*g.shape[:2], *((n - 1) * s + 1 for n, s in zip(g.shape[2:], stride, strict=True)))
        places: tuple[Any, ...] = (..., *(slice(None, None, s) for s in stride))
        apart[places] = g
        g = apart
    reach = [d * (k - 1) - p for k, d, p in zip(weight.shape[2:], dilation, padding, strict=True)]
    pads = [(r, r + more) for r, more in zip(reach, output_padding, strict=True)]
    return _summed(g, weight.flip(tuple(range(2, weight.dim()))), [1] * len(reach), pads, dilation)


def _summed(
    x: Tensor, weight: Tensor, stride: Sequence[int], pads: Sequence[tuple[int, int]], dilation: Sequence[int]
) -> Tensor:
    """What every tap meets of x, weighted and added up."""
    geometry = Geometry(stride, pads, dilation)
    kernel, outs = weight.shape[2:], geometry.sizes(x.shape[2:], weight.shape[2:])
    factors = weight.reshape(len(weight), *kernel, *[1] * len(kernel))
    taps = [(factors[:, *tap], writes, reads) for tap, writes, reads in geometry.taps(x.shape[2:], kernel)]
    made = []
    for part in parts_for_cache(x, 0):
        total = _zeros(part, outs)
        for factor, writes, reads in taps:
            total[:, :, *writes].addcmul_(part[:, :, *reads], factor)
        made.append(total)
    return torch.cat(made)


def _zeros(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """`[N, C, *sizes]` in the order of memory of `x [N, C, *S]`."""
    if x.stride(1) == 1:  # channels last
        return x.new_zeros(len(x), *sizes, x.shape[1]).movedim(-1, 1)
    return x.new_zeros(*x.shape[:2], *sizes)
