"""The panel with which a command opens: what it is about to work on, every default resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def opening(title: str, lines: Mapping[str, str]) -> Panel:
    """Names and values below each other under a title."""
    grid = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        grid.add_row(Text(name, "bold"), Text(value))
    return Panel(grid, title=Text(f"robnet-fx {title}"), title_align="left", expand=False)


def describe_field(order: int, eps: float) -> str:
    """The bias field in words, eps in pixel levels and as the plain number."""
    return f"order {order}, multiplicative, eps {eps * 255:.4g}/255 = {eps:.4g}"


def describe_box(center: Sequence[float], radius: Sequence[float]) -> str:
    """The box of a field's coefficients: the constant term's interval, and that of the rest where they share one."""
    constant = f"D = {len(center)}: constant term in {_interval(center[0], radius[0])}"
    rest = sorted({_around(*pair) for pair in zip(center[1:], radius[1:], strict=True)})
    if not rest:
        return constant
    return f"{constant}, the other {len(center) - 1} in {' or '.join(rest)}"


def _interval(center: float, radius: float) -> str:
    return f"[{center - radius:.4f}, {center + radius:.4f}]"


def _around(center: float, radius: float) -> str:
    return f"±{radius:.4g}" if center == 0 else _interval(center, radius)
