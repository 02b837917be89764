"""The panel with which a command opens: what it is about to work on, every default resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robnet_fx.images.layout import CHANNELS_FIRST, Layout
from robnet_fx.perturbations.base import Perturbation, Transform


def opening(title: str, lines: Mapping[str, str]) -> Panel:
    """Names and values below each other under a title."""
    grid = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        grid.add_row(Text(name, "bold"), Text(value))
    return Panel(grid, title=Text(f"robnet-fx {title}"), title_align="left", expand=False)


def describe_file(
    path: Path | str, classes: int, layout: Layout, remarks: Mapping[str, str], note: str = ""
) -> dict[str, str]:
    """The model's own lines: its layout, where that is not channels first or there is a `note` on it, and what must be
    said of its graph."""
    lines = {"model": f"{path}: images {list(layout.image)}, {classes} classes"}
    if layout.way != CHANNELS_FIRST or note:
        way = f"{layout.way}: the network takes {list(layout.taken)}"
        lines["layout"] = "; ".join(filter(None, (way, note)))
    return {**lines, **remarks}


def describe_perturbation(perturbation: Perturbation) -> dict[str, str]:
    """Its line, from its class and fields: {"field": "order 3, multiplicative, eps 40/255 = 0.1569"}."""
    return describe_fields(type(perturbation).__name__, vars(perturbation))


def describe_fields(kind: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """The same of a perturbation in a record. A field that is True is named, one that is False is not, and a sequence
    is a box."""
    words = re.findall(r"[A-Z][a-z]*", kind) or [kind]
    said = []
    for name, value in fields.items():
        if name != "eps" and value is not False:
            box = isinstance(value, Sequence) and not isinstance(value, str)
            said.append(name if value is True else f"{name} box" if box else f"{name} {value}")
    return {words[-1].lower(): ", ".join([*said, describe_eps(fields["eps"])])}


def describe_eps(eps: float) -> str:
    """A strength in pixel levels and as the plain number."""
    return f"eps {levels(eps)}/255 = {eps:.4g}"


def levels(*eps: float) -> str:
    """Strengths in pixel levels, of 255."""
    return ", ".join(f"{each * 255:.4g}" for each in eps)


def describe_box(transform: Transform) -> str:
    """The box of the coefficients: of a field each part's constant term and the rest, else the intervals there are."""
    center, radius = transform.center.tolist(), transform.radius.tolist()
    box = list(zip(center, radius, strict=True))
    parts = {name: getattr(transform, name) for name in transform.part_names}
    sizes = {name: len(part) for name, part in parts.items() if part.is_floating_point()}  # else no basis
    head = f"D = {len(box)}: "
    if not sizes or sum(sizes.values()) != len(box):
        return head + ("all " if len(box) > 1 else "") + f"in {_intervals(box)}"
    said, start = [], 0
    for name, size in sizes.items():
        own, start = box[start : start + size], start + size
        if own:
            rest = f", the other {size - 1} in {_intervals(own[1:])}" if size > 1 else ""
            of = "" if name == "multiplicative" else f"{name} "
            said.append(f"{of}constant term in {_interval(*own[0])}{rest}")
    return head + "; ".join(said)


def describe_method(method: str, clip: str | None, asked: str | None, dimensions: int, symbols: int | str = 0) -> str:
    """The method with its symbols and the clip, and the reason where another method than usual was taken unasked."""
    why = "" if asked or method == "rsip-ssip" else f" (D = {dimensions} is too many for rsip-ssip)"
    return f"{with_symbols(method, symbols)}{why}, clip {clip or 'none'}"


def with_symbols(method: str, symbols: int | str) -> str:
    """A method and how many error symbols it keeps, where it keeps some: "rsip-ssip, 256 symbols"."""
    return f"{method}, {symbols} symbols" if symbols else method


def _intervals(box: Sequence[tuple[float, float]]) -> str:
    return " or ".join(sorted({_around(*pair) for pair in box}))


def _interval(center: float, radius: float) -> str:
    return f"[{center - radius:.4f}, {center + radius:.4f}]"


def _around(center: float, radius: float) -> str:
    return f"±{radius:.4g}" if center == 0 else _interval(center, radius)
