"""Functions that gate their input: SiLU (swish), Mish, and their cheap forms hardswish and hardsigmoid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robnet_fx.rules.curved import Curve, Search, curved, nowhere
from robnet_fx.rules.registry import register

aten = torch.ops.aten

_TAIL = 45.0  # x exp(-x) is lost in rounding


def _silu_derivative(x: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return p * (1 + x * (1 - p))


def _mish_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * torch.sigmoid(x) * (1 - t * t)


_SILU = Curve(
    F.silu,
    Search(_silu_derivative, (-2.3993572805154677, 2.3993572805154677), _TAIL),
    still=(-1.2784645427610738,),
    bent=(-_TAIL, _TAIL),
)
_MISH = Curve(
    F.mish,
    Search(_mish_derivative, (-2.2563763963607931, 1.4905711794854264), _TAIL),
    still=(-1.1924312145154952,),
    bent=(-_TAIL, _TAIL),
)
_HARDSWISH = Curve(  # between the kinks x (x + 3) / 6, with f' = (2 x + 3) / 6
    F.hardswish,
    lambda slope, pre: [3 * slope - 1.5],
    still=(-1.5,),
    kinks=(-3.0, 3.0),
    bent=(-3.0, 3.0),
)
_HARDSIGMOID = Curve(F.hardsigmoid, nowhere, kinks=(-3.0, 3.0), least=0.0, most=1.0, bent=(-3.0, 3.0))

register(__name__, curved("silu", lambda: _SILU), aten.silu.default)
register(__name__, curved("mish", lambda: _MISH), aten.mish.default)
register(__name__, curved("hardswish", lambda: _HARDSWISH), aten.hardswish.default)
register(__name__, curved("hardsigmoid", lambda: _HARDSIGMOID), aten.hardsigmoid.default)
