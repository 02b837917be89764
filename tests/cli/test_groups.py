"""Groups of options: declared once, merged into the signature of every command that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from robnet_fx.cli.groups import grouped


@dataclass(frozen=True)
class File:
    panel: ClassVar[str] = "The file"

    path: Annotated[Path, typer.Argument(metavar="FILE")]
    size: Annotated[int, typer.Option(help="How large.")] = 3


@dataclass(frozen=True)
class Colour:
    name: Annotated[str | None, typer.Option("--colour", help="Which colour.")] = None
    dark: Annotated[bool, typer.Option("--dark")] = False


@pytest.fixture
def told():
    return []


@pytest.fixture
def run(told):
    @grouped
    def paint(colour: Colour, file: File, times: Annotated[int, typer.Option(help="How often.")] = 1) -> None:
        """Paint FILE."""
        told.append((colour, file, times))

    app = typer.Typer(rich_markup_mode="markdown")
    app.command()(paint)
    return lambda *args: CliRunner(env={"COLUMNS": "120"}).invoke(app, list(args))


def test_a_command_gets_its_groups_as_values(run, told):
    assert run("wall", "--colour", "red", "--dark", "--times", "2").exit_code == 0
    assert run("wall", "--size", "5").exit_code == 0
    assert told == [
        (Colour("red", True), File(Path("wall"), 3), 2),
        (Colour(None, False), File(Path("wall"), 5), 1),
    ]


def test_what_is_missing_or_wrong_is_a_usage_error(run, told):
    assert run().exit_code == 2 and run("wall", "--size", "large").exit_code == 2
    assert not told


def test_help_shows_a_group_in_a_panel_of_its_own(run):
    text = run("--help").stdout
    options, own = text.index("─ Options "), text.index("─ The file ")
    assert text.index("─ Arguments ") < options < text.index("--times") < own < text.index("--size")
    assert options < text.index("--colour") < own
    assert "Paint FILE." in text
