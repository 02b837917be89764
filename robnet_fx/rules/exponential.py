"""Exponentials and logarithms: exp, log, the ELU family, softplus and log-sigmoid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.curved import Curve, band_of, curved, lines_of, offsets_of, reach_of
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import register
from robnet_fx.rules.relaxation import Band, Function, Lines, Relaxation

aten = torch.ops.aten

_EXP = Curve(torch.exp, lambda slope, pre: [slope.log()], least=0.0, noise=0.0)
_EXPM1 = Curve(torch.expm1, lambda slope, pre: [slope.log()], least=-1.0, noise=0.0)


def _logarithm(f: Function, base: float = math.e, shift: float = 0.0) -> Curve:
    """log(x + shift) to a base: f' = 1 / ((x + shift) log(base))."""
    return Curve(f, lambda slope, pre: [1 / (slope * math.log(base)) - shift], start=-shift, noise=0.0)


_LOG, _LOG1P = _logarithm(torch.log), _logarithm(torch.log1p, shift=1.0)
_LOG2, _LOG10 = _logarithm(torch.log2, 2), _logarithm(torch.log10, 10)

register(__name__, curved("exp", lambda: _EXP), aten.exp.default)
register(__name__, curved("expm1", lambda: _EXPM1), aten.expm1.default)
register(__name__, curved("log", lambda: _LOG), aten.log.default)
register(__name__, curved("log1p", lambda: _LOG1P), aten.log1p.default)
register(__name__, curved("log2", lambda: _LOG2), aten.log2.default)
register(__name__, curved("log10", lambda: _LOG10), aten.log10.default)


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Curve:
    """scale x right of 0; left of it scale alpha (exp(input_scale x) - 1), with f' = scale alpha input_scale exp(.)."""

    def turns(slope: Tensor, pre: Interval) -> list[Tensor]:
        steepest = scale * alpha * input_scale
        return [torch.log(slope / steepest) / input_scale] if steepest else []

    return Curve(lambda x: aten.elu.default(x, alpha, scale, input_scale), turns, kinks=(0.0,), bent=(-math.inf, 0.0))


def _celu(alpha: float = 1.0) -> Curve:
    return _elu(alpha, 1.0, 1 / alpha)


def _selu() -> Curve:
    return _elu(1.6732632423543772, 1.0507009873554805)


register(__name__, curved("elu", _elu), aten.elu.default)
register(__name__, curved("celu", _celu), aten.celu.default)
register(__name__, curved("selu", _selu), aten.selu.default)


def _softplus(beta: float = 1.0) -> Curve:
    """log(1 + exp(beta x)) / beta, with f' = sigmoid(beta x)."""

    def f(x: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(x), beta * x) / beta

    return Curve(f, lambda slope, pre: [torch.logit(slope) / beta])


def _drop(pre: Interval, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Where beta x exceeds the threshold the operation returns x itself, a little less than the curve (more if beta is
    negative): the interval `[low, high]` of what it lacks."""
    beyond = torch.maximum(beta * pre.lower, beta * pre.upper) > threshold
    lack = torch.where(beyond, math.log1p(math.exp(-threshold)) / beta, torch.zeros_like(pre.lower))
    return lack.clamp(max=0), lack.clamp(min=0)


def softplus_reach(pre: Interval, beta: float = 1.0, threshold: float = 20.0) -> Interval:
    """The curve's range, less what the straight part lacks."""
    lower, upper = reach_of(_softplus(beta), pre)
    low, high = _drop(pre, beta, threshold)
    return Interval(lower - high, upper - low)


def softplus_band(pre: Interval, beta: float = 1.0, threshold: float = 20.0) -> Band:
    """The curve's band, less what the straight part lacks."""
    slope, offset, error = band_of(_softplus(beta), pre)
    low, high = _drop(pre, beta, threshold)
    return Band(slope, offset - (high + low) / 2, error + (high - low) / 2)


def softplus_lines(pre: Interval, beta: float = 1.0, threshold: float = 20.0) -> Lines:
    """The curve's lines, less what the straight part lacks."""
    lower_slope, lower_offset, upper_slope, upper_offset = lines_of(_softplus(beta), pre)
    assert lower_offset is not None
    low, high = _drop(pre, beta, threshold)
    return Lines(lower_slope, lower_offset - high, upper_slope, upper_offset - low)


def softplus_offsets(pre: Interval, slope: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Interval:
    """The curve's offsets, less what the straight part lacks."""
    lower, upper = offsets_of(_softplus(beta), pre, slope)
    low, high = _drop(pre, beta, threshold)
    return Interval(lower - high, upper - low)


_SOFTPLUS = Relaxation(softplus_reach, softplus_band, softplus_lines, offsets=softplus_offsets)
register(__name__, elementwise("softplus", _SOFTPLUS), aten.softplus.default)

_LOG_SIGMOID = Curve(  # f' = sigmoid(-x)
    torch.nn.functional.logsigmoid, lambda slope, pre: [-torch.logit(slope)], most=0.0, noise=0.0
)
register(__name__, curved("log_sigmoid", lambda: _LOG_SIGMOID), aten.log_sigmoid.default)
