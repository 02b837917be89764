"""A property decided case by case in the time there is, and every counterexample confirmed by the file itself."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box
from robnet_fx.perturbations.input_box import around
from robnet_fx.verify.decision import Decision, decide
from robnet_fx.verify.property import Case
from robnet_fx.verify.question import Question
from robnet_fx.verify.search import Limits

HOLDS, VIOLATED, UNKNOWN, TIMEOUT = "holds", "violated", "unknown", "timeout"

_FIRST = 0.1  # of the time, for a first look at several cases: an easy one may settle the property
_LOOK = 0.1  # seconds: a shorter first look sees nothing
_ALONE, _TOGETHER = 1.0, 64  # seconds that a case is worth work of its own; else so many are decided at once
_STEPS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the radius, from a counterexample that is not confirmed
_SPENT = 0.05  # of the time: less is as good as none


class Counterexample(NamedTuple):
    """An input of the file in its own type and the outputs that onnxruntime has for it, flat."""

    inputs: Tensor
    outputs: Tensor


Confirm = Callable[[int, Tensor], Counterexample | None]
"""What the file itself makes of inputs `[n]` that our arithmetic found for a case; None where they are no
counterexample to it."""


@dataclass(frozen=True)
class Solved:
    """The answer of a property, with its counterexample if it is violated, the decision on each case (None where
    another one settled the property before, or no time was left) and why cases are open."""

    answer: str
    seconds: float
    decisions: tuple[Decision | None, ...]
    counterexample: Counterexample | None = None
    reasons: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """What the record has of it."""
        found = self.counterexample
        return {
            "answer": self.answer,
            "seconds": self.seconds,
            "reasons": [*self.reasons],
            "counterexample": found and {"inputs": found.inputs.tolist(), "outputs": found.outputs.tolist()},
            "cases": [None if decision is None else decision.document() for decision in self.decisions],
        }


def solve(
    net: BoundedModel, cases: Sequence[Case], confirm: Confirm, *, limits: Limits, progress: Progress = SILENT
) -> Solved:
    """Decide cases about the outputs of `net`, whose perturbation is an `InputBox` around all of them.

    `limits` are those of the whole property in seconds, and of each case in boxes. A violated case ends the search. A
    counterexample that is not confirmed is no violation: others nearby are tried, and if none is confirmed the case
    stays open.
    """
    search = _Search(net, cases, confirm, limits)
    if limits.seconds is not None and len(cases) > 1 and _FIRST * limits.seconds >= _LOOK * len(cases):
        search.go(_FIRST, progress)
    search.go(1, progress)
    return search.solved()


class _Search:
    def __init__(self, net: BoundedModel, cases: Sequence[Case], confirm: Confirm, limits: Limits) -> None:
        self._net, self._cases, self._confirm, self._limits = net, cases, confirm, limits
        self._start = time.monotonic()
        self._free = net.transform.get_buffer("free").cpu()
        self._decisions: list[Decision | None] = [None] * len(cases)
        self._waiting, self._unconfirmed = list(range(len(cases))), set[int]()
        self._found: Counterexample | None = None

    def _left(self) -> float | None:
        """Seconds, None where they are not counted."""
        seconds = self._limits.seconds
        return None if seconds is None else seconds - (time.monotonic() - self._start)

    def go(self, share: float, progress: Progress) -> None:
        """Give every open case its part of a share of the time that is left."""
        if self._found is not None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        inside, across = (progress, SILENT) if len(waiting) == 1 else (SILENT, progress)
        with across.task("cases", len(waiting)) as task:
            while waiting:
                left = self._left()
                if self._found is not None or (left is not None and left <= 0):
                    self._waiting += waiting
                    return
                seconds = None if left is None else left * share / len(waiting)
                together = 1 if seconds is not None and seconds >= _ALONE else _TOGETHER
                alike = (number for number in waiting if self._alike(number, waiting[0]))
                chosen = set(itertools.islice(alike, together))
                waiting = [number for number in waiting if number not in chosen]
                self._decide(sorted(chosen), Limits(seconds, self._limits.boxes), inside)
                task.advance(len(chosen), open=str(len(self._waiting)))

    def _alike(self, number: int, other: int) -> bool:
        """Whether the conditions of two cases are grouped alike, so that they make one question."""
        one, two = self._cases[number].question, self._cases[other].question
        return torch.equal(one.group, two.group) and torch.equal(one.strict, two.strict)

    def _decide(self, numbers: Sequence[int], limits: Limits, progress: Progress) -> None:
        cases = [self._cases[number] for number in numbers]
        first, shape = cases[0].question, self._net.input_shape
        middle, radius = around(torch.stack([c.lower for c in cases]), torch.stack([c.upper for c in cases]))
        reach = radius[:, self._free]
        images, box = middle.reshape(-1, *shape), Box(torch.zeros_like(reach), reach)
        rows, offset = (torch.cat([getattr(c.question, name) for c in cases]) for name in ("rows", "offset"))
        question = Question(rows, offset, first.group, first.strict)
        decisions = decide(self._net, images, question, limits=limits, box=box, progress=progress)
        for k, (number, decision) in enumerate(zip(numbers, decisions, strict=True)):
            self._decisions[number] = decision
            if decision.answer == "falsified" and decision.point is not None:
                one = slice(k, k + 1)
                near = _from(self._net, images[one], question[one], Box(box.center[one], reach[one]), decision.point)
                inputs = (middle[k].index_add(0, self._free, point) for point in near)
                found = next(filter(None, (self._confirm(number, x) for x in inputs)), None)
                self._found = self._found or found
                if found is None:
                    self._unconfirmed.add(number)
            elif decision.answer != "certified":
                self._waiting.append(number)

    def solved(self) -> Solved:
        """The answer as far as the search went."""
        spent, left, decisions = time.monotonic() - self._start, self._left(), tuple(self._decisions)
        if self._found is not None:
            return Solved(VIOLATED, spent, decisions, self._found)
        if not self._waiting and not self._unconfirmed:
            return Solved(HOLDS, spent, decisions)
        reasons = [
            f"case {n}: onnxruntime does not confirm the counterexample found" for n in sorted(self._unconfirmed)
        ]
        for number in self._waiting:
            decision = decisions[number]
            why = "not begun" if decision is None else f"{decision.how}, {decision.proved:.1%} of the box proved"
            reasons.append(f"case {number}: {why}")
        out_of_time = left is not None and left <= _SPENT * (self._limits.seconds or 0)
        answer = TIMEOUT if out_of_time and not self._unconfirmed else UNKNOWN
        return Solved(answer, spent, decisions, None, tuple(reasons))


def _from(net: BoundedModel, image: Tensor, question: Question, box: Box, point: Tensor) -> Iterator[Tensor]:
    """Points `[D]` float64 to be confirmed: the one that was found, and on from there uphill, away from a border that
    another arithmetic may see elsewhere."""
    here = point.reshape(1, -1).to(net.center)
    yield point.reshape(-1).double().cpu()
    image, question = image.to(here), question.to(here)
    center, radius = (part.to(here) for part in box)
    for size in _STEPS:
        here = here.detach().requires_grad_()
        with torch.enable_grad():
            worst = question.worst(question.values(net(here, image)))
            (slope,) = torch.autograd.grad(worst.sum(), here)
        here = torch.clamp(here.detach() + size * radius * slope.sign(), center - radius, center + radius)
        yield here[0].double().cpu()
