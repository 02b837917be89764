"""Which generated node belongs to which source node: by name, as the generator makes them (`conv2d_1` + `_ssip`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import fx

_GENERATED = re.compile(
    r"(?P<source>\w+?)_(?P<domain>rsip_pre|rsip_part|ibp|ssip|rsip|pre|range|relaxed|born|used|padded)(?:_\d+)?$"
)
_DOMAINS = {
    "rsip_pre": "pre",
    "rsip_part": "rsip",
    **dict.fromkeys(("range", "relaxed", "born", "used", "padded"), "ssip"),
}
_LINE = re.compile(r"^\s+(?P<name>\w+) = (?P<value>.+?)(?:;  .* = None)?$")


class CodeLine(NamedTuple):
    """A line of generated code: the node it makes, that node's source node and its domain, each empty where there is
    none. What frees variables is left out of `text`."""

    text: str
    node: str
    source: str
    domain: str


def origin(name: str, sources: set[str]) -> tuple[str, str]:
    """(source node, domain "ibp", "ssip", "pre" or "rsip") of a generated node, or two empty strings."""
    match = _GENERATED.match(name)
    if match is None or match["source"] not in sources:
        return "", ""
    return match["source"], _DOMAINS.get(match["domain"], match["domain"])


def generated_nodes(bounds: fx.GraphModule, sources: set[str]) -> dict[str, list[str]]:
    """Source node -> the nodes of a bounds graph that were generated for it, in order."""
    found: dict[str, list[str]] = {}
    for node in bounds.graph.nodes:
        source, _ = origin(node.name, sources)
        if source:
            found.setdefault(source, []).append(node.name)
    return found


def code_lines(bounds: fx.GraphModule, sources: set[str]) -> list[CodeLine]:
    """The code of a bounds graph, line by line."""
    made = {node.name for node in bounds.graph.nodes}
    lines = []
    for text in bounds.code.strip().splitlines():
        match = _LINE.match(text)
        name = match["name"] if match and match["name"] in made else ""
        plain = re.sub(r";  [\w =]+ = None$", "", text)
        lines.append(CodeLine(plain, name, *(origin(name, sources) if name else ("", ""))))
    return lines
