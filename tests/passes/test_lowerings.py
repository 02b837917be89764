"""Each lowering and decomposition by itself, on numbers up to ±100: the range of what it replaces is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robnet_fx.frontend.decompositions import decompositions
from robnet_fx.passes import pipeline  # noqa: F401  (it enters all lowerings)
from robnet_fx.passes.lower import lower, lowerings
from tests.soundness import Drawing, draws

aten = torch.ops.aten
SHAPE = (4, 3)
MASK = torch.tensor([[True, False, True, True], [True] * 4, [False, False, True, True], [False, True, False, True]])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
Arguments = Callable[[Any, Any, Any], tuple[Any, ...]]
"""(drawing, x, y) -> what the operation is called with."""


def numbers() -> Tensor:
    """`[N, 2, 4, 3]`: the ends, all of one number, small ones, and any up to ±100."""
    r = draws(0)
    any_ = 100 * r(6, 2, *SHAPE).clamp(-1, 1)
    constant = torch.tensor([100.0, -100.0, 1e-6, 0.0]).double().reshape(-1, 1, 1, 1).expand(-1, 2, *SHAPE)
    apart = constant * torch.tensor([1.0, -1.0]).double().reshape(2, 1, 1)
    return torch.cat([any_, 100 * any_.sign(), 1e-5 * any_, constant, apart])


def close(got: Tensor, expected: Tensor) -> None:
    """To some units of the dtype at 100, times the 300 by which a norm of equal numbers scales; infinite where both."""
    eps = torch.finfo(expected.dtype).eps
    torch.testing.assert_close(got, expected, rtol=1e4 * eps, atol=1e4 * eps, equal_nan=True)


def one(*args: Any, **kwargs: Any) -> Arguments:
    """Of the first value alone."""
    return lambda g, x, y: (x, *args)


def both(*args: Any) -> Arguments:
    return lambda g, x, y: (x, y, *args)


def weighted(*args: Any) -> Arguments:
    """With a weight and a bias of three numbers."""
    return lambda g, x, y: (x, *args, draws(1)(3), draws(2)(3), 1e-5)


EXTREMES = (
    *(aten.maximum.default, aten.max.other, aten.fmax.default, aten.clamp_min.Tensor),
    *(aten.minimum.default, aten.min.other, aten.fmin.default, aten.clamp_max.Tensor),
)
LOWERED: dict[Any, list[Arguments]] = {
    **{target: [both(), lambda g, x, y: (x, 100 * draws(3)(3))] for target in EXTREMES},
    aten.mul.Tensor: [both(), lambda g, x, y: (x, x)],
    aten.matmul.default: [lambda g, x, y: (x, g(aten.transpose.int, y, 1, 2))],
    aten.bmm.default: [lambda g, x, y: (x, g(aten.transpose.int, y, 1, 2))],
    aten.div.Tensor: [both(), lambda g, x, y: (3.0, y)],
    aten.log_softmax.int: [one(-1), one(1)],
    aten._log_softmax.default: [one(2, False)],
    aten.layer_norm.default: [weighted([3]), one([4, 3])],
    aten.group_norm.default: [one(2), one(1, draws(1)(4), draws(2)(4), 1e-5)],
    aten.instance_norm.default: [one(draws(1)(4), draws(2)(4), None, None, True, 0.1, 1e-5, False)],
    aten.scaled_dot_product_attention.default: [lambda g, x, y: (x, y, x), lambda g, x, y: (x, y, x, MASK)],
    aten.softmax.int: [lambda g, x, y: (masked(g, x), -1)],
    aten._softmax.default: [lambda g, x, y: (masked(g, x), 2, False)],
    aten.logsumexp.default: [lambda g, x, y: (masked(g, x), [2]), one([1, 2], True)],
    aten.einsum.default: [lambda g, x, y: ("bij,bkj->bik", [x, y])],
    aten.exp2.default: [one()],
    aten.pow.Scalar: [lambda g, x, y: (1.5, x), lambda g, x, y: (0.3, x)],
    aten.pow.Tensor_Tensor: [
        lambda g, x, y: (positive(g, x), y),
        lambda g, x, y: (positive(g, x), draws(3)(3).abs() + 0.5),
    ],
    aten.logaddexp.default: [both(), lambda g, x, y: (x, draws(3)(3))],
    aten.clamp.Tensor: [
        lambda g, x, y: (x, y, g(aten.add.Tensor, y, 1.0)),
        lambda g, x, y: (x, draws(3)(3)),
        lambda g, x, y: (x, None, y),
    ],
    aten.amax.default: [one([1]), one([2, 1], True)],
    aten.amin.default: [one([1]), one([2, 1], True)],
    aten.var.dim: [one([1]), one([1, 2], False)],
    aten.var.correction: [one([1])],
    aten.std.dim: [one([1]), one([1, 2], False, True)],
    aten.std.correction: [one([2])],
    aten.linalg_vector_norm.default: [one(2, [1]), one(1, [1, 2], True)],
    aten.diff.default: [one(), one(2, 1)],
}


def masked(g: Drawing, x: Any) -> Any:
    return g(aten.masked_fill.Scalar, x, ~MASK[:, :3], -math.inf)


def positive(g: Drawing, x: Any) -> Any:
    return g(aten.add.Tensor, g(aten.abs.default, x), 1e-3)


DECOMPOSED: dict[Any, list[Arguments]] = {
    aten.addcmul.default: [lambda _, x, y: (x, x, y)],
    aten.addcdiv.default: [lambda _, x, y: (x, x, y.abs() + 1e-3)],
    aten.baddbmm.default: [lambda _, x, y: (x @ y.mT, x, y.mT)],
    aten.broadcast_tensors.default: [lambda _, x, y: ([x, y[:, :1]],)],
    aten.clip.default: [one(-1.0, 2.0)],
    aten.clip.Tensor: [both()],
    aten.cosine_similarity.default: [both()],
    aten.deg2rad.default: [one()],
    aten.glu.default: [one(1)],
    aten.inner.default: [lambda _, x, y: (x, y[0])],
    aten.linalg_matrix_norm.default: [one(1)],
    aten.linalg_matrix_norm.str_ord: [one("fro")],
    aten.linalg_vecdot.default: [both()],
    aten.mse_loss.default: [both(0)],
    aten.norm.ScalarOpt_dim: [one(2, [1])],
    aten.pairwise_distance.default: [both()],
    aten.rad2deg.default: [one()],
    aten.std_mean.dim: [one([1])],
    aten.std_mean.correction: [one([1])],
    aten.lerp.Scalar: [both(0.3)],
    aten.lerp.Tensor: [lambda _, x, y: (x, y, y / 100)],
    aten.hypot.default: [both()],
    aten.threshold.default: [one(0.5, 0.5)],
    aten.rrelu.default: [one()],
    aten.rms_norm.default: [one([3]), one([4, 3], draws(1)(4, 3), 1e-6)],
    aten.var_mean.dim: [one([1])],
    aten.var_mean.correction: [one([1])],
    aten.aminmax.default: [one()],
    aten.prod.dim_int: [one(1), one(2, True)],
    aten.type_as.default: [both()],
    aten.expand_as.default: [lambda _, x, y: (x[:, :1], y)],
    aten.view_as.default: [lambda _, x, y: (x, y.mT.contiguous())],
    aten.reshape_as.default: [lambda _, x, y: (x, y.mT.contiguous())],
}


def test_every_lowering_and_decomposition_has_a_case():
    assert set(LOWERED) == set(lowerings())
    assert set(DECOMPOSED) == set(decompositions())


@DTYPES
@pytest.mark.parametrize("target", LOWERED, ids=str)
def test_a_lowering_keeps_the_range(target: Any, dtype: torch.dtype):
    for arguments in LOWERED[target]:
        drawing = Drawing(2, *SHAPE)
        x, y = (drawing(aten.select.int, drawing.x, 1, place) for place in (0, 1))
        graph = drawing.finish(drawing(target, *arguments(drawing, x, y))).to(dtype)
        lowered = lower(graph)
        assert target not in {node.target for node in lowered.graph.nodes} or target in IN_PART
        close(lowered(numbers().to(dtype)), graph(numbers().to(dtype)))


IN_PART = {aten.softmax.int, aten._softmax.default, aten.logsumexp.default, aten.mul.Tensor, aten.matmul.default}
"""Those that have a rule for some operands."""


@DTYPES
@pytest.mark.parametrize("target", DECOMPOSED, ids=str)
def test_a_decomposition_keeps_the_range(target: Any, dtype: torch.dtype):
    x, y = numbers().to(dtype).unbind(1)
    for arguments in DECOMPOSED[target]:
        args = [arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in arguments(None, x, y)]
        kwargs = {"dim": 1} if target is aten.aminmax.default else {}
        got, expected = decompositions()[target](*args, **kwargs), target(*args, **kwargs)
        for one_, other in zip(*(r if isinstance(r, (tuple, list)) else [r] for r in (got, expected)), strict=True):
            close(one_, other)
