"""Cells of the paper's tables beside what the paper says, for a terminal and for a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from robnet_fx.report.tables import table

_COLUMNS = ("row", "cell", "clean", "one box", "certified", "attacked", "scaled")
_RIGHT = _COLUMNS[2:-1]
_LEGEND = """\
Per cent of the test images, in brackets the paper's figure and ours less that. One box: certified by one bound of the
whole box without symbols, as in the paper. Certified and attacked: proved by splitting, and not turned by an attack;
the truth lies between. In the brackets of certified is ours less the paper's one box. Best is beside the paper's RS."""
_OPEN = "open"


def comparison(title: str, cells: Sequence[Mapping[str, Any]]) -> Group:
    """The lines of `reproduce.comparison.compare` as a table."""
    return Group(table(title, _COLUMNS, _rows(cells), right=_RIGHT), Text(_LEGEND, "dim"))


def markdown(title: str, cells: Sequence[Mapping[str, Any]]) -> str:
    """The same as a section of a page, which leaves out what is open and says so."""
    done = [cell for cell in cells if cell["found"] is not None]
    rest = [f"{cell['row']} {cell['column']}" for cell in cells if cell["found"] is None]
    parts = [f"## {title}"]
    if done:
        lines = [_COLUMNS, ["---:" if name in _RIGHT else "---" for name in _COLUMNS], *_rows(done)]
        parts += ["\n".join(f"| {' | '.join(line)} |" for line in lines), _LEGEND]
    if rest:
        parts.append(f"Open: {', '.join(rest)}." if done else f"All {len(rest)} cells are open.")
    return "\n\n".join(parts)


def _rows(cells: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
    row = ""
    for cell in cells:
        name, row = "" if cell["row"] == row else cell["row"], cell["row"]
        if cell["found"] is None:
            clean, certified = (_percent(cell["paper"][key]) for key in ("clean", "certified"))
            yield [name, cell["column"], f"{_OPEN} ({clean})", f"{_OPEN} ({certified})", _OPEN, _OPEN, ""]
            continue
        yield [name, cell["column"], *_figures(cell["found"], cell["paper"]), ", ".join(cell["scaled"])]
        if (rest := cell["without_copies"]) is not None:
            copies = cell["found"]["images"] - rest["images"]
            yield ["", "", *_figures(rest, cell["paper"]), f"without {copies:,} test images that have near copies"]


def _figures(found: Mapping[str, float], paper: Mapping[str, float]) -> list[str]:
    """Clean, one box, certified and attacked."""
    clean, box, split = (found[f"{name}_accuracy"] for name in ("clean", "one_box", "certified"))
    return [
        f"{100 * clean:.1f} ({_percent(paper['clean'])}, {100 * (clean - paper['clean']):+.1f})",
        f"{100 * box:.1f} ({_percent(paper['certified'])}, {100 * (box - paper['certified']):+.1f})",
        f"{100 * split:.1f} ({100 * (split - paper['certified']):+.1f})",
        f"{100 * found['attacked_accuracy']:.1f}",
    ]


def _percent(share: float) -> str:
    """With the digits that the paper has."""
    return f"{100 * share:.4g}" if round(1000 * share, 6) % 1 else f"{100 * share:.1f}"
