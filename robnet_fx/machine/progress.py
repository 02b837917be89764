"""How long work reports itself without printing: the caller passes a `Progress`, silence is the default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """A piece of work that is under way."""

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Mark `steps` more done, with the figures worth showing beside the bar."""


class Progress(Protocol):
    """Where tasks are shown."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """Open a piece of work of `total` steps."""

    def remark(self, text: str) -> None:
        """Something that is probably not meant, and that the work goes on without."""


class _Silent:
    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        yield self

    def remark(self, text: str) -> None:
        pass

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        pass


SILENT: Progress = _Silent()
