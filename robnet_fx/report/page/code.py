"""The generated code as linked lines: each names the source node it was generated for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robnet_fx.inspect import CodeLine
from robnet_fx.report.page.marks import text

_CALL = re.compile(r"(robnet_fx_(?:rules_)?)(\w+)(?=\()")


def code_html(lines: Sequence[CodeLine]) -> str:
    """An ordered list of lines; those of a source node link to it and carry an anchor of their own."""
    return f'<ol class="code">{"".join(map(_line, lines))}</ol>'


def _line(line: CodeLine) -> str:
    indent = len(line.text) - len(line.text.lstrip())
    if not line.node:
        return f'<li><span class="ln" style="--i:{indent}">{text(line.text.strip())}</span></li>'
    value = _CALL.sub(r"<i>\1</i><b>\2</b>", text(line.text.strip().partition(" = ")[2]))
    name = "em" if line.source else "span"
    body = f"<{name}>{text(line.node)}</{name}> = {value}"
    anchor = f' id="code-{text(line.node)}"'
    if not line.source:
        return f'<li><span class="ln"{anchor} style="--i:{indent}">{body}</span></li>'
    return (
        f'<li><a class="ln {line.domain}"{anchor} data-node="{text(line.source)}" href="#node-{text(line.source)}" '
        f'style="--i:{indent}">{body}</a></li>'
    )
