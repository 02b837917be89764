"""What every page is inside of: one HTML document that holds its own style and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from robnet_fx.report.page.marks import text


def framed(title: str, body: str, styles: Sequence[str], script: str = "") -> str:
    """The document around a body of HTML. styles: CSS, after what all pages share; script: JavaScript, if any.

    Its policy lets a browser load nothing from anywhere, and run no script where the page has none.
    """
    own = "".join([asset(__package__, "page.css"), *styles])
    allowed = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    allowed += ["script-src 'unsafe-inline'"] if script else []
    end = f"<script>\n{script}</script>\n" if script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>
{own}</style>
</head>
<body>
{body}
{end}</body>
</html>
"""


def asset(package: str, name: str) -> str:
    """A file that comes with a package, as text."""
    return files(package).joinpath(name).read_text(encoding="utf-8")
