"""Curved functions: from the points where f' has a given value, the tightest band of that slope, and all rules follow.

Whatever slope s is chosen, f(x) - s x has its extremes at the ends of `pre`, at the kinks of f, or where f'(x) = s. Any
point of `pre` may be among the candidates, for it can only report a value that the function takes; so a point sought in
vain is moved to an end. Points are found without gradients: to first order the extreme value does not move with them
(the envelope theorem).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import Rule
from robnet_fx.rules.relaxation import Band, Function, Lines, Relaxation, between, chord, enclose, tilted

Turns = Callable[[Tensor, Interval], Sequence[Tensor]]

_ULPS = 8.0
_HALVINGS = 10
_CHEBYSHEV = (0.5 - math.sqrt(3) / 4, 0.5 + math.sqrt(3) / 4)


@dataclass(frozen=True)
class Search:
    """Finds the turns of a smooth function that has no formula for them.

    On each piece between the `bends` (where f'' = 0) f' is monotone. Beyond ±`tail` f is its asymptote, but for
    rounding, and an affine function adds no turn.
    """

    derivative: Function
    bends: tuple[float, ...]
    tail: float

    def __call__(self, slope: Tensor, pre: Interval) -> tuple[Sequence[Tensor], Tensor]:
        """The turns, and by how much f(x) - slope x may pass its values there.

        A few halvings leave an interval of width w about a turn t, and a secant a point p in it; as f' is monotone
        between them, the extreme value at t passes the one at p by no more than |f'(p) - slope| w.
        """
        edges = _constants((-self.tail, *self.bends, self.tail), slope)
        cuts = [between(edge, *pre) for edge in edges]
        low, width = torch.stack(cuts[:-1]), torch.stack([b - a for a, b in itertools.pairwise(cuts)])
        at_low, at_high = self.derivative(low), self.derivative(low + width)
        rising, found = at_high >= at_low, (at_low < slope) != (at_high < slope)
        for _ in range(_HALVINGS):
            width = width / 2
            low = torch.where((self.derivative(low + width) < slope) == rising, low + width, low)
        at_low, at_high = self.derivative(low), self.derivative(low + width)
        share = ((slope - at_low) / (at_high - at_low)).nan_to_num(0.5).clamp(0, 1)
        point = low + share * width
        slack = (self.derivative(point) - slope).abs() * width
        return torch.where(found, point, -math.inf).unbind(0), torch.where(found, slack, 0.0).amax(0)


def nowhere(slope: Tensor, pre: Interval) -> Sequence[Tensor]:
    """The turns of a function made of straight pieces."""
    return ()


@dataclass(frozen=True)
class Curve:
    """A function of one variable, by what its bounds need to know."""

    f: Function
    turns: Turns | Search  #: (slope, pre) -> every point of `pre` where f' = slope; NaN or one outside means none
    still: tuple[float, ...] | None = ()  #: the points where f' = 0, or None to ask `turns`
    kinks: tuple[float, ...] = ()
    least: float = -math.inf  #: least <= f
    most: float = math.inf  #: f <= most
    start: float = -math.inf  #: left of it f is NaN
    stop: float = math.inf  #: right of it f is NaN
    fits: Callable[[Interval], Tensor] | None = None  #: where f has no pole; elsewhere only `least` and `most` hold
    noise: float = 1.0  #: f is rounded by a few units of noise + |f|: 0 where its values keep their relative precision
    bent: tuple[float, float] = (-math.inf, math.inf)  #: outside f is a straight line

    @property
    def somewhere(self) -> float:
        """A point where f is finite: 1, unless the domain ends there."""
        return 1.0 if self.stop > 1 else (self.start + self.stop) / 2


def curved(name: str, curve: Callable[..., Curve]) -> Rule:
    """The rule of a curved function; `curve` takes the node's arguments after the first."""

    def reach(pre: Interval, *args: Any, **kwargs: Any) -> Interval:
        return reach_of(curve(*args, **kwargs), pre)

    def band(pre: Interval, *args: Any, **kwargs: Any) -> Band:
        return band_of(curve(*args, **kwargs), pre)

    def lines(pre: Interval, *args: Any, **kwargs: Any) -> Lines:
        return lines_of(curve(*args, **kwargs), pre)

    def unstable(pre: Interval, *args: Any, **kwargs: Any) -> Tensor:
        low, high = curve(*args, **kwargs).bent
        return (pre.upper > pre.lower) & (pre.lower < high) & (pre.upper > low)

    def offsets(pre: Interval, slope: Tensor, *args: Any, **kwargs: Any) -> Interval:
        return offsets_of(curve(*args, **kwargs), pre, slope)

    return elementwise(name, Relaxation(reach, band, lines, unstable, offsets))


def reach_of(curve: Curve, pre: Interval) -> Interval:
    """The range of f over `pre`: its extremes lie at the ends, at kinks, or where f' = 0."""
    defined, finite, inner = _regular(curve, pre)
    points = [*inner, *(between(turn, *inner) for turn in _still(curve, inner))]
    values = torch.stack([curve.f(point) for point in points])
    lowest, highest = values.amin(0), values.amax(0)
    lower = (lowest - rounding(curve.noise + lowest.abs())).clamp(min=curve.least)
    upper = (highest + rounding(curve.noise + highest.abs())).clamp(max=curve.most)
    lower, upper = torch.where(finite, lower, curve.least), torch.where(finite, upper, curve.most)
    return Interval(torch.where(defined, lower, math.nan), torch.where(defined, upper, math.nan))


def band_of(curve: Curve, pre: Interval) -> Band:
    """The tightest band of the chord's slope, or of the slope between the Chebyshev points where that has less error:
    the chord is best where f bends one way only, and the other one about an inflection."""
    bands = _bands(curve, pre, ((0.0, 1.0), _CHEBYSHEV))
    index = bands.error.argmin(0, keepdim=True)
    return Band(*(part.gather(0, index).squeeze(0) for part in bands))


def lines_of(curve: Curve, pre: Interval) -> Lines:
    """Of the bands of a few slopes, the lower edge that is highest at the middle and the upper one that is lowest:
    areas go by these heights. A wide GELU gets one of the lines a ReLU would, an exponential its tangent."""
    slope, offset, error = _bands(curve, pre, ((0.0, 1.0), _CHEBYSHEV, (0.0, 0.5), (0.25, 0.75), (0.5, 1.0)))
    middle = ((pre.lower + pre.upper) / 2).detach()

    def best(edge: Tensor, sign: float) -> tuple[Tensor, Tensor]:
        index = (sign * (slope * middle + edge)).argmax(0, keepdim=True)
        return slope.gather(0, index).squeeze(0), edge.gather(0, index).squeeze(0)

    return Lines(*best(offset - error, 1.0), *best(offset + error, -1.0))


def offsets_of(curve: Curve, pre: Interval, slope: Tensor) -> Interval:
    """The interval of f(x) - slope * x over `pre`, for any slope."""
    return tilted(_fitted(curve, slope, *_regular(curve, pre)), pre, slope)


def _bands(curve: Curve, pre: Interval, parts: Sequence[tuple[float, float]]) -> Band:
    """`[N, B, *S]`: for each of the parts of `pre` the tightest band of the slope between its ends."""
    defined, finite, inner = _regular(curve, pre)
    width = inner.upper - inner.lower
    spans = (Interval(inner.lower + first * width, inner.upper - (1 - last) * width) for first, last in parts)
    return _fitted(curve, torch.stack([chord(curve.f, span) for span in spans]), defined, finite, inner)


def _fitted(curve: Curve, slope: Tensor, defined: Tensor, finite: Tensor, inner: Interval) -> Band:
    """The tightest band of a slope; where f is not finite the one of slope 0 that always holds."""
    turns, slack = _turns(curve, slope, inner)
    slope, offset, error = enclose(curve.f, inner, slope, turns + _constants(curve.kinks, slope))
    size = curve.noise + offset.abs() + error + slope.abs() * torch.maximum(-inner.lower, inner.upper)
    bounded = math.isfinite(curve.least) and math.isfinite(curve.most)
    middle = (curve.most + curve.least) / 2 if bounded else 0.0
    radius = (curve.most - curve.least) / 2 if bounded else math.inf
    error = torch.where(defined, torch.where(finite, error + slack + rounding(size), radius), math.nan)
    return Band(torch.where(finite, slope, 0.0), torch.where(finite, offset, middle), error)


def _regular(curve: Curve, pre: Interval) -> tuple[Tensor, Tensor, Interval]:
    """Where f is defined all over `pre`; where it is finite too; and `pre`, elsewhere with a point of every domain.

    What is undefined is bounded by NaN, which no later operation can turn into a verdict: after an infinite interval a
    clamp would be finite again, while the network's own value, the root of a negative number, would not be a number.
    """
    inside = [(end >= curve.start) & (end <= curve.stop) for end in pre]  # NaN is not
    defined = inside[0] & inside[1]
    finite = defined & curve.fits(pre) if curve.fits else defined
    with torch.no_grad():
        inner = Interval(*(torch.where(finite, end, curve.somewhere) for end in pre))
        finite = finite & (curve.f(inner.upper) - curve.f(inner.lower)).isfinite()
        finite = finite & (inner.upper - inner.lower).isfinite()
    return defined, finite, Interval(*(torch.where(finite, end, curve.somewhere) for end in pre))


@torch.no_grad()
def _turns(curve: Curve, slope: Tensor, pre: Interval) -> tuple[list[Tensor], Tensor]:
    """The points where f' = slope, what is not a number moved out of the way, and the slack they are known with."""
    if isinstance(curve.turns, Search):
        turns, slack = curve.turns(slope, pre)
    else:
        turns, slack = curve.turns(slope, pre), torch.zeros_like(slope)
    return [torch.where(turn.isnan(), -math.inf, turn) for turn in turns], slack


def _still(curve: Curve, pre: Interval) -> list[Tensor]:
    """The points where f' = 0 or f has a kink."""
    level = torch.zeros_like(pre.lower)
    turns = _turns(curve, level, pre)[0] if curve.still is None else _constants(curve.still, level)
    return turns + _constants(curve.kinks, level)


def _constants(values: Sequence[float], like: Tensor) -> list[Tensor]:
    return [torch.full_like(like, value) for value in values]


def rounding(size: Tensor) -> Tensor:
    """A few ulps of what was rounded, and one underflow."""
    kind = torch.finfo(size.dtype)
    return _ULPS * kind.eps * size.detach() + kind.tiny
