"""The source graph as inline SVG: a box a node, its widths as marks on one log scale, links to its generated code."""

from __future__ import annotations

from robnet_fx.inspect import NodeWidths, Survey
from robnet_fx.report.page.layout import HEIGHT, WIDTH, Layout, layout, path
from robnet_fx.report.page.marks import SERIES, WORST, LogScale, figure, mark, number, text

_PAD = 12


def graph_svg(found: Survey) -> str:
    """The graph, drawn."""
    shape = layout({node.name: node.inputs for node in found.nodes})
    values = [value for node in found.nodes for series in SERIES if (value := figure(node, series)) is not None]
    scale = LogScale(values, _PAD, WIDTH - _PAD)
    arrows = "".join(
        f'<path class="arrow" data-from="{text(arrow.source)}" data-to="{text(arrow.target)}" '
        f'd="{path(shape, arrow)}" marker-end="url(#tip)"/>'
        for arrow in shape.arrows
    )
    boxes = "".join(_box(node, shape, scale) for node in found.nodes)
    return (
        f'<svg class="graph" role="group" aria-labelledby="graph-title graph-desc" width="{shape.width:g}" '
        f'height="{shape.height:g}" viewBox="0 0 {shape.width:g} {shape.height:g}">'
        '<title id="graph-title">The network with field and clip</title>'
        '<desc id="graph-desc">Every operation that depends on the coefficients of the field, from the field at the '
        "top to the logits at the bottom, with its rule, its shape and the widths of its bounds.</desc>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0.6L7 4L0 7.4z"/></marker></defs>'
        f"{arrows}{boxes}</svg>"
    )


def _box(node: NodeWidths, shape: Layout, scale: LogScale) -> str:
    box = shape.boxes[node.name]
    line = HEIGHT - 13
    marks = "".join(
        mark(series.css, scale(value), line) for series in SERIES if (value := figure(node, series)) is not None
    )
    alarms = [f"▲ {node.growth:.1f}"] if node.blow_up else []
    alarms += [f"{WORST} {node.errors.hurts:.0%}"] if node.errors is not None and node.errors.worst else []
    notes = {"note": _unstable(node.unstable), "alarm": "".join(f"  {alarm}" for alarm in alarms)}
    right = "".join(f'<tspan class="{css}">{text(note)}</tspan>' for css, note in notes.items() if note)
    target = f"code-{node.generated[0]}" if node.generated else f"row-{node.name}"
    blown = " blown" if node.blow_up else ""
    return (
        f'<a class="node{blown}" id="node-{text(node.name)}" data-node="{text(node.name)}" href="#{text(target)}" '
        f'transform="translate({box.x:g} {box.y:g})"><title>{text(_summary(node))}</title>'
        f'<rect class="box" width="{WIDTH}" height="{HEIGHT}" rx="9"/>'
        f'<text class="name" x="{_PAD}" y="20">{text(_clipped(node.name, 20))}</text>'
        f'<text class="right" x="{WIDTH - _PAD}" y="20" xml:space="preserve">{right}</text>'
        f'<text class="kind" x="{_PAD}" y="36">{text(node.rule)}  {text(node.shape)}</text>'
        f'<path class="axis" d="M{_PAD} {line}H{WIDTH - _PAD}"/>{marks}</a>'
    )


def _summary(node: NodeWidths) -> str:
    """What a pointer or a screen reader is told."""
    lines = [f"{node.name}: {node.operation}, {node.units:,} units"]
    if node.layer:
        lines.append(f"layer {node.layer}")
    for series in SERIES:
        if (value := figure(node, series)) is not None:
            lines.append(f"{series.name} {number(value)}")
    if node.unstable is not None:
        lines.append(f"{node.unstable:.1%} of the units unstable")
    if node.blow_up and node.growth is not None:
        lines.append(f"bounds lose a factor of {node.growth:.1f} here")
    if node.errors is not None and node.errors.born:
        lines.append(f"{number(node.errors.born)} symbols born, {node.errors.hurts:.1%} of the margins")
    return "\n".join(lines)


def _unstable(share: float | None) -> str:
    if not share:
        return ""
    return "< 1% unstable" if share < 0.005 else f"{share:.0%} unstable"


def _clipped(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
