"""What SSIP's widths are made of, node by node, and how much of the margins each node's errors are."""

from __future__ import annotations

from robnet_fx.inspect import NodeErrors, Shares, Survey
from robnet_fx.report.page.marks import WORST, number, text

PARTS = {"coefficients": "coefficients", "symbols": "error symbols", "slack": "slack"}
"""The parts of a width, by CSS class."""


def errors_html(found: Survey) -> str:
    """A lead and a table, a row a node and one for the margins; nothing where there is no SSIP."""
    if found.margins is None:
        return ""
    rows = "".join(_row(node.name, node.errors) for node in found.nodes if node.errors is not None)
    heads = ("node", "what its width is made of", "born", "kept", "of the margins")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    key = " ".join(f'<span class="part {css}"></span> {name}' for css, name in PARTS.items())
    return f"""<section aria-labelledby="h-errors">
<h2 id="h-errors">What the errors of relaxations do</h2>
<p class="lead">SSIP with {text(found.symbols)} symbols: {key}. {_lead(found, found.margins)}</p>
<div class="scroll"><table class="figures errors"><caption>The parts of a node's SSIP width, symbols born at it and kept
in its value, and what its own errors are of the width of the margins against the predicted class.</caption>
<thead><tr>{head}</tr></thead><tbody>{rows}{_margins(found.margins)}</tbody></table></div>
</section>"""


def _lead(found: Survey, margins: Shares) -> str:
    parts = ", ".join(f"{share:.0%} {PARTS[css]}" for css, share in vars(margins).items())
    worst = [node for node in found.nodes if node.errors is not None and node.errors.worst]
    links = " ".join(
        f'<span class="alarm">{WORST}</span> The errors born at <a data-node="{text(node.name)}" '
        f'href="#node-{text(node.name)}">{text(node.name)}</a> hurt the margins most.'
        for node in worst[:1]
    )
    return f"The width of the margins is {parts}. {links}"


def _row(name: str, own: NodeErrors) -> str:
    name = text(name)
    alarm = f' <span class="alarm">{WORST}</span>' if own.worst else ""
    figures = (_count(own.born), _count(own.kept), _share(own.hurts) + alarm)
    return (
        f'<tr data-node="{name}"><th scope="row"><a href="#node-{name}">{name}</a></th><td>{_bar(own.width)}</td>'
        + "".join(f'<td class="figure">{figure}</td>' for figure in figures)
        + "</tr>"
    )


def _margins(of: Shares) -> str:
    return (
        f'<tr><th scope="row">margins</th><td>{_bar(of)}</td><td></td><td></td>'
        f'<td class="figure">{_share(of.symbols)}</td></tr>'
    )


def _bar(of: Shares | None) -> str:
    """The parts side by side, as long as their shares."""
    if of is None:
        return ""
    said = ", ".join(f"{PARTS[css]} {share:.1%}" for css, share in vars(of).items())
    parts = "".join(f'<i class="part {css}" style="width:{share:.2%}"></i>' for css, share in vars(of).items() if share)
    return f'<div class="parts" role="img" aria-label="{said}" title="{said}">{parts}</div>'


def _count(mean: float) -> str:
    return number(round(mean, 1)) if mean else ""


def _share(share: float) -> str:
    return f"{share:.1%}" if share else ""
