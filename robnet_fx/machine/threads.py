"""How many threads to compute on: where other processes hold some of the cores, one is often the fastest by far.

Threads meet at the end of every operation. One whose core is taken keeps all of them waiting, spinning, and a network's
operations are many and short: on a busy machine of two cores two threads took 60 times as long as one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

VARIABLE = "OMP_NUM_THREADS"
"""Set, it settles the number of threads."""

_ROUNDS = 3  # timings of each number of threads, of which the shortest counts
_CLEARLY = 2.0  # times as long: no more timings are needed
_WORTH = 0.9  # of the time on one thread: below it several are worth the risk that the machine becomes busy
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

    `step` is a small piece of the work to come, a second or less of it on one thread, and is called two to eight times;
    what it draws or changes is the caller's to put back. It must not meet other ranks, which may call it more often.
    Nothing is timed, and the note is empty, where `OMP_NUM_THREADS` is set, where torch has one thread, or where
    `device` is no CPU. What `step` raises is raised, with torch on as many threads as before.
    """
    every = torch.get_num_threads()
    if every == 1 or VARIABLE in os.environ or (device is not None and device.type != "cpu"):
        return Choice(every, "")
    chosen = every
    try:
        alone, together = _compare(step, every, clock)
        if not together < _WORTH * alone:
            chosen = 1
    finally:
        torch.set_num_threads(chosen)
    threads = "1 thread" if chosen == 1 else f"{chosen} threads"
    note = f"computing on {threads}: a step takes {alone:.2g} s on 1 and {together:.2g} s on {every}"
    return Choice(chosen, f"{note} ({VARIABLE} would settle it)")


def _compare(step: Callable[[], object], every: int, clock: Callable[[], float]) -> tuple[float, float]:
    """The shortest seconds that `step` takes on one thread and on `every`.

    One thread is first: it is never much slower, so that what is too slow on several is known after one call of it.
    """

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        start = clock()
        step()
        return clock() - start

    alone, together = seconds(1), float("inf")
    if alone < _LONG:  # the first call also made what later ones find
        alone = min(alone, seconds(1))
    for _ in range(_ROUNDS):
        together = min(together, seconds(every))
        if alone >= _LONG or not alone / _CLEARLY < together < alone * _CLEARLY:
            break
        alone = min(alone, seconds(1))
    return alone, together
