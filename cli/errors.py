"""How a command ends badly: one headline on standard error and an exit code, never a traceback unasked.

0 fine, 1 failed, 2 usage, 3 unsupported network, 130 interrupted. PyTorch is loaded where a command starts to run.
"""

from __future__ import annotations

import functools
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, ParamSpec

import typer

from robnet_fx.errors import Interrupted, RobnetError, RobnetWarning

DEBUG_VARIABLE = "ROBNET_FX_DEBUG"
"""Set, the traceback is shown too."""

P = ParamSpec("P")


def reporting_errors(command: Callable[P, None]) -> Callable[P, None]:
    """The command, on every rank if there are several, with its exceptions turned into messages and exit codes."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with ExitStack() as stack:
            try:
                from robnet_fx.machine import ranks

                stack.enter_context(ranks.joined())
                stack.enter_context(_own_warnings_shown())
                command(*args, **kwargs)
            except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
                raise  # typer's own
            except RobnetError as error:
                _fail(str(error) + _how_to_resume(error), error.exit_code)
            except KeyboardInterrupt:
                _fail("interrupted", Interrupted.exit_code)
            except Exception as error:
                summary = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                _fail(f"unexpected {summary}\n  set {DEBUG_VARIABLE}=1 to see the traceback", RobnetError.exit_code)

    return run


def warn(message: str) -> None:
    """A remark about something that is probably not meant."""
    from robnet_fx.report.console import notes, say

    say(notes(), f"warning: {message}", "yellow")


@contextmanager
def _own_warnings_shown() -> Iterator[None]:
    """What the library warns of is shown, each text once, whatever is done with other packages' warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=RobnetWarning)
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **source: Any) -> None:
            if issubclass(category, RobnetWarning):
                warn(str(message))
            else:
                elsewhere(message, category, *place, **source)

        warnings.showwarning = show
        yield


def _how_to_resume(error: RobnetError) -> str:
    if isinstance(error, Interrupted) and error.checkpoint is not None:
        return f"\n  resume  the same command with --resume {error.checkpoint.parent}"
    return ""


def _fail(message: str, code: int) -> NoReturn:
    from robnet_fx.machine import ranks
    from robnet_fx.report.console import failures, notes, say

    console = notes() if code == Interrupted.exit_code else failures()  # Ctrl-C reaches every rank
    if os.environ.get(DEBUG_VARIABLE):
        say(console, traceback.format_exc())
    headline, *rest = message.splitlines()
    whose = "" if ranks.leader() else f" (rank {ranks.rank()})"
    say(console, f"error{whose}: {headline}", "bold red")
    for line in rest:
        say(console, line)
    raise typer.Exit(code)
