"""The number of threads that is kept is the faster one, and choosing it is cheap. No test hangs on a real clock."""

import itertools
import math

import pytest
import torch

from robnet_fx.machine import threads

FOUR = 4


class Machine:
    """A step on a machine of four cores, where one call takes `cost(threads, call)` seconds of a clock of its own."""

    def __init__(self, monkeypatch, cost, cores=FOUR):
        self.now, self.calls, self.threads, self.cost = 0.0, [], cores, cost
        monkeypatch.delenv(threads.VARIABLE, raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(self, "threads", count))

    def step(self):
        self.calls.append(self.threads)
        self.now += self.cost(self.threads, len(self.calls))

    def choose(self, device=None):
        found = threads.choose(self.step, device, lambda: self.now)
        assert found.threads == self.threads
        return found


def constant(alone, together):
    return lambda count, call: alone if count == 1 else together


@pytest.mark.parametrize(
    ("alone", "together", "kept"),
    [
        (0.08, 5.0, 1),
        (0.08, 0.03, FOUR),
        (0.08, 0.06, FOUR),
        (0.08, 0.1, 1),
        (0.08, 0.08, 1),
        (3.0, 1.0, FOUR),
        (3.0, 9.0, 1),
    ],
)
def test_the_faster_number_is_kept(monkeypatch, alone, together, kept):
    found = Machine(monkeypatch, constant(alone, together)).choose()
    assert found.threads == kept
    assert f"computing on {kept} thread" in found.note
    assert f"{alone:.2g} s on 1 and {together:.2g} s on 4" in found.note


def test_several_threads_must_be_worth_the_risk(monkeypatch):
    assert Machine(monkeypatch, constant(0.1, 0.095)).choose().threads == 1


@pytest.mark.parametrize(("together", "calls"), [(5.0, 3), (0.01, 3), (0.1, 8)])
def test_what_is_clear_is_timed_once(monkeypatch, together, calls):
    machine = Machine(monkeypatch, constant(0.1, together))
    machine.choose()
    assert len(machine.calls) == calls
    assert machine.calls[:3] == [1, 1, FOUR]


def test_a_long_step_is_timed_once(monkeypatch):
    machine = Machine(monkeypatch, constant(2.0, 1.5))
    assert machine.choose().threads == FOUR
    assert machine.calls == [1, FOUR]


def test_the_first_call_and_a_disturbed_one_do_not_count(monkeypatch):
    def cost(count, call):
        return 0.6 if call in (1, 3) else (0.4 if count == 1 else 0.3)

    assert Machine(monkeypatch, cost).choose().threads == FOUR


def test_a_clock_that_does_not_move_or_is_no_number_leaves_one_thread(monkeypatch):
    assert Machine(monkeypatch, constant(0.0, 0.0)).choose().threads == 1
    assert Machine(monkeypatch, constant(math.nan, math.nan)).choose().threads == 1
    assert Machine(monkeypatch, constant(0.1, math.nan)).choose().threads == 1


def test_a_variable_settles_it(monkeypatch):
    machine = Machine(monkeypatch, constant(0.1, 5.0))
    monkeypatch.setenv(threads.VARIABLE, "4")
    assert machine.choose() == (FOUR, "")
    assert not machine.calls


def test_one_core_or_a_gpu_leaves_nothing_to_choose(monkeypatch):
    machine = Machine(monkeypatch, constant(0.1, 5.0), cores=1)
    assert machine.choose() == (1, "")
    machine.threads = FOUR
    assert machine.choose(torch.device("cuda")) == (FOUR, "")
    assert not machine.calls
    assert machine.choose(torch.device("cpu")).threads == 1


@pytest.mark.parametrize("failing", [1, 3])
def test_a_step_that_fails_leaves_the_threads_as_they_were(monkeypatch, failing):
    machine = Machine(monkeypatch, constant(0.1, 0.1))
    count = itertools.count(1)

    def step():
        machine.step()
        if next(count) == failing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.choose(step, clock=lambda: machine.now)
    assert machine.threads == FOUR


def test_torch_computes_on_the_number_that_is_returned(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = threads.choose(lambda: torch.ones(10).sum())
        assert found.threads == torch.get_num_threads()
        assert found.threads in (1, 2)
        assert found.note
    finally:
        torch.set_num_threads(before)
