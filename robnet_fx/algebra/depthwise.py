"""Convolutions with one kernel a channel in float64 on a CPU, tap by tap.

PyTorch's fast form is for float32. In float64, which verdicts are computed in, it goes channel by channel and takes 25
to 250 times as long; a product for each tap of the kernel takes about a quarter of that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """The windows of x under each tap, weighted and added up."""
    padded = F.pad(x, [end for pair in reversed(pads) for end in pair])
    kernel = weight.shape[2:]
    steps = list(zip(padded.shape[2:], kernel, stride, dilation, strict=True))
    spans = [(n - d * (k - 1) - 1) // s * s + 1 for n, k, s, d in steps]
    factors = weight.reshape(len(weight), -1, *[1] * len(kernel)).unbind(1)
    windows: list[Any] = []
    for tap in itertools.product(*map(range, kernel)):
        starts = [i * d for i, d in zip(tap, dilation, strict=True)]
        windows.append((..., *(slice(a, a + n, s) for a, n, s in zip(starts, spans, stride, strict=True))))
    made = []
    for part in parts_for_cache(padded, 0):
        total = part[windows[0]] * factors[0]
        for window, factor in zip(windows[1:], factors[1:], strict=True):
            total = total.addcmul_(part[window], factor)
        made.append(total)
    return torch.cat(made)
