"""The command `robnet-fx`: its sub-commands, gathered."""

from __future__ import annotations

import os
import warnings
from typing import Annotated

import typer

import robnet_fx
from robnet_fx.cli import attack, certify, check, inspect, report, reproduce, robustify, verify, zoo
from robnet_fx.cli.errors import DEBUG_VARIABLE, reporting_errors
from robnet_fx.machine.allocator import keep_freed_memory

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="robnet-fx",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    context_settings=_SETTINGS,
    pretty_exceptions_enable=False,
)
networks = typer.Typer(no_args_is_help=True, context_settings=_SETTINGS, help="The networks that come with robnet-fx.")

_COMMANDS = (
    robustify.robustify,
    certify.certify,
    verify.verify,
    attack.attack,
    check.check,
    inspect.inspect,
    report.report,
    reproduce.reproduce,
)
for command in _COMMANDS:
    app.command()(reporting_errors(command))
networks.command("list")(reporting_errors(zoo.list_networks))
networks.command("export")(reporting_errors(zoo.export))
app.add_typer(networks, name="zoo")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"robnet-fx {robnet_fx.__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Certified training of image classifiers against bias fields.

    Exit codes: 0 fine, 1 failed, 2 usage, 3 unsupported network, 130 interrupted.
    """
    keep_freed_memory()


def main() -> None:
    """The entry point of the command line. Other packages' warnings are theirs to read, unless debugging."""
    if DEBUG_VARIABLE not in os.environ:
        warnings.simplefilter("ignore")
    app()
