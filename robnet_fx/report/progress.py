"""Progress bars for `robnet_fx.machine.progress.Progress`, by rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from robnet_fx.machine.progress import SILENT, Task
from robnet_fx.report.console import say


class Bars:
    """One bar a task, with its latest figures beside it; a task opened inside another is drawn below it, and one of no
    steps not at all."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """See `robnet_fx.machine.progress.Progress`."""
        if not total:
            with SILENT.task(name, total) as nothing:
                yield nothing
            return
        if self._live is not None:
            yield _Bar(self._live, name, total)
            return
        with _bars(self._console) as live:
            self._live = live
            try:
                yield _Bar(live, name, total)
            finally:
                self._live = None

    def remark(self, text: str) -> None:
        """A warning, above the bars."""
        say(self._console, f"warning: {text}", "yellow")


class _Bar:
    def __init__(self, live: Progress, name: str, total: int) -> None:
        self._live = live
        self._id: TaskID = live.add_task(name, total=total, figures="")
        self._figures: dict[str, float | str] = {}

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._figures |= figures
        shown = "  ".join(f"{name} {_short(value)}" for name, value in self._figures.items())
        self._live.update(self._id, advance=steps, figures=shown)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
    )


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"
