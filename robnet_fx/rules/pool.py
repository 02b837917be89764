"""Average pooling, means and sums: non-negative weights, so the ends of an interval map to the ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx

from robnet_fx.rules.affine import affine
from robnet_fx.rules.refusals import keeps_batch
from robnet_fx.rules.registry import register

aten = torch.ops.aten


def _negative_divisor(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    divisor = node.args[6] if len(node.args) > 6 else None
    return "its divisor_override is negative" if isinstance(divisor, int) and divisor < 0 else None


for _dims, _pool, _adaptive in (
    (1, F.avg_pool1d, F.adaptive_avg_pool1d),
    (2, F.avg_pool2d, F.adaptive_avg_pool2d),
    (3, F.avg_pool3d, F.adaptive_avg_pool3d),
):
    register(
        __name__,
        affine(f"avg_pool{_dims}d", _pool, supports=_negative_divisor),
        getattr(aten, f"avg_pool{_dims}d").default,
    )
    _names = [f"adaptive_avg_pool{_dims}d"] + [f"_adaptive_avg_pool{_dims}d"] * (_dims > 1)
    register(__name__, affine(_names[0], _adaptive), *(getattr(aten, name).default for name in _names))


register(__name__, affine("mean", torch.mean, supports=keeps_batch(1)), aten.mean.dim)
register(__name__, affine("sum", torch.sum, supports=keeps_batch(1)), aten.sum.dim_IntList)
