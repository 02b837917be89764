"""A property decided case by case in the time there is, and every counterexample confirmed by the file itself."""

from __future__ import annotations

import math
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
from robnet_fx.verify.decide import Decision, Limits, decide
from robnet_fx.verify.property import Case
from robnet_fx.verify.question import Question

HOLDS, VIOLATED, UNKNOWN, TIMEOUT = "holds", "violated", "unknown", "timeout"

_ROUNDS = (0.1, 1.0)  # of the time that is left, shared by the open cases: an easy one may settle the property
_STEPS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the radius, from a counterexample that is not confirmed
_SPENT = 0.05  # of the time: less is as good as none


class Counterexample(NamedTuple):
    """An input of the file in its own type and the outputs that onnxruntime has for it, flat."""

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Solved:
    """The answer of a property, with its counterexample if it is violated, the decision on each case (None where
    another one settled the property before) and why cases are open."""

    answer: str
    seconds: float
    decisions: tuple[Decision | None, ...]
    counterexample: Counterexample | None = None
    reasons: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """What the record has of it; a bound that is not a finite number is None."""
        found = self.counterexample
        return {
            "answer": self.answer,
            "seconds": self.seconds,
            "reasons": [*self.reasons],
            "counterexample": found and {"inputs": found.inputs.tolist(), "outputs": found.outputs.tolist()},
            "cases": [None if decision is None else _document(decision) for decision in self.decisions],
        }


def _document(decision: Decision) -> dict[str, Any]:
    margin = decision.margin if math.isfinite(decision.margin) else None
    names = ("answer", "how", "boxes", "seconds", "proved", "why")
    return {**{name: getattr(decision, name) for name in names}, "margin": margin}


def solve(
    net: BoundedModel,
    cases: Sequence[Case],
    confirm: Callable[[int, Tensor], Counterexample | None],
    *,
    limits: Limits,
    progress: Progress = SILENT,
) -> Solved:
    """Decide cases about the outputs of `net`, whose perturbation is an `InputBox` around all of them.

    `limits` are those of the whole property in seconds, and of each case in boxes. `confirm(number, inputs [n])` says
    what the file itself makes of inputs that our arithmetic found for a case, None where they are no counterexample to
    it: then others nearby are tried, and if none is confirmed the case stays open. A violated case ends the search.
    """
    start = time.monotonic()
    free = net.transform.get_buffer("free").cpu()
    decisions: list[Decision | None] = [None] * len(cases)
    waiting, unconfirmed = list(range(len(cases))), set[int]()

    def left() -> float | None:
        return None if limits.seconds is None else limits.seconds - (time.monotonic() - start)

    for share in _ROUNDS if limits.seconds is not None and len(cases) > 1 else _ROUNDS[-1:]:
        still_open = []
        for position, number in enumerate(waiting):
            remaining = left()
            if remaining is not None and remaining <= 0:
                still_open += waiting[position:]
                break
            seconds = None if remaining is None else remaining * share / (len(waiting) - position)
            middle, radius = around(cases[number].lower, cases[number].upper)
            image, reach = middle.reshape(1, *net.input_shape), radius[free].unsqueeze(0)
            box, question = Box(torch.zeros_like(reach), reach), cases[number].question
            given = Limits(seconds, limits.boxes)
            (decision,) = decide(net, image, question, limits=given, box=box, progress=progress)
            decisions[number] = decision
            if decision.answer == "falsified" and decision.point is not None:
                for point in _from(net, image, question, box, decision.point):
                    if (found := confirm(number, middle.index_add(0, free, point))) is not None:
                        return Solved(VIOLATED, time.monotonic() - start, tuple(decisions), found)
                unconfirmed.add(number)
            elif decision.answer != "certified":
                still_open.append(number)
        waiting = still_open
    spent, remaining = time.monotonic() - start, left()
    if not waiting and not unconfirmed:
        return Solved(HOLDS, spent, tuple(decisions))
    reasons = [f"case {n}: onnxruntime does not confirm the counterexample found" for n in sorted(unconfirmed)]
    for number in waiting:
        decision = decisions[number]
        why = "not begun" if decision is None else f"{decision.why}, {decision.proved:.1%} of the box proved"
        reasons.append(f"case {number}: {why}")
    out_of_time = remaining is not None and remaining <= _SPENT * (limits.seconds or 0)
    answer = TIMEOUT if out_of_time and not unconfirmed else UNKNOWN
    return Solved(answer, spent, tuple(decisions), None, tuple(reasons))


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
