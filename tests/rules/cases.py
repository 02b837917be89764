"""One or more cases for every operation of the table: what the rule tests run through.

A case says which operation, the shapes S of its bounded inputs, and how its arguments are made from these and a source
of random constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from robnet_fx.algebra.ops import join, matrix_product, product, windowed
from robnet_fx.rules.windows import WINDOWED
from tests.soundness import Draw

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    name: str
    target: Any
    shapes: tuple[tuple[int, ...], ...]
    args: Callable[..., tuple[Any, ...]] = lambda r, x: (x,)
    kwargs: dict[str, Any] = field(default_factory=dict)
    domain: tuple[float, float] = (-math.inf, math.inf)

    def call(self, r: Draw, *inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.args(r, *inputs), self.kwargs


def _positive(r: Draw, *shape: int) -> Any:
    return r(*shape).abs() + 0.2


def _norm(weight: Any, bias: Any, r: Draw, x: Any) -> tuple[Any, ...]:
    return (x, weight, bias, r(3), _positive(r, 3), False, 0.1, 1e-5, False)


AFFINE = [
    # convolutions: stride that leaves rows at the edge, padding, dilation, groups
    Case("conv1d", aten.conv1d.default, ((2, 6),), lambda r, x: (x, r(3, 2, 3), r(3))),
    Case("conv1d-all", aten.conv1d.default, ((4, 8),), lambda r, x: (x, r(2, 2, 2), r(2), [2], [1], [2], 2)),
    Case("conv1d-no-bias", aten.conv1d.default, ((2, 6),), lambda r, x: (x, r(1, 2, 3), None, [3])),
    Case("conv1d-same", aten.conv1d.padding, ((2, 6),), lambda r, x: (x, r(3, 2, 4), r(3), [1], "same")),
    Case("conv1d-valid", aten.conv1d.padding, ((2, 6),), lambda r, x: (x, r(3, 2, 2), r(3), [2], "valid", [2])),
    Case("conv2d", aten.conv2d.default, ((2, 4, 4),), lambda r, x: (x, r(3, 2, 3, 3), r(3), [1, 1], [1, 1])),
    Case("conv2d-plain", aten.conv2d.default, ((2, 4, 3),), lambda r, x: (x, r(2, 2, 3, 2), r(2))),
    Case("conv2d-short", aten.conv2d.default, ((1, 4, 4),), lambda r, x: (x, r(2, 1, 3, 3), r(2), [2], [1])),
    Case(
        "conv2d-all",
        aten.conv2d.default,
        ((2, 6, 5),),
        lambda r, x: (x, r(4, 1, 2, 3), r(4), [2, 3], [0, 2], [2, 1], 2),
    ),
    Case(
        "conv2d-depthwise", aten.conv2d.default, ((3, 3, 3),), lambda r, x: (x, r(3, 1, 2, 2), None, [1], [0], [1], 3)
    ),
    Case("conv2d-same", aten.conv2d.padding, ((2, 4, 4),), lambda r, x: (x, r(2, 2, 2, 3), r(2), [1, 1], "same")),
    Case(
        "conv2d-same-dilated",
        aten.conv2d.padding,
        ((2, 4, 4),),
        lambda r, x: (x, r(2, 1, 3, 3), r(2), [1, 1], "same", [2, 2], 2),
    ),
    Case(
        "conv3d", aten.conv3d.default, ((2, 3, 3, 3),), lambda r, x: (x, r(2, 2, 2, 3, 1), r(2), [1, 1, 1], [1, 1, 0])
    ),
    Case(
        "conv3d-all",
        aten.conv3d.default,
        ((2, 4, 4, 3),),
        lambda r, x: (x, r(2, 1, 2, 2, 2), r(2), [2, 1, 2], [1, 0, 1], [1, 2, 1], 2),
    ),
    Case(
        "conv3d-same", aten.conv3d.padding, ((1, 2, 3, 2),), lambda r, x: (x, r(1, 1, 2, 3, 1), r(1), [1, 1, 1], "same")
    ),
    Case(
        "conv_transpose1d",
        aten.conv_transpose1d.default,
        ((2, 4),),
        lambda r, x: (x, r(2, 2, 3), r(4), [2], [1], [1], 2, [2]),
    ),
    Case(
        "conv_transpose2d",
        aten.conv_transpose2d.input,
        ((2, 3, 2),),
        lambda r, x: (x, r(2, 3, 3, 2), r(3), [2, 1], [1, 0], [1, 0], 1, [1, 2]),
    ),
    Case("conv_transpose2d-plain", aten.conv_transpose2d.input, ((2, 2, 2),), lambda r, x: (x, r(2, 1, 2, 2))),
    Case(
        "conv_transpose3d",
        aten.conv_transpose3d.input,
        ((2, 2, 2, 2),),
        lambda r, x: (x, r(2, 1, 2, 1, 2), r(2), [1, 2, 2], [0, 0, 1], [0, 1, 0], 2),
    ),
    # products with constants
    Case("linear", aten.linear.default, ((5,),), lambda r, x: (x, r(4, 5), r(4))),
    Case("linear-no-bias", aten.linear.default, ((5,),), lambda r, x: (x, r(4, 5))),
    Case("linear-tokens", aten.linear.default, ((3, 5),), lambda r, x: (x, r(4, 5), r(4))),
    Case("addmm", aten.addmm.default, ((5,),), lambda r, x: (r(4), x, r(5, 4))),
    Case("addmm-scaled", aten.addmm.default, ((5,),), lambda r, x: (r(4), x, r(5, 4)), {"beta": -0.5, "alpha": -2.0}),
    Case("mm", aten.mm.default, ((5,),), lambda r, x: (x, r(5, 3))),
    Case("matmul", aten.matmul.default, ((5,),), lambda r, x: (x, r(5, 3))),
    Case("matmul-tokens", aten.matmul.default, ((2, 5),), lambda r, x: (x, r(5, 3))),
    Case("matmul-batched", aten.matmul.default, ((2, 3, 4),), lambda r, x: (x, r(2, 4, 3))),
    Case("matmul-vector", aten.matmul.default, ((2, 5),), lambda r, x: (x, r(5))),
    Case("matmul-left", aten.matmul.default, ((4, 3),), lambda r, x: (r(2, 4), x)),
    Case("matmul-left-batched", aten.matmul.default, ((2, 4, 3),), lambda r, x: (r(2, 3, 4), x)),
    # sums and scalings, by numbers and tensors, broadcast both ways
    Case("add-const", aten.add.Tensor, ((2, 3),), lambda r, x: (x, r(2, 3))),
    Case("add-const-first", aten.add.Tensor, ((2, 3),), lambda r, x: (r(3), x), {"alpha": -2.0}),
    Case("add-const-alpha", aten.add.Tensor, ((2, 3),), lambda r, x: (x, r(2, 1)), {"alpha": 3.0}),
    Case("add-widens", aten.add.Tensor, ((1, 3),), lambda r, x: (x, r(2, 3))),
    Case("add-scalar", aten.add.Scalar, ((3,),), lambda r, x: (x, 0.7)),
    Case("add-number", aten.add.Tensor, ((3,),), lambda r, x: (x, -0.7), {"alpha": 2}),
    Case("add-both", aten.add.Tensor, ((2, 3), (2, 3)), lambda r, x, y: (x, y)),
    Case("add-both-alpha", aten.add.Tensor, ((2, 3), (2, 3)), lambda r, x, y: (x, y), {"alpha": -1.5}),
    Case("add-both-broadcast", aten.add.Tensor, ((2, 3), (2, 1)), lambda r, x, y: (x, y), {"alpha": 0.5}),
    Case("sub-const", aten.sub.Tensor, ((2, 3),), lambda r, x: (x, r(2, 3))),
    Case("sub-from-const", aten.sub.Tensor, ((2, 3),), lambda r, x: (r(2, 3), x), {"alpha": 2.0}),
    Case("sub-scalar", aten.sub.Scalar, ((3,),), lambda r, x: (x, 0.3)),
    Case("sub-both", aten.sub.Tensor, ((2, 3), (2, 3)), lambda r, x, y: (x, y)),
    Case("sub-both-alpha", aten.sub.Tensor, ((2, 3), (1, 3)), lambda r, x, y: (x, y), {"alpha": -0.7}),
    Case("rsub-scalar", aten.rsub.Scalar, ((3,),), lambda r, x: (x, 1.0)),
    Case("rsub-scalar-alpha", aten.rsub.Scalar, ((3,),), lambda r, x: (x, 1.0, 2.5)),
    Case("rsub-const", aten.rsub.Tensor, ((2, 3),), lambda r, x: (x, r(3))),
    Case("rsub-from-const", aten.rsub.Tensor, ((2, 3),), lambda r, x: (r(2, 3), x), {"alpha": 1.5}),
    Case("rsub-both", aten.rsub.Tensor, ((2, 3), (2, 3)), lambda r, x, y: (x, y), {"alpha": -1.5}),
    Case("neg", aten.neg.default, ((2, 3),)),
    Case("mul-const", aten.mul.Tensor, ((2, 3),), lambda r, x: (x, r(2, 3))),
    Case("mul-const-first", aten.mul.Tensor, ((2, 3),), lambda r, x: (r(3), x)),
    Case("mul-widens", aten.mul.Tensor, ((1, 3),), lambda r, x: (x, r(2, 1))),
    Case("mul-mask", aten.mul.Tensor, ((2, 3),), lambda r, x: (x, r(2, 3) > 0)),
    Case("mul-number", aten.mul.Tensor, ((3,),), lambda r, x: (x, -1.3)),
    Case("mul-scalar", aten.mul.Scalar, ((3,),), lambda r, x: (x, -1.3)),
    Case("div-const", aten.div.Tensor, ((2, 3),), lambda r, x: (x, r(3).sign() * (r(3).abs() + 0.5))),
    Case("div-scalar", aten.div.Scalar, ((3,),), lambda r, x: (x, -1.3)),
    # normalisation, with weights of both signs and without any
    Case("batch_norm-1d", aten.batch_norm.default, ((3,),), lambda r, x: _norm(r(3), r(3), r, x)),
    Case("batch_norm-2d", aten.batch_norm.default, ((3, 2, 2),), lambda r, x: _norm(-_positive(r, 3), r(3), r, x)),
    Case("batch_norm-plain", aten.batch_norm.default, ((3, 4),), lambda r, x: _norm(None, None, r, x)),
    # moving values
    Case("reshape", aten.reshape.default, ((2, 3, 2),), lambda r, x: (x, [-1, 4, 3])),
    Case("permute", aten.permute.default, ((2, 3, 4),), lambda r, x: (x, [0, 2, 3, 1])),
    Case("permute-negative", aten.permute.default, ((2, 3, 4),), lambda r, x: (x, [0, -1, 1, -2])),
    Case("transpose", aten.transpose.int, ((2, 3, 4),), lambda r, x: (x, 1, -1)),
    Case("slice", aten.slice.Tensor, ((2, 7),), lambda r, x: (x, 2, 1, 6, 2)),
    Case("slice-negative", aten.slice.Tensor, ((5,),), lambda r, x: (x, -1, -3, 2**62)),
    Case("select", aten.select.int, ((3, 4),), lambda r, x: (x, 1, -2)),
    Case("cat", aten.cat.default, ((2, 3), (1, 3)), lambda r, x, y: ([x, y], 1)),
    Case("cat-last", aten.cat.default, ((2, 3), (2, 1), (2, 2)), lambda r, x, y, z: ([x, y, z], -1)),
    Case("join", join, ((2, 3), (1, 3)), lambda r, x, y: ([r(1, 1, 3), x, r(1, 2, 3), y], 1)),
    Case("expand", aten.expand.default, ((1, 3, 1),), lambda r, x: (x, [-1, 2, 3, 4])),
    Case("expand-keep", aten.expand.default, ((2, 1),), lambda r, x: (x, [-1, -1, 3])),
    Case("repeat", aten.repeat.default, ((2, 3),), lambda r, x: (x, [1, 3, 2])),
    Case("tile", aten.tile.default, ((2, 3),), lambda r, x: (x, [1, 3, 2])),
    Case("tile-last", aten.tile.default, ((2, 3),), lambda r, x: (x, [2])),
    Case("repeat_interleave", aten.repeat_interleave.self_int, ((2, 3),), lambda r, x: (x, 2, 1)),
    Case("flip", aten.flip.default, ((2, 3, 2),), lambda r, x: (x, [1, -2])),
    Case("roll", aten.roll.default, ((3, 4),), lambda r, x: (x, [1, -2], [1, 2])),
    Case("rot90", aten.rot90.default, ((2, 3),), lambda r, x: (x, 1, [1, 2])),
    Case("index", aten.index.Tensor, ((2, 4),), lambda r, x: (x, [None, None, torch.tensor([3, 0, 3, 3])])),
    Case("index-negative", aten.index.Tensor, ((4, 2),), lambda r, x: (x, [None, torch.tensor([[-1, 0], [2, 2]])])),
    Case(
        "index-pairs", aten.index.Tensor, ((3, 4, 2),), lambda r, x: (x, [None, *torch.tensor([[0, 2, 2], [1, 3, 3]])])
    ),
    Case("index_select", aten.index_select.default, ((2, 4),), lambda r, x: (x, 2, torch.tensor([1, 1, 3]))),
    Case("take_along", aten.take_along_dim.default, ((2, 3),), lambda r, x: (x, torch.tensor([[[2, 2], [0, 1]]]), 2)),
    Case("diagonal", aten.diagonal.default, ((2, 3, 4),), lambda r, x: (x, 1, 2, 3)),
    Case("tril", aten.tril.default, ((3, 3),), lambda r, x: (x, -1)),
    Case("triu", aten.triu.default, ((2, 3, 3),)),
    Case("pixel_shuffle", aten.pixel_shuffle.default, ((4, 2, 3),), lambda r, x: (x, 2)),
    Case("pixel_unshuffle", aten.pixel_unshuffle.default, ((1, 4, 2),), lambda r, x: (x, 2)),
    Case("channel_shuffle", aten.channel_shuffle.default, ((6, 2),), lambda r, x: (x, 2)),
    Case("unfold", aten.unfold.default, ((2, 5),), lambda r, x: (x, 2, 3, 1)),
    Case("im2col", aten.im2col.default, ((2, 3, 4),), lambda r, x: (x, [2, 2], [1, 2], [1, 0], [2, 1])),
    Case("col2im", aten.col2im.default, ((8, 6),), lambda r, x: (x, [3, 4], [2, 2], [1, 1], [0, 0], [1, 1])),
    Case("cumsum", aten.cumsum.default, ((2, 4),), lambda r, x: (x, -1)),
    Case("cumsum-first", aten.cumsum.default, ((3, 2),), lambda r, x: (x, 1)),
    Case("where-number", aten.where.ScalarOther, ((2, 3),), lambda r, x: (r(2, 3) > 0, x, 0.7)),
    Case("where-number-first", aten.where.ScalarSelf, ((2, 3),), lambda r, x: (r(2, 1) > 0, -0.7, x)),
    Case("where-const", aten.where.self, ((2, 3),), lambda r, x: (r(1, 2, 3) > 0, x, r(3))),
    Case("where-const-first", aten.where.self, ((1, 3),), lambda r, x: (r(2, 3) > 0, r(1, 2, 3), x)),
    Case("where-both", aten.where.self, ((2, 3), (2, 1)), lambda r, x, y: (r(2, 3) > 0, x, y)),
    Case("masked_fill", aten.masked_fill.Scalar, ((2, 3),), lambda r, x: (x, r(2, 3) > 0, 1.5)),
    Case("masked_fill-tensor", aten.masked_fill.Tensor, ((2, 3),), lambda r, x: (x, r(3) > 0, r(1)[0])),
    # interpolation: up, down, by size and by scale
    Case("nearest1d", aten.upsample_nearest1d.vec, ((2, 4),), lambda r, x: (x, [7], None)),
    Case("nearest2d", aten.upsample_nearest2d.vec, ((1, 3, 2),), lambda r, x: (x, None, [2.0, 2.0])),
    Case("nearest2d-down", aten.upsample_nearest2d.vec, ((1, 4, 3),), lambda r, x: (x, [3, 4], None)),
    Case("nearest3d", aten.upsample_nearest3d.vec, ((1, 2, 2, 1),), lambda r, x: (x, None, [2.0, 1.0, 2.0])),
    Case("exact1d", aten._upsample_nearest_exact1d.vec, ((2, 5),), lambda r, x: (x, [3], None)),
    Case("exact2d", aten._upsample_nearest_exact2d.vec, ((1, 4, 3),), lambda r, x: (x, [3, 5], None)),
    Case("exact3d", aten._upsample_nearest_exact3d.vec, ((1, 2, 3, 2),), lambda r, x: (x, [3, 2, 2], None)),
    Case("linear1d", aten.upsample_linear1d.vec, ((2, 4),), lambda r, x: (x, None, False, [1.5])),
    Case("bilinear2d", aten.upsample_bilinear2d.vec, ((2, 3, 2),), lambda r, x: (x, None, False, [2.0, 2.0])),
    Case("bilinear2d-corners", aten.upsample_bilinear2d.vec, ((1, 4, 3),), lambda r, x: (x, [3, 5], True, None)),
    Case("bilinear2d-smooth", aten._upsample_bilinear2d_aa.vec, ((1, 5, 3),), lambda r, x: (x, [3, 4], False, None)),
    Case("trilinear3d", aten.upsample_trilinear3d.vec, ((1, 2, 2, 2),), lambda r, x: (x, [3, 2, 4], False, None)),
    Case("bicubic2d", aten.upsample_bicubic2d.vec, ((2, 4, 3),), lambda r, x: (x, None, False, [1.5, 2.0])),
    Case("bicubic2d-corners", aten.upsample_bicubic2d.vec, ((1, 5, 3),), lambda r, x: (x, [3, 4], True, None)),
    Case("bicubic2d-lines", aten.upsample_bicubic2d.vec, ((1, 1, 4),), lambda r, x: (x, [2, 6], False, None)),
    Case("bicubic2d-smooth", aten._upsample_bicubic2d_aa.vec, ((1, 6, 4),), lambda r, x: (x, [3, 5], False, None)),
    # contractions by label
    Case("einsum", aten.einsum.default, ((2, 3),), lambda r, x: ("bij,jk->bik", [x, r(3, 4)])),
    Case("einsum-left", aten.einsum.default, ((2, 3),), lambda r, x: ("oi,bij->bjo", [r(4, 2), x])),
    Case("einsum-sum", aten.einsum.default, ((2, 3, 2),), lambda r, x: ("bijk,jk->bi", [x, r(3, 2)])),
    Case("einsum-token", aten.einsum.default, ((2, 3),), lambda r, x: ("bij,bkj->bik", [x, r(1, 2, 3)])),
    Case("einsum-dots", aten.einsum.default, ((2, 3),), lambda r, x: ("...j,kj->...k", [x, r(4, 3)])),
    Case("einsum-implied", aten.einsum.default, ((2, 3),), lambda r, x: ("bij,jk", [x, r(3, 2)])),
    Case("tensordot", aten.tensordot.default, ((2, 3, 2),), lambda r, x: (x, r(2, 4, 2), [1, 3], [0, 2])),
    # pooling and padding
    Case("avg_pool1d", aten.avg_pool1d.default, ((2, 6),), lambda r, x: (x, [3], [2], [1])),
    Case("avg_pool2d", aten.avg_pool2d.default, ((2, 4, 4),), lambda r, x: (x, [2, 2])),
    Case("avg_pool2d-padded", aten.avg_pool2d.default, ((2, 4, 4),), lambda r, x: (x, [3, 3], [2, 1], [1, 1])),
    Case(
        "avg_pool2d-uncounted",
        aten.avg_pool2d.default,
        ((2, 4, 4),),
        lambda r, x: (x, [3, 3], [2, 2], [1, 1], True, False),
    ),
    Case(
        "avg_pool2d-divisor",
        aten.avg_pool2d.default,
        ((1, 4, 4),),
        lambda r, x: (x, [2, 2], [2, 2], [0, 0], False, True, 3),
    ),
    Case("avg_pool2d-ceil", aten.avg_pool2d.default, ((1, 5, 4),), lambda r, x: (x, [2, 3], [2, 2], [1, 1], True)),
    Case("avg_pool3d", aten.avg_pool3d.default, ((1, 3, 3, 2),), lambda r, x: (x, [2, 2, 1], [1, 1, 1], [1, 0, 0])),
    Case("adaptive_avg_pool1d", aten.adaptive_avg_pool1d.default, ((2, 5),), lambda r, x: (x, [3])),
    Case("adaptive_avg_pool2d", aten.adaptive_avg_pool2d.default, ((2, 4, 3),), lambda r, x: (x, [3, 2])),
    Case("adaptive_avg_pool2d-decomposed", aten._adaptive_avg_pool2d.default, ((2, 4, 3),), lambda r, x: (x, [1, 1])),
    Case("adaptive_avg_pool3d", aten.adaptive_avg_pool3d.default, ((1, 3, 2, 2),), lambda r, x: (x, [2, 1, 2])),
    Case(
        "adaptive_avg_pool3d-decomposed",
        aten._adaptive_avg_pool3d.default,
        ((1, 3, 2, 2),),
        lambda r, x: (x, [1, 1, 1]),
    ),
    Case("mean", aten.mean.dim, ((2, 3, 4),), lambda r, x: (x, [-1, 2])),
    Case("mean-keep", aten.mean.dim, ((2, 3),), lambda r, x: (x, [1], True)),
    Case("sum", aten.sum.dim_IntList, ((2, 3, 4),), lambda r, x: (x, [1, 3])),
    Case("pad-zero", aten.pad.default, ((2, 3),), lambda r, x: (x, [1, 2])),
    Case("pad-value", aten.pad.default, ((2, 3, 2),), lambda r, x: (x, [1, 0, 2, 1], "constant", 0.8)),
    Case("pad-reflect", aten.pad.default, ((2, 3, 4),), lambda r, x: (x, [2, 1, 1, 2], "reflect")),
    Case("pad-replicate", aten.pad.default, ((2, 3, 4),), lambda r, x: (x, [2, 1, 0, 3], "replicate")),
    Case("pad-circular", aten.pad.default, ((2, 3, 4),), lambda r, x: (x, [2, 1, 1, 0], "circular")),
    Case("constant_pad", aten.constant_pad_nd.default, ((2, 3),), lambda r, x: (x, [1, 1, 0, 2], -0.6)),
    Case("constant_pad-crop", aten.constant_pad_nd.default, ((2, 4),), lambda r, x: (x, [-1, 2])),
    Case("reflection_pad1d", aten.reflection_pad1d.default, ((2, 4),), lambda r, x: (x, [3, 1])),
    Case("reflection_pad2d", aten.reflection_pad2d.default, ((1, 3, 3),), lambda r, x: (x, [2, 1, 0, 2])),
    Case("reflection_pad3d", aten.reflection_pad3d.default, ((1, 2, 3, 2),), lambda r, x: (x, [1, 0, 2, 1, 1, 0])),
    Case("replication_pad1d", aten.replication_pad1d.default, ((2, 3),), lambda r, x: (x, [4, 1])),
    Case("replication_pad2d", aten.replication_pad2d.default, ((1, 3, 2),), lambda r, x: (x, [2, 1, 0, 2])),
    Case("replication_pad3d", aten.replication_pad3d.default, ((1, 2, 2, 2),), lambda r, x: (x, [1, 0, 2, 1, 1, 0])),
]

AFFINE += [
    replace(case, name=f"{case.name}-windows", target=windowed(case.target), shapes=((2, *case.shapes[0]),))
    for case in {case.target: case for case in AFFINE if case.target in WINDOWED}.values()
]

ELEMENTWISE = [
    Case("relu", aten.relu.default, ((2, 4),)),
    Case("leaky_relu", aten.leaky_relu.default, ((2, 4),)),
    Case("leaky_relu-0.1", aten.leaky_relu.default, ((2, 4),), lambda r, x: (x, 0.1)),
    Case("leaky_relu-steep", aten.leaky_relu.default, ((2, 4),), lambda r, x: (x, 1.5)),
    Case("leaky_relu-negative", aten.leaky_relu.default, ((2, 4),), lambda r, x: (x, -0.2)),
    Case("leaky_relu-abs", aten.leaky_relu.default, ((2, 4),), lambda r, x: (x, -1.0)),
    Case("prelu", aten.prelu.default, ((2, 4),), lambda r, x: (x, torch.tensor([0.2]).double())),
    Case("prelu-steep", aten.prelu.default, ((2, 4),), lambda r, x: (x, torch.tensor([1.7]).double())),
    Case("prelu-kernel", aten._prelu_kernel.default, ((2, 4),), lambda r, x: (x, torch.full((1, 1), -0.3).double())),
    Case("abs", aten.abs.default, ((2, 4),)),
    Case("sigmoid", aten.sigmoid.default, ((2, 4),)),
    Case("tanh", aten.tanh.default, ((2, 4),)),
    Case("clamp", aten.clamp.default, ((2, 4),), lambda r, x: (x, -0.5, 0.6)),
    Case("clamp-positive", aten.clamp.default, ((2, 4),), lambda r, x: (x, 0.2, 0.9)),
    Case("clamp-min", aten.clamp.default, ((2, 4),), lambda r, x: (x, -0.3)),
    Case("clamp-max", aten.clamp.default, ((2, 4),), lambda r, x: (x, None, 0.3)),
    Case("clamp_min", aten.clamp_min.default, ((2, 4),), lambda r, x: (x, -0.3)),
    Case("clamp_max", aten.clamp_max.default, ((2, 4),), lambda r, x: (x, 0.3)),
    Case("clamp-one-value", aten.clamp.default, ((2, 4),), lambda r, x: (x, 0.3, 0.3)),
    Case("clamp-crossed", aten.clamp.default, ((2, 4),), lambda r, x: (x, 0.5, -0.5)),
    Case("hardtanh", aten.hardtanh.default, ((2, 4),)),
    Case("hardtanh-box", aten.hardtanh.default, ((2, 4),), lambda r, x: (x, -0.4, 0.7)),
    Case("relu6", aten.relu6.default, ((2, 4),)),
]

POOLING = [
    Case("max_pool1d", aten.max_pool1d.default, ((2, 6),), lambda r, x: (x, [3])),
    Case("max_pool1d-all", aten.max_pool1d.default, ((2, 8),), lambda r, x: (x, [3], [2], [1], [2])),
    Case("max_pool2d", aten.max_pool2d.default, ((2, 4, 4),), lambda r, x: (x, [2, 2])),
    Case("max_pool2d-padded", aten.max_pool2d.default, ((1, 4, 5),), lambda r, x: (x, [3, 2], [2, 1], [1, 0])),
    Case("max_pool2d-dilated", aten.max_pool2d.default, ((1, 5, 4),), lambda r, x: (x, [2], [1], [1], [2, 1])),
    Case("max_pool2d-single", aten.max_pool2d.default, ((2, 3, 3),), lambda r, x: (x, [1, 1], [2, 2])),
    Case("max_pool2d-ceil", aten.max_pool2d.default, ((1, 4, 5),), lambda r, x: (x, [3, 2], [2, 2], [0, 0], [1], True)),
    Case(
        "max_pool2d-ceil-padded",
        aten.max_pool2d.default,
        ((1, 4, 5),),
        lambda r, x: (x, [2, 3], [3, 2], [1, 1], [1], True),
    ),
    Case("max_pool3d", aten.max_pool3d.default, ((1, 2, 4, 2),), lambda r, x: (x, [2, 2, 1], [1, 2, 1], [1, 0, 0])),
]

_POSITIVE = (0.0, math.inf)


def _powers(*exponents: float, domain: tuple[float, float] = (-math.inf, math.inf)) -> list[Case]:
    return [
        Case(f"pow {p}", aten.pow.Tensor_Scalar, ((2, 3),), lambda r, x, p=p: (x, p), domain=domain) for p in exponents
    ]


# Functions whose band touches them where f' is its slope.
CURVED = [
    Case("gelu", aten.gelu.default, ((2, 3),)),
    Case("gelu-tanh", aten.gelu.default, ((2, 3),), kwargs={"approximate": "tanh"}),
    Case("silu", aten.silu.default, ((2, 3),)),
    Case("mish", aten.mish.default, ((2, 3),)),
    Case("hardswish", aten.hardswish.default, ((2, 3),)),
    Case("hardsigmoid", aten.hardsigmoid.default, ((2, 3),)),
    Case("exp", aten.exp.default, ((2, 3),)),
    Case("expm1", aten.expm1.default, ((2, 3),)),
    Case("log", aten.log.default, ((2, 3),), domain=_POSITIVE),
    Case("log1p", aten.log1p.default, ((2, 3),), domain=(-1.0, math.inf)),
    Case("log2", aten.log2.default, ((2, 3),), domain=_POSITIVE),
    Case("log10", aten.log10.default, ((2, 3),), domain=_POSITIVE),
    Case("elu", aten.elu.default, ((2, 3),)),
    Case("elu-all", aten.elu.default, ((2, 3),), lambda r, x: (x, 0.7, 1.3, 0.6)),
    Case("elu-steep", aten.elu.default, ((2, 3),), lambda r, x: (x, 2.5)),
    Case("elu-falling", aten.elu.default, ((2, 3),), lambda r, x: (x, -0.5)),
    Case("elu-relu", aten.elu.default, ((2, 3),), lambda r, x: (x, 0.0)),
    Case("celu", aten.celu.default, ((2, 3),)),
    Case("celu-2", aten.celu.default, ((2, 3),), lambda r, x: (x, 2.0)),
    Case("selu", aten.selu.default, ((2, 3),)),
    Case("softplus", aten.softplus.default, ((2, 3),), lambda r, x: (x, 1.0, 20.0)),
    Case("softplus-beta", aten.softplus.default, ((2, 3),), lambda r, x: (x, 3)),
    Case("softplus-broken", aten.softplus.default, ((2, 3),), lambda r, x: (x, 2, 0.5)),
    Case("softplus-negative", aten.softplus.default, ((2, 3),), lambda r, x: (x, -1.5, 1.0)),
    Case("log_sigmoid", aten.log_sigmoid.default, ((2, 3),)),
    *_powers(0, 1, 2, 2.0, 3, 4, 5),
    *_powers(0.25, 0.5, 1.5, 2.5, -1, -2, -3, -0.5, -1.7, domain=_POSITIVE),
    Case("square", aten.square.default, ((2, 3),)),
    Case("sqrt", aten.sqrt.default, ((2, 3),), domain=_POSITIVE),
    Case("rsqrt", aten.rsqrt.default, ((2, 3),), domain=_POSITIVE),
    Case("reciprocal", aten.reciprocal.default, ((2, 3),), domain=_POSITIVE),
    Case("reciprocal-left", aten.reciprocal.default, ((2, 3),), domain=(-math.inf, 0.0)),
    Case("pow-left", aten.pow.Tensor_Scalar, ((2, 3),), lambda r, x: (x, -2), domain=(-math.inf, 0.0)),
    Case("sin", aten.sin.default, ((2, 3),)),
    Case("cos", aten.cos.default, ((2, 3),)),
    Case("tan", aten.tan.default, ((2, 3),), domain=(-1.4, 1.4)),
    Case("sinh", aten.sinh.default, ((2, 3),)),
    Case("cosh", aten.cosh.default, ((2, 3),)),
    Case("asinh", aten.asinh.default, ((2, 3),)),
    Case("acosh", aten.acosh.default, ((2, 3),), domain=(1.0, math.inf)),
    Case("atanh", aten.atanh.default, ((2, 3),), domain=(-1.0, 1.0)),
    Case("erf", aten.erf.default, ((2, 3),)),
    Case("atan", aten.atan.default, ((2, 3),)),
]

STEPS = [
    Case("sign", aten.sign.default, ((2, 3),)),
    Case("floor", aten.floor.default, ((2, 3),)),
    Case("ceil", aten.ceil.default, ((2, 3),)),
    Case("round", aten.round.default, ((2, 3),)),
]

OTHER = [
    Case("prelu-channels", aten.prelu.default, ((3, 2),), lambda r, x: (x, r(3))),
    Case("product", product, ((2, 3), (2, 3)), lambda r, x, y: (x, y)),
    Case("product-broadcast", product, ((2, 3), (1, 3)), lambda r, x, y: (x, y)),
    Case("matrix_product", matrix_product, ((2, 2, 3), (2, 3, 2)), lambda r, x, y: (x, y)),
    Case("softmax", aten.softmax.int, ((2, 3),), lambda r, x: (x, -1)),
    Case("softmax-first", aten.softmax.int, ((4, 2),), lambda r, x: (x, 1)),
    Case("softmax-decomposed", aten._softmax.default, ((2, 3),), lambda r, x: (x, 2, False)),
    Case("logsumexp", aten.logsumexp.default, ((2, 3),), lambda r, x: (x, [1])),
    Case("logsumexp-axes", aten.logsumexp.default, ((2, 3),), lambda r, x: (x, [-1, 1], True)),
    Case("prelu-tokens", aten.prelu.default, ((4,),), lambda r, x: (x, 2 * r(4))),
]

CASES = [*AFFINE, *ELEMENTWISE, *POOLING, *CURVED, *STEPS, *OTHER]


def name_of(case: Case) -> str:
    return case.name
