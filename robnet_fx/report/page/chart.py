"""The chart: mean width of the bounds, node by node and method by method, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robnet_fx.inspect import Survey
from robnet_fx.report.page.marks import SERIES, LogScale, Series, figure, mark, number, text

_LEFT, _TOP, _PLOT, _BOTTOM, _RIGHT = 58, 18, 330, 118, 200
_STEP_MIN, _WIDE = 9.0, 976
_SPACED = 15.0  # between the names below the columns
_LABEL = 15  # between the lines of text at the right


def chart_svg(found: Survey) -> str:
    """The chart as inline SVG; a column a node, the logits by method at the right."""
    nodes = found.nodes
    step = max(_STEP_MIN, _WIDE / (len(nodes) + 1))
    plot = step * (len(nodes) + 1)
    width, height = _LEFT + plot + _RIGHT, _TOP + _PLOT + _BOTTOM
    known = [value for node in nodes for series in SERIES if (value := figure(node, series)) is not None]
    scale = LogScale([*known, *found.logits.values()], _TOP + _PLOT, _TOP)

    def x(index: int) -> float:
        return _LEFT + step * (index + 0.5)

    parts = [_grid(scale, _LEFT + plot)]
    parts.append(f'<path class="divide" d="M{_LEFT + plot - step:.1f} {_TOP}V{_TOP + _PLOT}"/>')
    parts += [_column(node.name, node.blow_up, x(i), step) for i, node in enumerate(nodes)]
    ends: list[tuple[float, Series, float]] = []
    places = {node.name: x(i) for i, node in enumerate(nodes)}
    for series in SERIES:
        points = {n.name: (places[n.name], scale(value)) for n in nodes if (value := figure(n, series)) is not None}
        lines = [(before, n.name) for n in nodes if n.name in points for before in _before(n.name, found, points)]
        last = nodes[-1].sampled if series.method == "sampled" else found.logits.get(series.method)
        if last:
            end = nodes[-1].name
            lines += [(before, "") for before in ([end] if end in points else _before(end, found, points))]
            points[""] = (x(len(nodes)), scale(last))
            ends.append((scale(last), series, last))
        path = "".join("M{:.1f} {:.1f}L{:.1f} {:.1f}".format(*points[a], *points[b]) for a, b in lines)
        parts.append(f'<path class="line {series.css}" d="{path}"/>')
        parts += [mark(series.css, *point) for point in points.values()]
    parts.append(_names(ends, _LEFT + plot))
    every = math.ceil(_SPACED / step)  # where columns are narrow, not every name is written
    parts += [_tick(node.name, x(i), step) for i, node in enumerate(nodes) if i % every == 0]
    parts.append(_tick("logits, by method", x(len(nodes)), step, css="strong"))
    return (
        f'<svg class="chart" role="img" aria-labelledby="chart-title chart-desc" width="{width:.0f}" '
        f'height="{height}" viewBox="0 0 {width:.0f} {height}">'
        '<title id="chart-title">Width of the bounds by layer and method</title>'
        f'<desc id="chart-desc">{text(_described(found))}</desc>{"".join(parts)}</svg>'
    )


def _before(name: str, found: Survey, points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The nodes that a line reaches this one from: its inputs that have a point. Where an input has none, the last node
    in front of it that has: a skip connection would else lead on to every block before."""
    inputs = {node.name: node.inputs for node in found.nodes}
    order = {node.name: i for i, node in enumerate(found.nodes)}
    direct = [source for source in inputs[name] if source in points]
    if direct:
        return direct
    nearest, waiting, seen = set(), list(inputs[name]), set()
    while waiting:
        source = waiting.pop()
        if source in points:
            nearest.add(source)
        elif source not in seen:
            seen.add(source)
            waiting += inputs[source]
    return sorted(nearest, key=order.__getitem__)[-1:]


def _grid(scale: LogScale, right: float) -> str:
    lines = []
    for value in scale.ticks:
        y = scale(value)
        lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right:.1f}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    return "".join(lines)


def _column(name: str, blown: bool, x: float, step: float) -> str:
    """The node's strip of the plot: what is lit with the node, and the mark of a blow-up."""
    left = x - step / 2
    alarm = f'<text class="alarm" x="{x:.1f}" y="{_TOP - 5}" text-anchor="middle">▲</text>' if blown else ""
    return (
        f'<a class="column{" blown" if blown else ""}" data-node="{text(name)}" href="#node-{text(name)}">'
        f"<title>{text(name)}</title>"
        f'<rect x="{left:.1f}" y="{_TOP}" width="{step:.1f}" height="{_PLOT}"/>{alarm}</a>'
    )


def _tick(name: str, x: float, step: float, css: str = "") -> str:
    y = _TOP + _PLOT + 12
    size = "" if step > 17 else ' font-size="9"'
    return (
        f'<text class="tick {css}"{size} transform="translate({x + 4:.1f} {y}) rotate(-52)" '
        f'text-anchor="end">{text(name)}</text>'
    )


def _names(ends: list[tuple[float, Series, float]], right: float) -> str:
    """The names of the lines at their ends, moved apart where they would touch."""
    placed, lowest = [], float(_TOP)
    for y, series, value in sorted(ends, key=lambda end: end[0]):
        lowest = max(y, lowest)
        placed.append((y, lowest, series, value))
        lowest += _LABEL
    overflow = max(0.0, lowest - _LABEL - (_TOP + _PLOT))
    return "".join(
        f'<path class="leader" d="M{right - 4:.1f} {y:.1f}L{right + 12:.1f} {at - overflow:.1f}"/>'
        f'<text class="end {series.css}" x="{right + 16:.1f}" y="{at - overflow + 4:.1f}">{text(series.name)}'
        f'<tspan class="value" dx="7">{number(value)}</tspan></text>'
        for y, at, series, value in placed
    )


def _described(found: Survey) -> str:
    widths = ", ".join(f"{method} {number(width)}" for method, width in found.logits.items())
    blown = [node.name for node in found.nodes if node.blow_up]
    where = f" Bounds lose most at {', '.join(blown)}." if blown else ""
    return f"Mean width of the logits' bounds: {widths}.{where} All figures are in the table below."
