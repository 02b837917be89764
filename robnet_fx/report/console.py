"""The two places that are written to: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def results() -> Console:
    """Standard output: tables, code and JSON."""
    return _console(sys.stdout)


def notes() -> Console:
    """Standard error: panels, progress, warnings and errors."""
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    fixed = None if file.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(file=file, width=fixed, highlight=False)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: no markup, no wrapping."""
    console.print(text, style=style, markup=False, soft_wrap=True)
