"""A time limit is Ctrl-C: it interrupts, waits where Ctrl-C waits, and is gone afterwards."""

import signal

import pytest

from robnet_fx.machine.time_limit import time_limit
from robnet_fx.train.interrupt import held_back


def work(steps=10**9):
    for _ in range(steps):
        pass


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_work_is_interrupted(handler):
    """Also in the background, where a shell has Ctrl-C be ignored."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            with time_limit(0.01):
                work()
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_waits_where_ctrl_c_waits():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with time_limit(0.01):
            with held_back():
                work(10**6)
                done.append(True)
            work()
    assert done


def test_without_a_limit_and_in_time_nothing_happens():
    for seconds in (None, 60):
        with time_limit(seconds):
            work(10)
