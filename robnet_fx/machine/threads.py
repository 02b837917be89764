"""How many threads to compute on: where other processes hold some of the cores, one is often the fastest by far.

Threads meet at the end of every operation. One whose core is taken keeps all of them waiting, spinning, and a network's
operations are many and short: on a busy machine of two cores two threads took 60 times as long as one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

VARIABLE = "OMP_NUM_THREADS"
"""Set, it settles the number of threads."""

_ROUNDS = 3  # timings of each number of threads, of which the shortest counts
_CLEARLY = 2.0  # times as long or as short: few timings are enough
_WORTH = 0.9  # of the time on one thread: below it several are worth the risk that the machine becomes busy
_AT_MOST = 4.0  # times the time on one thread: then a step on several is broken off
_START = 0.1  # seconds that several threads may take at least: the first time they are started
_LONG = 1.0  # seconds: such a step is timed once


class Choice(NamedTuple):
    """`threads` that torch now computes on, and a `note` to show about it, empty where nothing was chosen."""

    threads: int
    note: str


def choose(
    step: Callable[[], object],
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Time `step` on one thread and on all that torch has, and leave torch on the better number.

    `step` is a small piece of the work to come, not compiled, a second or less of it on one thread. It is called two to
    eight times, and broken off by an exception where several threads are far too slow; what it draws or changes is the
    caller's to put back. It must not meet other ranks, which may call it more often. Nothing is timed, and the note is
    empty, where `OMP_NUM_THREADS` is set, where torch has one thread, or where `device` is no CPU. What `step` raises
    is raised, with torch on as many threads as before.
    """
    every = torch.get_num_threads()
    if settled(device):
        return Choice(every, "")
    chosen = every
    try:
        alone, together = _compare(step, every, clock)
        if not together < _WORTH * alone:
            chosen = 1
    finally:
        torch.set_num_threads(chosen)
    slow = f"{together:.2g} s" if math.isfinite(together) else f"more than {_AT_MOST * alone:.2g} s"
    note = f"computing on {chosen} thread{'s' * (chosen > 1)}: a step takes {alone:.2g} s on 1 and {slow} on {every}"
    return Choice(chosen, f"{note} ({VARIABLE} would settle it)")


def settled(device: torch.device | None = None) -> bool:
    """Whether there is nothing to choose: `OMP_NUM_THREADS` is set, torch has one thread, or the device is no CPU."""
    return torch.get_num_threads() == 1 or VARIABLE in os.environ or (device is not None and device.type != "cpu")


def restore(count: int) -> None:
    """Compute on `count` threads, as earlier work did that goes on, since sums are rounded by their number; but on no
    more than the machine has, and as `OMP_NUM_THREADS` says where it is set."""
    if VARIABLE not in os.environ:
        torch.set_num_threads(min(count, os.cpu_count() or 1))


def _compare(step: Callable[[], object], every: int, clock: Callable[[], float]) -> tuple[float, float]:
    """The shortest seconds that `step` takes on one thread and on `every`, the latter infinite if it was broken off.

    One thread is first: it is never much slower, so that it says how long to wait for several.
    """

    def seconds(threads: int, limit: float = math.inf) -> float:
        torch.set_num_threads(threads)
        start = clock()
        try:
            with _Deadline(start + limit, clock):
                step()
        except _TooSlow:
            return math.inf
        return clock() - start

    alone, together = seconds(1), math.inf
    if alone < _LONG:  # the first call also made what later ones find
        alone = min(alone, seconds(1))
    for tried in range(_ROUNDS):
        together = min(together, seconds(every, max(_AT_MOST * alone, _START)))
        slower = tried > 0 and not together < alone * _CLEARLY  # not at once: the first time they are started
        if alone >= _LONG or slower or together < alone / _CLEARLY:
            break
        alone = min(alone, seconds(1))
    return alone, together


class _TooSlow(BaseException):
    """Not to be caught by a step, which may catch every `Exception`."""


class _Deadline(TorchFunctionMode):
    """Breaks off what computes after `end`, at the next operation that Python calls."""

    def __init__(self, end: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self.end, self.clock = end, clock

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.clock() > self.end:
            raise _TooSlow
        return func(*args, **(kwargs or {}))
