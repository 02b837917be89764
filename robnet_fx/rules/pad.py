"""Padding: by a constant, which is part of b and not of W, by reflection, by repetition and around."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _touches_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    widths = node.args[1]
    assert isinstance(widths, (list, tuple))
    return "it pads the batch axis" if len(widths) // 2 > len(bounded[0].meta["shape"]) else None


def _pad(x: Tensor, widths: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    return F.pad(x, list(widths), mode, value)


def _pad_lin(x: Tensor, widths: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    return F.pad(x, list(widths), mode, 0.0 if mode == "constant" else None)


register(__name__, affine("pad", _pad, lin=_pad_lin, supports=_touches_batch), aten.pad.default)
register(
    __name__,
    affine(
        "constant_pad",
        lambda x, widths, value=0: F.pad(x, list(widths), "constant", value),
        lin=lambda x, widths, value=0: F.pad(x, list(widths)),
        supports=_touches_batch,
    ),
    aten.constant_pad_nd.default,
)
for _dims in (1, 2, 3):
    for _mode, _stem in (("reflect", "reflection_pad"), ("replicate", "replication_pad")):
        register(
            __name__,
            affine(f"{_stem}{_dims}d", lambda x, widths, mode=_mode: F.pad(x, list(widths), mode)),
            getattr(aten, f"{_stem}{_dims}d").default,
        )
