"""`robnet-fx report`: one page about runs and certificates, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options
from robnet_fx.cli.groups import grouped


@grouped
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run directories of robustify, or files of certify --out.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", callback=options.target, help="The page.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about runs and certificates: what was found, against eps where there are
    several; images under the fields that they survive and that turn them; how answers were reached.

    Certificates of one network and the same images at several strengths are one curve. The page loads nothing and has
    no script. Its headline goes to standard output.

    Example: `robnet-fx report runs/digits.robust-1 certificate.json --out digits.html`
    """
    from robnet_fx.cli import pages
    from robnet_fx.report.answers.overview import headline
    from robnet_fx.report.console import results, say

    cases = [pages.read(run) for run in runs]
    pages.write(out, "report", cases)
    say(results(), headline(cases))
