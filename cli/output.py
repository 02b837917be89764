"""Showing a result: JSON or a table on standard output, and JSON in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.report.console import notes, results, say
from robnet_fx.report.panels import opening


def announce(command: str, lines: Mapping[str, str]) -> None:
    """The opening panel, on standard error."""
    notes().print(opening(command, lines))


def show(document: Mapping[str, Any], tables: RenderableType, *, as_json: bool, out: Path | None = None) -> None:
    """The document as JSON, or else the tables; the document also goes to `out`."""
    text = json.dumps(document, indent=1, allow_nan=False, default=str)
    if out is not None and ranks.leader():
        with write_atomically(out) as file:
            file.write(text.encode() + b"\n")
    if as_json:
        say(results(), text)
    else:
        results().print(tables)
