"""One self-contained page about a network's bounds: the graph, the generated code, the widths. It loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robnet_fx.inspect import CodeLine, Survey
from robnet_fx.inspect.survey import BLOW_UP, MOST
from robnet_fx.report.page.chart import chart_svg
from robnet_fx.report.page.code import code_html
from robnet_fx.report.page.errors import errors_html
from robnet_fx.report.page.frame import asset, framed
from robnet_fx.report.page.graph import graph_svg
from robnet_fx.report.page.marks import SERIES, WORST, LogScale, mark, number, text
from robnet_fx.report.page.table import table_html

__all__ = ["page"]

_LEGEND = {
    "ibp": "interval arithmetic",
    "ssip": "forward symbolic, on its own",
    "rsip-ibp": "backward symbolic; its relaxations stand on IBP",
    "rsip-ssip": "backward symbolic; its relaxations stand on IBP ∩ SSIP",
    "rsip": "backward symbolic in every layer",
    "sampled": "range seen on sampled fields: no bound can be narrower",
}


def page(
    title: str,
    facts: Mapping[str, str],
    found: Survey,
    code: Sequence[CodeLine],
    pictures: Mapping[str, str] | None = None,
    verdict: tuple[str, bool] | None = None,
) -> str:
    """The page as HTML.

    facts: names and values for its head. pictures: captions and `data:` addresses. verdict: a word about the image
    shown, and whether it is a good one.
    """
    blown = [node.name for node in found.nodes if node.blow_up]
    body = f"""<header>
<div class="head">
<p class="brand">robnet-fx inspect</p>
<h1>{text(title)}{_badge(verdict)}</h1>
<dl>{"".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items())}</dl>
</div>
<div class="pictures">{_pictures(pictures or {})}</div>
</header>
<main>
<section aria-labelledby="h-logits">
<h2 id="h-logits">How wide the logits are</h2>
<p class="lead">{_lead(found)}</p>
{_logits(found)}
</section>
<section aria-labelledby="h-chart">
<h2 id="h-chart">How wide the bounds are, layer by layer</h2>
<p class="lead">Mean of upper − lower, on a logarithmic axis, from the field to the logits. {_blown(blown)}</p>
<div class="scroll">{chart_svg(found)}</div>
</section>
{errors_html(found)}
<section aria-labelledby="h-graph" class="wide">
<h2 id="h-graph">From the network to its bounds</h2>
<p class="lead">Left the network with field and clip in front, right the graph that bounds it. Point at a node or a line
to see what belongs together; a click keeps it. The marks in a box are its widths, all on one scale. Lines of code
are <b class="key ibp">ibp</b>, <b class="key ssip">ssip</b>, <b class="key pre">pre</b> (what relaxations stand on)
and <b class="key rsip">rsip</b>, from the logits back to the field.</p>
<div class="panes">
<div class="pane" id="pane-graph" tabindex="0" aria-label="Source graph">{graph_svg(found)}</div>
<div class="pane" id="pane-code" tabindex="0" aria-label="Generated code">{code_html(code)}</div>
</div>
</section>
<section aria-labelledby="h-table">
<h2 id="h-table">All figures</h2>
<div class="scroll">{table_html(found)}</div>
</section>
</main>
<footer>
<dl class="legend">{"".join(_term(series.css, series.name) for series in SERIES)}
<div><dt><span class="alarm">▲</span></dt><dd>the bounds, as a multiple of the sampled range, are at least
{BLOW_UP:g} times as wide as those of the node's inputs; the {MOST} worst at most</dd></div>
<div><dt><span class="alarm">{WORST}</span></dt><dd>the node whose errors, kept as symbols, are the largest part of the
width of SSIP's margins against the predicted class</dd></div></dl>
</footer>"""
    return framed(f"{title} · bounds", body, [asset(__package__, "inspect.css")], asset(__package__, "inspect.js"))


def _badge(verdict: tuple[str, bool] | None) -> str:
    if verdict is None:
        return ""
    word, good = verdict
    return f' <span class="badge {"good" if good else "bad"}">{text(word)}</span>'


def _pictures(pictures: Mapping[str, str]) -> str:
    return "".join(
        f'<figure><img src="{text(address)}" alt="{text(caption)}"><figcaption>{text(caption)}</figcaption></figure>'
        for caption, address in pictures.items()
    )


def _lead(found: Survey) -> str:
    sampled = found.nodes[-1].sampled
    moves = f"On sampled fields a logit moves by {number(sampled)}."
    return f"Mean width of a logit's bounds, by method; the bars are logarithmic. {moves}"


def _blown(blown: Sequence[str]) -> str:
    if not blown:
        return "No node loses remarkably more than the others."
    links = ", ".join(f'<a data-node="{text(name)}" href="#node-{text(name)}">{text(name)}</a>' for name in blown)
    return f'<span class="alarm">▲</span> The bounds lose most at {links}.'


def _logits(found: Survey) -> str:
    """A row for each method: mark, name, a bar on a logarithmic scale, the width."""
    shown = [(s, found.nodes[-1].sampled if s.css == "sampled" else found.logits.get(s.method)) for s in SERIES]
    rows = [(series, value) for series, value in shown if value is not None and value > 0]
    scale = LogScale([value for _, value in rows], 1, 100)
    cells = "".join(
        f'<tr><th scope="row"><svg width="14" height="14" aria-hidden="true">{mark(series.css, 7, 7, 4.4)}</svg> '
        f'{series.name}</th><td class="bar"><div class="{series.css}" style="width:{scale(value):.1f}%"></div></td>'
        f'<td class="figure">{number(value)}</td></tr>'
        for series, value in rows
    )
    return f'<table class="logits"><tbody>{cells}</tbody></table>'


def _term(css: str, name: str) -> str:
    symbol = f'<svg width="14" height="14" aria-hidden="true">{mark(css, 7, 7, 4.4)}</svg>'
    return f"<div><dt>{symbol} {name}</dt><dd>{_LEGEND[css]}</dd></div>"
