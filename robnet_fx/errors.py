"""The exceptions users meet: one message each, and the exit code the command line gives it; and warnings."""

from __future__ import annotations

from pathlib import Path


class RobnetError(Exception):
    """Base of every error robnet-fx raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(RobnetError, ValueError):
    """A bad argument, file or data set: something the caller can put right."""

    exit_code = 2


class UnsupportedError(RobnetError, NotImplementedError):
    """A network that the compiler cannot take as it is."""

    exit_code = 3


class UnsupportedOpError(UnsupportedError):
    """Operations without a bound rule: all of them at once, each with layer, source line and remedy."""


class RobnetWarning(UserWarning):
    """What robnet-fx warns of on purpose; the command line prints it as a remark."""


class Interrupted(RobnetError):
    """The user stopped a long run; `checkpoint` (None where none was asked for) continues it."""

    exit_code = 130

    def __init__(self, message: str, checkpoint: Path | None = None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint
