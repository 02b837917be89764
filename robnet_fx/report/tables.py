"""Results as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from robnet_fx.inspect import NodeErrors, NodeLine, NodeWidths, Shares, Survey
from robnet_fx.inspect.origin import origin
from robnet_fx.inspect.survey import BLOW_UP, MOST
from robnet_fx.report.panels import levels

ACCURACIES = {
    "clean": "clean",
    "attacked": "attacked (upper limit)",
    "certified": "certified",
    "one_box": "certified by one box",
    "unknown": "unknown",
}
"""Shares of the images by their keys, in the order in which they are shown; no accuracy can exceed those before it."""

_KEYS = {name: name if name == "unknown" else f"{name}_accuracy" for name in ACCURACIES}  # in a record

QUANTILES = {"weakest": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9}
"""Shares of the images that take less, by name."""


def shares(record: Mapping[str, Any]) -> dict[str, float]:
    """The accuracies that the record of a certificate has at one eps, by the keys of `ACCURACIES`."""
    return {name: record[key] for name, key in _KEYS.items()}


NO_BETTER = "the result is no better than what came in"


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


def curve(title: str, measured: Mapping[str, Mapping[str, float]]) -> Group:
    """All accuracies at several strengths, a line for each of `measured`, which are in pixel levels."""
    rows = [[eps, *(f"{shares[key]:.1%}" for key in ACCURACIES)] for eps, shares in measured.items()]
    columns = ["eps", *ACCURACIES.values()]
    return table(title, columns, rows, right=columns)


def largest(title: str, ends: Sequence[tuple[float | None, float | None]], eps: float) -> Group:
    """Quantiles of the images' largest proved and smallest falsified eps, each in [0, 1], in pixel levels; None is none
    up to `eps`."""
    proved = sorted(low or 0.0 for low, _ in ends)
    falsified = sorted(math.inf if high is None else high for _, high in ends)
    rows = []
    for name, share in QUANTILES.items():
        low, high = (column[round(share * (len(ends) - 1))] for column in (proved, falsified))
        rows.append([name, levels(low), f"over {levels(eps)}" if high == math.inf else levels(high)])
    return table(title, ["", "proved up to", "falsified from"], rows, right=["proved up to", "falsified from"])


def before_and_after(
    title: str, before: Mapping[str, float], after: Mapping[str, float], files: Mapping[str, str], better: bool
) -> Group:
    """The accuracies before and after training, and below them the files that were written; above all, if the result is
    not `better`, that it is not."""
    written = [Text(f"{name:<6} {path}", overflow="fold") for name, path in files.items()]
    headline = [] if better else [Text(f"{NO_BETTER}, and stays in the run's directory", "bold red")]
    return Group(*headline, accuracies(title, {"before": before, "after": after}), *written)


def graph_table(title: str, lines: Sequence[NodeLine]) -> Group:
    """The nodes of a graph; columns that are empty everywhere are left out."""
    names = [field.name for field in fields(NodeLine)]
    used = [name for name in names if any(getattr(line, name) for line in lines)]
    return table(title, used, ([getattr(line, name) for name in used] for line in lines))


def survey_table(title: str, found: Survey) -> Group:
    """The source graph against its bounds: every node with its rule, shape and widths, then the logits by method."""
    nodes = found.nodes
    widths: dict[str, Sequence[float | None]] = {
        "ibp": [node.ibp for node in nodes],
        "ssip": [node.ssip for node in nodes],
        "pre": [node.pre for node in nodes],
        "rsip": [node.rsip for node in nodes],
        "sampled": [node.sampled for node in nodes],
    }
    widths = {name: column for name, column in widths.items() if any(value is not None for value in column)}
    columns = ["node", "rule", "shape", "bounds", *widths, "unstable", "growth"]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        made.add_column(
            name, justify="right" if name in columns[4:] else "left", overflow="fold", no_wrap=name == "bounds"
        )
    for index, node in enumerate(nodes):
        made.add_row(
            Text(node.name, "bold" if node.blow_up else ""),
            Text(node.rule, "cyan"),
            Text(node.shape, "dim"),
            Text(_domains(node), "dim"),
            *(_width(node, name, column[index]) for name, column in widths.items()),
            Text("" if node.unstable is None else f"{node.unstable:.1%}"),
            _growth(node),
        )
    logits = Text.assemble(
        ("logits ", "bold"), "   ".join(f"{name} {width:.3g}" for name, width in found.logits.items())
    )
    legend = (
        f"widths are means of upper - lower; pre is what the relaxations of {found.method} stand on; sampled is the\n"
        "range on 128 fields of the box, which no bound can beat; growth is that of width / sampled over the inputs',\n"
        f"and ▲ marks the {MOST} largest of at least {BLOW_UP:g}: there the bounds lose, not the network grow"
    )
    shown = Group(Text(title, "bold"), made, logits, Text(legend, "dim"))
    return shown if found.margins is None else Group(shown, "", errors_table(found, found.margins))


def errors_table(found: Survey, margins: Shares) -> Group:
    """What SSIP's widths are made of, node by node, and last that of the margins with what each node's errors add."""
    rows = [
        [node.name, _count(own.born), _count(own.kept), *_shares(own.width), _hurts(own)]
        for node in found.nodes
        if (own := node.errors) is not None
    ]
    rows.append(["margins", "", "", *_shares(margins), f"{margins.symbols:.1%}"])
    columns = ["node", "born", "kept", "coefficients", "symbols", "slack", "of the margins"]
    title = f"SSIP with {found.symbols} symbols: the shares of its widths that come from"
    legend = (
        "born are the node's own errors that are kept as symbols, kept the symbols that its value still has; the last\n"
        "column is what the errors born at a node are of the width of the margins against the predicted class, and\n"
        "◆ marks the most: there a tighter relaxation, or a smaller box, gains most"
    )
    return Group(table(title, columns, rows, right=columns[1:]), Text(legend, "dim"))


def _domains(node: NodeWidths) -> str:
    """The kinds of nodes that were generated for a source node: `pre ibp ssip rsip`."""
    return " ".join(dict.fromkeys(origin(name, {node.name})[1] for name in node.generated))


def _count(mean: float) -> str:
    """A number of symbols, none as nothing."""
    return f"{mean:,.0f}" if mean else ""


def _shares(of: Shares | None) -> list[str]:
    return ["", "", ""] if of is None else [f"{share:.1%}" if share else "" for share in vars(of).values()]


def _hurts(own: NodeErrors) -> str:
    return f"{'◆ ' * own.worst}{own.hurts:.1%}" if own.hurts else ""


def _width(node: NodeWidths, name: str, value: float | None) -> Text:
    """A width, bold where it is the best bound of the node."""
    if value is None:
        return Text("")
    known = [width for width in (node.ibp, node.ssip, node.pre, node.rsip) if width is not None]
    style = "dim" if name == "sampled" else "bold" if value == min(known) else ""
    return Text(f"{value:.3g}", style)


def _growth(node: NodeWidths) -> Text:
    if node.growth is None:
        return Text("")
    return Text(f"▲ {node.growth:.1f}", "bold yellow") if node.blow_up else Text(f"{node.growth:.1f}", "dim")
