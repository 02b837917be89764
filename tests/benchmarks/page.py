"""What the scripts that make a page of docs share: their options, and the page written or shown."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from robnet_fx.machine.files import write_atomically


def parse(description: str | None, names: str = "") -> argparse.Namespace:
    """`--out`, and as many `names` as one likes where it is said what they are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if names:
        parser.add_argument("names", nargs="*", help=names)
    parser.add_argument("--out", type=Path, help="write the page here")
    return parser.parse_args()


def publish(text: str, out: Path | None) -> None:
    """Write the page whole, or show it as it is."""
    if out:
        with write_atomically(out) as file:
            file.write(text.encode())
    else:
        Console().print(text, markup=False, highlight=False, soft_wrap=True, end="")
