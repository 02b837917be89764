"""Convolutions in parts and tap by tap are PyTorch's own, in every number of dimensions and memory layout."""

import pytest
import torch

from robnet_fx.algebra import convolution as module
from robnet_fx.algebra import kernels
from robnet_fx.algebra.convolution import Geometry, by_parts, convolution
from tests.algebra.test_depthwise import CONVOLUTIONS, OPTIONS


@pytest.mark.parametrize("few", [0, 2**20], ids=["parts", "taps"])
@pytest.mark.parametrize("unfolded", [1, 300, 2**20])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_the_convolution(options, groups, unfolded, few, monkeypatch):
    monkeypatch.setattr(module, "_FEW", few)
    monkeypatch.setattr(module, "_UNFOLDED", unfolded)
    size, kernel, stride, padding, dilation, _ = options
    conv, _ = CONVOLUTIONS[len(size)]
    x = torch.randn(5, 4, *size, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, *kernel, dtype=torch.float64)
    expected = conv(x, weight, None, stride, padding, dilation, groups)
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    for value in (x, last):
        made = convolution(conv, value, weight, stride, padding, dilation, groups)
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


def test_taps_that_meet_padding_alone_are_left_out():
    geometry = Geometry([1, 1], [(1, 1), (1, 1)], [1, 1])
    ((tap, writes, reads),) = geometry.taps([1, 1], [3, 3])
    assert (tap, writes, reads) == ((1, 1), (slice(0, 1),) * 2, (slice(0, 1, 1),) * 2)
    assert geometry.sizes([1, 1], [3, 3]) == [1, 1]
    pairs = sum(writes[0].stop - writes[0].start for _, writes, _ in Geometry([2], [(2, 0)], [1]).taps([5], [3]))
    assert pairs == 1 + 3 + 3 - 0  # windows of inputs (-2, -1, 0), (0, 1, 2), (2, 3, 4)


def test_it_is_for_float64_on_a_cpu_without_gradients():
    x, weight = torch.rand(2, 4, 5, 5, dtype=torch.float64), torch.rand(4, 4, 3, 3, dtype=torch.float64)
    assert by_parts(x, weight)
    assert not by_parts(x.float(), weight.float())
    assert not by_parts(x, weight.clone().requires_grad_())
    assert not by_parts(x.clone().requires_grad_(), weight)
    with torch.no_grad():
        assert by_parts(x, weight.clone().requires_grad_())
    with kernels.plain():
        assert not by_parts(x, weight)
