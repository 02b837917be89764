"""GELU, exact and with its tanh approximation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robnet_fx.rules.curved import Curve, Search, curved
from robnet_fx.rules.registry import register

aten = torch.ops.aten

_SCALE, _CUBE = math.sqrt(2 / math.pi), 0.044715  # x (1 + tanh(_SCALE (x + _CUBE x^3))) / 2


def _exact_derivative(x: Tensor) -> Tensor:
    """The normal distribution's Phi(x) + x phi(x)."""
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _tanh_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(_SCALE * (x + _CUBE * x**3))
    return (1 + t) / 2 + x * (1 - t * t) * _SCALE * (1 + 3 * _CUBE * x * x) / 2


_CURVES = {
    "none": Curve(
        F.gelu,
        Search(_exact_derivative, (-math.sqrt(2), math.sqrt(2)), 10.0),
        still=(-0.7517915246935645,),
        bent=(-10.0, 10.0),
    ),
    "tanh": Curve(
        lambda x: F.gelu(x, approximate="tanh"),
        Search(_tanh_derivative, (-1.4185040088107883, 1.4185040088107883), 10.0),
        still=(-0.7524614220710163,),
        bent=(-10.0, 10.0),
    ),
}

register(__name__, curved("gelu", lambda approximate="none": _CURVES[approximate]), aten.gelu.default)
