"""docs/verify.md: its network is made, its property written, and its commands print what is shown but for numbers."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

from typer.testing import CliRunner

from robnet_fx.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "verify.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def without_numbers(line: str) -> str:
    """Which counterexample is found is the search's business."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", "#", line)


def test_what_is_shown_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (network,), (stated,), shown = blocks("python"), blocks("lisp"), blocks("console")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(network, "verify.md", "exec"), {})
    (other,) = re.findall(r"With `(.*?)` in place of the last line", PAGE.read_text(encoding="utf-8"))
    for text, console in zip((stated, "\n".join([*stated.splitlines()[:-1], other])), shown, strict=True):
        Path("property.vnnlib").write_text(text)
        command, *printed = console.splitlines()
        result = CliRunner().invoke(app, shlex.split(command)[2:])
        assert result.exit_code == 0, result.output
        assert [without_numbers(line) for line in result.stdout.splitlines()] == [*map(without_numbers, printed)]
