"""Results as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from robnet_fx.inspect import NodeLine, NodeWidths

ACCURACIES = {
    "clean": "clean",
    "attacked": "attacked (upper limit)",
    "certified": "certified",
}
"""The accuracies by their keys, in the order in which they are shown: what is certified cannot exceed the others."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Group:
    """A title and a plain table below it; the columns named in `right` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return Group(Text(title, "bold"), made)


def accuracies(title: str, measured: Mapping[str, Mapping[str, float]]) -> Group:
    """Clean, attacked and certified accuracy (those that were measured), a column for each of `measured`."""
    known = [key for key in ACCURACIES if all(key in shares for shares in measured.values())]
    rows = [[ACCURACIES[key], *(f"{shares[key]:.1%}" for shares in measured.values())] for key in known]
    return table(title, ["accuracy", *measured], rows, right=[*measured])


def before_and_after(
    title: str, before: Mapping[str, float], after: Mapping[str, float], files: Mapping[str, str]
) -> Group:
    """The accuracies before and after training, and below them the files that were written."""
    written = [Text(f"{name:<6} {path}", overflow="fold") for name, path in files.items()]
    return Group(accuracies(title, {"before": before, "after": after}), *written)


def graph_table(title: str, lines: Sequence[NodeLine]) -> Group:
    """The nodes of a graph; columns that are empty everywhere are left out."""
    names = [field.name for field in fields(NodeLine)]
    used = [name for name in names if any(getattr(line, name) for line in lines)]
    return table(title, used, ([getattr(line, name) for name in used] for line in lines))


def width_table(title: str, lines: Sequence[NodeWidths]) -> Group:
    """How wide the bounds of every node are."""
    columns = ["node", "operation", "units", "ibp", "ssip", "pre", "unstable"]
    rows = (
        [
            line.name,
            line.operation,
            f"{line.units:,}",
            *("" if width is None else f"{width:.4g}" for width in (line.ibp, line.ssip, line.pre)),
            "" if line.unstable is None else f"{line.unstable:.1%}",
        ]
        for line in lines
    )
    return table(title, columns, rows, right=columns[2:])
