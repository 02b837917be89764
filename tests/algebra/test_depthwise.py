"""Depthwise convolutions tap by tap are PyTorch's own, in every number of dimensions, with their derivatives."""

import pytest
import torch
import torch.nn.functional as F

from robnet_fx.algebra import kernels
from robnet_fx.algebra.depthwise import by_taps, depthwise, depthwise_transpose

CONVOLUTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}
OPTIONS = [  # size, kernel, stride, padding, dilation, output padding, of each axis
    ([7], [3], [1], [1], [1], [0]),
    ([7], [2], [3], [0], [2], [2]),
    ([5, 6], [3, 2], [1, 2], [1, 0], [1, 1], [0, 1]),
    ([6, 6], [3, 3], [2, 2], [3, 1], [2, 1], [1, 0]),
    ([6, 4], [1, 1], [2, 1], [0, 0], [1, 1], [1, 0]),
    ([4, 5, 4], [2, 3, 1], [1, 2, 1], [0, 1, 0], [2, 1, 1], [0, 0, 0]),
]


@pytest.mark.parametrize("at_once", [1, 100, 2**16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_convolution(options, at_once, monkeypatch):
    monkeypatch.setattr(kernels, "_CACHE", at_once)
    size, kernel, stride, padding, dilation, more = options
    conv, transpose = CONVOLUTIONS[len(size)]
    x = torch.randn(4, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    for mine, theirs in (
        (
            depthwise(x, weight, stride, padding, dilation),
            conv(x, weight, None, stride, padding, dilation, 3),
        ),
        (
            depthwise_transpose(x, weight, stride, padding, more, dilation),
            transpose(x, weight, None, stride, padding, more, 3, dilation),
        ),
    ):
        torch.testing.assert_close(mine, theirs)
        rows = torch.randn_like(theirs)
        for a, b in zip(*(torch.autograd.grad((y * rows).sum(), (x, weight)) for y in (mine, theirs)), strict=True):
            torch.testing.assert_close(a, b)


def test_it_is_for_one_kernel_a_channel_in_float64():
    x, weight = torch.rand(2, 4, 5, 5, dtype=torch.float64), torch.rand(4, 1, 3, 3, dtype=torch.float64)
    assert by_taps(x, weight, 4)
    assert not by_taps(x.float(), weight.float(), 4)  # PyTorch's own is fast
    assert not by_taps(x, weight.expand(4, 2, 3, 3), 2)  # two channels a kernel
    assert not by_taps(x, weight.repeat(2, 1, 1, 1), 4)  # two kernels a channel
    assert not by_taps(x[:, :1], weight[:1], 1)  # a plain one
    with kernels.plain():
        assert not by_taps(x, weight, 4)
