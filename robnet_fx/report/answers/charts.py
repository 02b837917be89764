"""Charts as inline SVG. They are as wide as the page lets them be: shapes stretch, marks and text keep their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from robnet_fx.report.page.marks import text

ANSWERS = ("certified", "unknown", "falsified", "wrong")
"""What an image can be, in the order of a bar; the CSS classes of its parts."""

_PLOT, _BELOW = 240, 40  # the heights of the plot and of what is written under it
_ROOM = 0.04  # at either side of a plot, of its width
_TICKS, _NAMED = 7, 8  # numbers below a plot, and names below a histogram, at most


class Line(NamedTuple):
    """Shares against eps: `points` of (eps, lower, upper), the band between them; css is its colour."""

    name: str
    css: str
    points: Sequence[tuple[float, float, float]]


class Guide(NamedTuple):
    """A thin line without a band: `points` of (eps, share)."""

    css: str
    points: Sequence[tuple[float, float]]


def curve_svg(key: str, title: str, said: str, lines: Sequence[Line], guides: Sequence[Guide] = ()) -> str:
    """Shares of the images against eps, the axes from 0. key: of its ids; said: what it shows, for who does not see."""
    most = max((point[0] for line in lines for point in line.points), default=0) or 1.0

    def x(eps: float) -> float:
        return 1000 * (_ROOM + (1 - 2 * _ROOM) * eps / most)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x(eps):.2f} {_y(share):.2f}" for eps, share in points)

    shapes, marks = [], []
    for guide in guides:
        shapes.append(f'<path class="guide {guide.css}" d="{path(guide.points)}"/>')
        marks += _marks(f"guide {guide.css}", [(x(eps), share) for eps, share in guide.points])
    for line in lines:
        lower = [(eps, share) for eps, share, _ in line.points]
        upper = [(eps, share) for eps, _, share in line.points]
        shapes.append(f'<path class="band {line.css}" d="{path([*lower, *reversed(upper)])}Z"/>')
        shapes.append(f'<path class="edge {line.css}" d="{path(upper)}"/>')
        shapes.append(f'<path class="edge lower {line.css}" d="{path(lower)}"/>')
        marks += _marks(f"upper {line.css}", [(x(eps), share) for eps, share in upper])
        marks += _marks(line.css, [(x(eps), share) for eps, share in lower])
    return _svg(key, title, said, _grid() + _stretched(shapes) + "".join(marks) + _ticks(most, x))


def _marks(css: str, points: Sequence[tuple[float, float]]) -> list[str]:
    """A dot for each point, where they are few."""
    if len(points) > 12:
        return []
    return [f'<circle class="dot {css}" cx="{at / 10:.2f}%" cy="{_y(share):.2f}" r="4"/>' for at, share in points]


def _y(share: float) -> float:
    return _PLOT * (1 - share)


def _grid() -> str:
    rows = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        rows.append(f'<line class="grid" x1="0" x2="100%" y1="{_y(share):g}" y2="{_y(share):g}"/>')
        rows.append(f'<text class="tick" x="-8" y="{_y(share) + 4:g}" text-anchor="end">{share:.0%}</text>')
    return "".join(rows)


def _ticks(most: float, x: Callable[[float], float]) -> str:
    """Pixel levels below the plot, a round number apart."""
    levels = most * 255
    rough = levels / _TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= rough)
    marked = [
        f'<text class="tick" x="{x(step * i / 255) / 10:.2f}%" y="{_PLOT + 18}" text-anchor="middle">'
        f"{step * i:g}</text>"
        for i in range(math.floor(levels / step + 1e-9) + 1)
    ]
    name = f'<text class="tick" x="50%" y="{_PLOT + 36}" text-anchor="middle">eps, in pixel levels of 255</text>'
    return "".join(marked) + name


def _stretched(shapes: Sequence[str]) -> str:
    """Paths on a plane 1000 wide, which is brought to the plot's width."""
    return (
        f'<svg viewBox="0 0 1000 {_PLOT}" preserveAspectRatio="none" width="100%" height="{_PLOT}">'
        f"{''.join(shapes)}</svg>"
    )


def _svg(key: str, title: str, said: str, inner: str, height: int = _PLOT + _BELOW) -> str:
    return (
        f'<svg class="plot" role="img" aria-labelledby="{key}-t {key}-d" height="{height}">'
        f'<title id="{key}-t">{text(title)}</title><desc id="{key}-d">{text(said)}</desc>{inner}</svg>'
    )


def bar_svg(shares: Mapping[str, float], *, tall: bool = False) -> str:
    """A bar of the whole width with the shares of `ANSWERS` side by side; their figures in it where it is tall."""
    height, start, parts = 30 if tall else 14, 0.0, []
    for answer in ANSWERS:
        share = shares.get(answer, 0.0)
        if share <= 0:
            continue
        parts.append(
            f'<rect class="part {answer}" x="{100 * start:.3f}%" width="{100 * share:.3f}%" height="{height}"/>'
        )
        if tall and share >= 0.16:
            middle = 100 * (start + share / 2)
            parts.append(
                f'<text class="in {answer}" x="{middle:.3f}%" y="{height / 2 + 4.5:g}" '
                f'text-anchor="middle">{share:.1%}</text>'
            )
        start += share
    said = ", ".join(f"{answer} {shares[answer]:.1%}" for answer in ANSWERS if answer in shares)
    return f'<svg class="bar" role="img" aria-label="{said}" height="{height}">{"".join(parts)}</svg>'


def histogram_svg(key: str, title: str, bins: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """How many images fall into each bin, by answer: bins of a name and the counts of `ANSWERS`."""
    totals = [sum(counts.values()) for _, counts in bins]
    most, height, width = max(totals, default=0) or 1, 120, 100 / max(len(bins), 1)
    parts = [f'<line class="grid" x1="0" x2="100%" y1="{height + 18}" y2="{height + 18}"/>']
    for i, ((name, counts), total) in enumerate(zip(bins, totals, strict=True)):
        base, middle = float(height + 18), width * (i + 0.5)
        for answer in ANSWERS:
            tall = height * counts.get(answer, 0) / most
            if tall:
                base -= tall
                parts.append(
                    f'<rect class="part {answer}" x="{width * (i + 0.12):.3f}%" y="{base:.2f}" '
                    f'width="{width * 0.76:.3f}%" height="{tall:.2f}"/>'
                )
        if total:
            parts.append(
                f'<text class="tick strong" x="{middle:.3f}%" y="{base - 5:.2f}" text-anchor="middle">{total}</text>'
            )
        if i % math.ceil(len(bins) / _NAMED) == 0:
            parts.append(
                f'<text class="tick" x="{middle:.3f}%" y="{height + 34}" text-anchor="middle">{text(name)}</text>'
            )
    said = "; ".join(f"{name}: {total}" for (name, _), total in zip(bins, totals, strict=True))
    return _svg(key, title, said, "".join(parts), height + 40)


def legend(names: Mapping[str, str]) -> str:
    """What areas and lines are: CSS classes, those of lines with their kind (edge, guide), and words."""
    return (
        f'<p class="legend">{"".join(f"<span>{_swatch(css)} {text(name)}</span>" for css, name in names.items())}</p>'
    )


def _swatch(css: str) -> str:
    line = css.startswith(("edge ", "guide "))
    width = 24 if line else 14
    drawn = (
        f'<path class="{css}" d="M0 7H24"/>' if line else f'<rect class="part {css}" width="14" height="14" rx="3"/>'
    )
    return f'<svg class="swatch" width="{width}" height="14" aria-hidden="true">{drawn}</svg>'


HATCH = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-ground" width="6" height="6"/><rect class="hatch-line" width="2.4" height="6"/></pattern>'
    "</defs></svg>"
)
"""The pattern of what is unknown, once a page."""
