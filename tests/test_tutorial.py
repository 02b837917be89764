"""docs/tutorial.md, from its images to its certificate: what is typed is run, what is shown is printed but for numbers.

A command with nothing shown below it is run too, for eight epochs where it trains. "..." says that lines are left out.
"""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import torch
from typer.testing import CliRunner

from robnet_fx.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
LEFT_OUT = "..."
COLUMNS = "110"


def without_numbers(text: str) -> list[str]:
    """Its lines, without frames, empty ones, and what hangs on the machine: figures with their units, and widths."""
    text = re.sub(r"[─━╭╮╰╯│]", " ", text)
    text = re.sub(r"(over )?\d[\d.,]*(dev\d+|e-?\d+)?( [KMGT]iB|%| estimated)?", "#", text)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


def compare(shown: str, stdout: str, both: str) -> None:
    """What is shown was printed in this order, and nothing on standard output is left out unless that is said."""
    wanted, left = without_numbers(shown), iter(without_numbers(both))
    for line in wanted:
        assert line == LEFT_OUT or line in left, f"{line!r} is not printed, or not there:\n{both}"
    assert LEFT_OUT in wanted or set(without_numbers(stdout)) <= {*wanted}, stdout


def run(command: str, shown: str) -> None:
    arguments = shlex.split(command)[1:]
    if not shown and "--epochs" in arguments:
        arguments[arguments.index("--epochs") + 1] = "8"
    done = CliRunner(env={"COLUMNS": COLUMNS}).invoke(app, arguments)
    assert done.exit_code == (3 if "odd.onnx" in arguments else 0), f"{command}\n{done.output}"
    if shown:
        compare(shown, done.stdout, done.stderr + done.stdout)


def test_the_whole_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, block in re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(block, "tutorial.md", "exec"), names)
        if language == "console":
            for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, shown = entry.partition("\n")
                if command.startswith("robnet-fx "):
                    run(command, shown.strip("\n"))
    assert torch.get_default_dtype() == torch.float32
    for page in ("strength.html", "report.html"):
        assert "<svg" in Path(page).read_text()
