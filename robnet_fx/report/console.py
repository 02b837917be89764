"""The two places that are written to: results on standard output, everything else on standard error.

Of several ranks only the leader is heard, except when one fails.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console

from robnet_fx.machine import ranks

_WIDTH_OF_A_FILE = 120


def results() -> Console:
    """Standard output: tables, code and JSON."""
    return _console(sys.stdout, quiet=not ranks.leader())


def notes() -> Console:
    """Standard error: panels, progress and warnings."""
    return _console(sys.stderr, quiet=not ranks.leader())


def failures() -> Console:
    """Standard error, from any rank."""
    return _console(sys.stderr, quiet=False)


def _console(file: TextIO, quiet: bool) -> Console:
    fixed = None if file.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(file=file, width=fixed, highlight=False, quiet=quiet)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: no markup, no wrapping."""
    console.print(text, style=style, markup=False, soft_wrap=True)
