"""The figures behind chart and graph as a table."""

from __future__ import annotations

from robnet_fx.inspect import NodeWidths, Survey
from robnet_fx.report.page.marks import SERIES, number, text


def table_html(found: Survey) -> str:
    """A row a node."""
    heads = ["node", "operation", "shape", "layer", *(series.name for series in SERIES), "unstable", "growth"]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<table class="figures"><caption>Mean widths of the bounds; growth is that of width over sampled range.'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, found.nodes))}</tbody></table>"
    )


def _row(node: NodeWidths) -> str:
    name = text(node.name)
    words = "".join(f"<td>{text(value)}</td>" for value in (node.operation, node.shape, node.layer))
    unstable = "" if node.unstable is None else f"{node.unstable:.1%}"
    growth = "" if node.growth is None else f"{node.growth:.2f}"
    widths = [number(value) if (value := getattr(node, series.figure)) is not None else "" for series in SERIES]
    figures = "".join(f'<td class="figure">{value}</td>' for value in (*widths, unstable))
    alarm = ' <span class="alarm">▲</span>' if node.blow_up else ""
    return (
        f'<tr id="row-{name}" data-node="{name}"><th scope="row"><a href="#node-{name}">{name}</a></th>{words}'
        f'{figures}<td class="figure">{growth}{alarm}</td></tr>'
    )
