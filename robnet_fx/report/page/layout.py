"""Where the boxes and arrows of a graph go: ranks from top to bottom, branches side by side, long arrows in lanes.

Canonical graphs are near-chains with a few branches, so a simple scheme reads well: a node's rank is its longest path
from the top, nodes of one rank stand left to right in the order of their inputs, and an arrow that passes ranks runs
in a lane to the right of everything it passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 236, 64
_COLUMN, _RANK, _LANE, _MARGIN = 262, 98, 11, 14


class Box(NamedTuple):
    """A node's top left corner."""

    x: float
    y: float


class Arrow(NamedTuple):
    """From one node to another; `lane` is the x of its vertical part, None for one to the next rank. It leaves from
    the source's side, or from `below` it where its own column is free all the way."""

    source: str
    target: str
    lane: float | None = None
    below: bool = False


class Layout(NamedTuple):
    """Everything placed, in pixels."""

    boxes: dict[str, Box]
    arrows: list[Arrow]
    width: float
    height: float


def layout(inputs: Mapping[str, Sequence[str]]) -> Layout:
    """Place a graph given as node -> the nodes it reads, in topological order."""
    rank: dict[str, int] = {}
    for name, sources in inputs.items():
        rank[name] = 1 + max((rank[source] for source in sources), default=-1)
    column = _columns(inputs, rank)
    boxes = {name: Box(_MARGIN + column[name] * _COLUMN, _MARGIN + rank[name] * _RANK) for name in inputs}
    widest = [max(column[name] for name in inputs if rank[name] == row) for row in range(1 + max(rank.values()))]
    arrows: list[Arrow] = []
    lanes: list[tuple[float, int, int]] = []  # x, first and last rank
    pairs = [(source, target) for target, sources in inputs.items() for source in sources]
    for source, target in sorted(pairs, key=lambda pair: rank[pair[1]] - rank[pair[0]]):
        first, last = rank[source], rank[target]
        if last == first + 1:
            arrows.append(Arrow(source, target))
            continue
        if column[source] > max(widest[first + 1 : last], default=-1) and column[source] > column[target]:
            arrows.append(Arrow(source, target, boxes[source].x + WIDTH / 2, below=True))
            continue
        x = _MARGIN + max(widest[first : last + 1]) * _COLUMN + WIDTH + 2 * _LANE
        while any(abs(x - taken) < _LANE and low <= last and first <= high for taken, low, high in lanes):
            x += _LANE
        lanes.append((x, first, last))
        arrows.append(Arrow(source, target, x))
    right = max([box.x + WIDTH for box in boxes.values()] + [x for x, _, _ in lanes])
    return Layout(boxes, arrows, right + _MARGIN, max(box.y for box in boxes.values()) + HEIGHT + _MARGIN)


def _columns(inputs: Mapping[str, Sequence[str]], rank: Mapping[str, int]) -> dict[str, int]:
    """Column by node: below its inputs where there is room, the longer branch on the left."""
    column: dict[str, int] = {}
    for row in range(1 + max(rank.values())):
        names = [name for name in inputs if rank[name] == row]
        free = 0
        for name, wish in sorted(((name, _wish(inputs[name], column)) for name in names), key=lambda pair: pair[1]):
            column[name] = max(free, wish)
            free = column[name] + 1
    return column


def _wish(sources: Sequence[str], column: Mapping[str, int]) -> int:
    """Below the leftmost input."""
    return min((column[source] for source in sources), default=0)


def path(shape: Layout, arrow: Arrow) -> str:
    """The arrow as an SVG path."""
    start, end = shape.boxes[arrow.source], shape.boxes[arrow.target]
    if arrow.lane is None:
        x1, y1, x2, y2 = start.x + WIDTH / 2, start.y + HEIGHT, end.x + WIDTH / 2, end.y - 5
        bend = (y2 - y1) / 2
        return f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    x1, y1, x2, y2 = start.x + WIDTH, start.y + HEIGHT * 0.62, end.x + WIDTH + 5, end.y + HEIGHT * 0.38
    lane, turn = arrow.lane, 12
    if arrow.below:
        down = f"M{lane:g} {start.y + HEIGHT:g}V{y2 - 2 * turn:g}"
        return f"{down}C{lane:g} {y2:g} {lane:g} {y2:g} {lane - 2 * turn:g} {y2:g}H{x2:g}"
    return (
        f"M{x1:g} {y1:g}C{lane:g} {y1:g} {lane:g} {y1:g} {lane:g} {y1 + 2 * turn:g}"
        f"V{y2 - 2 * turn:g}C{lane:g} {y2:g} {lane:g} {y2:g} {x2:g} {y2:g}"
    )
