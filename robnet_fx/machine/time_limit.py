"""Ctrl-C at a time that is said beforehand."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the block after so many seconds as Ctrl-C would, by `KeyboardInterrupt`; None is no limit.

    For the main thread, which alone is interrupted, at its next step in Python.
    """
    if seconds is None:
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # a shell has jobs in the background ignore Ctrl-C, and this with it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
