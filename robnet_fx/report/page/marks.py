"""What graph and chart share: the methods' names, classes and marks, and the numbers as text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from robnet_fx.inspect import NodeWidths


class Series(NamedTuple):
    """A line of the chart: its CSS class, its name, the node's figure and the method of the logits at its end."""

    css: str
    name: str
    figure: str
    method: str


SERIES = (
    Series("ibp", "IBP", "ibp", "ibp"),
    Series("ssip", "SSIP", "ssip", "ssip"),
    Series("rsip-ibp", "RSIP-IBP", "rsip_ibp", "rsip-ibp"),
    Series("rsip-ssip", "RSIP-SSIP", "rsip_ssip", "rsip-ssip"),
    Series("rsip", "RSIP", "rsip", "rsip"),
    Series("sampled", "sampled", "sampled", "sampled"),
)
"""In the order in which they are drawn; `sampled` is no bound but the range seen on sampled fields."""

WORST = "◆"
"""Marks the node whose errors hurt the margins most."""


class LogScale:
    """Positive values to pixels, with a little room at both ends."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        known = [math.log10(value) for value in values if value > 0 and math.isfinite(value)] or [0.0]
        room = max(0.05 * (max(known) - min(known)), 0.1)
        self.low, self.high = min(known) - room, max(known) + room
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Powers of ten on the axis: some where there are many, with 2 and 5 between them where there are few."""
        span = self.high - self.low
        every = max(1, round(span / 8))
        steps = (0.0,) if span > 2 else (0.0, math.log10(2), math.log10(5))
        decades = [d for d in range(math.floor(self.low), math.ceil(self.high) + 1) if d % every == 0]
        return [10 ** (d + step) for d in decades for step in steps if self.low <= d + step <= self.high]


def figure(node: NodeWidths, series: Series) -> float | None:
    """A node's width in a series, None where there is none that a logarithm can show."""
    value: float | None = getattr(node, series.figure)
    return value if value is not None and value > 0 and math.isfinite(value) else None


def number(value: float | None) -> str:
    """Three digits, plainly; powers of ten only where they help."""
    if value is None or not math.isfinite(value):
        return "–"
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def mark(css: str, x: float, y: float, size: float = 3.4) -> str:
    """The mark of a series: shapes differ as well as colours."""
    s = size
    shapes = {
        "ibp": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{s:g}"/>',
        "ssip": f'<rect x="{x - s * 0.9:.1f}" y="{y - s * 0.9:.1f}" width="{1.8 * s:.1f}" height="{1.8 * s:.1f}"/>',
        "rsip-ibp": f'<path d="M{x:.1f} {y + 1.2 * s:.1f}l{1.2 * s:.1f} {-2.2 * s:.1f}h{-2.4 * s:.1f}z"/>',
        "rsip-ssip": f'<path d="M{x:.1f} {y - 1.3 * s:.1f}l{1.3 * s:.1f} {1.3 * s:.1f}l{-1.3 * s:.1f} {1.3 * s:.1f}'
        f'l{-1.3 * s:.1f} {-1.3 * s:.1f}z"/>',
        "rsip": f'<path d="M{x:.1f} {y - 1.2 * s:.1f}l{1.2 * s:.1f} {2.2 * s:.1f}h{-2.4 * s:.1f}z"/>',
        "sampled": f'<path d="M{x - s:.1f} {y:.1f}h{2 * s:.1f}" class="dash"/>',
    }
    return f'<g class="mark {css}">{shapes[css]}</g>'


def text(value: object) -> str:
    """Escaped for HTML, attributes included."""
    return escape(str(value), quote=True)
