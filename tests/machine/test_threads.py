"""The number of threads that is kept is the faster one, and choosing it is cheap. No test hangs on a real clock."""

import itertools
import math

import pytest
import torch

from robnet_fx.machine import threads

FOUR, PIECES = 4, 8


class Machine:
    """A step of eight operations on a machine of four cores, where one call takes `cost(threads, call)` seconds of a
    clock of its own."""

    def __init__(self, monkeypatch, cost, cores=FOUR):
        self.now, self.calls, self.threads, self.cost = 0.0, [], cores, cost
        monkeypatch.delenv(threads.VARIABLE, raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(self, "threads", count))

    def step(self):
        self.calls.append(self.threads)
        cost = self.cost(self.threads, len(self.calls))
        for _ in range(PIECES):
            torch.ones(())
            self.now += cost / PIECES

    def choose(self, device=None):
        found = threads.choose(self.step, device, lambda: self.now)
        assert found.threads == self.threads
        return found


def constant(alone, together):
    return lambda count, call: alone if count == 1 else together


@pytest.mark.parametrize(
    ("alone", "together", "kept"),
    [(0.08, 0.3, 1), (0.08, 0.1, 1), (0.08, 0.08, 1), (3.0, 9.0, 1), (0.08, 0.03, 4), (0.08, 0.06, 4), (3.0, 1.0, 4)],
)
def test_the_faster_number_is_kept(monkeypatch, alone, together, kept):
    found = Machine(monkeypatch, constant(alone, together)).choose()
    assert found.threads == kept
    assert f"computing on {kept} thread{'s' * (kept > 1)}: " in found.note
    assert f"{alone:.2g} s on 1 and {together:.2g} s on 4" in found.note


def test_several_threads_must_be_worth_the_risk(monkeypatch):
    assert Machine(monkeypatch, constant(0.1, 0.095)).choose().threads == 1


@pytest.mark.parametrize(("together", "calls"), [(0.3, 5), (0.01, 3), (0.1, 8)])
def test_what_is_clear_is_timed_less_often(monkeypatch, together, calls):
    machine = Machine(monkeypatch, constant(0.1, together))
    machine.choose()
    assert len(machine.calls) == calls
    assert machine.calls[:3] == [1, 1, FOUR]


@pytest.mark.parametrize(("alone", "rounds"), [(0.1, 2), (2.0, 1)])
def test_several_threads_that_are_far_too_slow_are_broken_off(monkeypatch, alone, rounds):
    machine = Machine(monkeypatch, constant(alone, 60 * alone))
    found = machine.choose()
    assert found.threads == 1
    assert f"{alone:.2g} s on 1 and more than {4 * alone:.2g} s on 4" in found.note
    assert machine.calls.count(FOUR) == rounds
    assert machine.now < (3 + rounds * (4 + 60 / PIECES)) * alone


def test_threads_may_take_a_moment_to_start(monkeypatch):
    machine = Machine(monkeypatch, lambda count, call: 0.002 if count == 1 else 0.09 if call == 3 else 0.001)
    assert machine.choose().threads == FOUR
    machine = Machine(monkeypatch, lambda count, call: 0.1 if count == 1 else 9.0 if call == 3 else 0.05)
    assert machine.choose().threads == FOUR


def test_a_long_step_is_timed_once(monkeypatch):
    machine = Machine(monkeypatch, constant(2.0, 1.5))
    assert machine.choose().threads == FOUR
    assert machine.calls == [1, FOUR]


def test_the_first_call_and_a_disturbed_one_do_not_count(monkeypatch):
    def cost(count, call):
        return 0.6 if call in (1, 3) else (0.4 if count == 1 else 0.3)

    assert Machine(monkeypatch, cost).choose().threads == FOUR


@pytest.mark.parametrize("times", [(0.0, 0.0), (math.nan, math.nan), (0.1, math.nan)])
def test_a_clock_that_does_not_move_or_is_no_number_leaves_one_thread(monkeypatch, times):
    assert Machine(monkeypatch, constant(*times)).choose().threads == 1


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
        found = threads.choose(lambda: torch.ops.aten.relu.default(torch.ones(10)))
        assert found.threads == torch.get_num_threads()
        assert found.threads in (1, 2)
        assert found.note
    finally:
        torch.set_num_threads(before)


def test_operations_of_a_graph_are_broken_off_too():
    """Bounds graphs call ATen operations, in which PyTorch looks for modes as it does in its own functions."""
    x, ticks = torch.ones(3), itertools.count()
    with pytest.raises(threads._TooSlow), threads._Deadline(2, lambda: next(ticks)):
        for _ in range(4):
            torch.ops.aten.relu.default(x)
    assert next(ticks) == 4
