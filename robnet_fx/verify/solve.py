"""A property decided case by case in the time there is, and every counterexample confirmed by the file itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box
from robnet_fx.perturbations.input_box import around
from robnet_fx.verify.decide import Decision, Limits, decide
from robnet_fx.verify.property import Case

HOLDS, VIOLATED, UNKNOWN, TIMEOUT = "holds", "violated", "unknown", "timeout"

_ROUNDS = (0.1, 1.0)  # of the time that is left, shared by the open cases: an easy one may settle the property
_SPENT = 0.05  # of the time: less is as good as none


@dataclass(frozen=True)
class Counterexample:
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
    reasons: tuple[str, ...] = field(default=())


def solve(
    net: BoundedModel,
    cases: Sequence[Case],
    confirm: Callable[[Case, Tensor], Counterexample | None],
    *,
    limits: Limits,
    progress: Progress = SILENT,
) -> Solved:
    """Decide cases about the outputs of `net`, whose perturbation is an `InputBox` around all of them.

    `limits` are those of the whole property in seconds, and of each case in boxes. `confirm(case, inputs [n])` says
    what the file itself makes of the inputs that our arithmetic found, None where it does not meet the case's question:
    then that is no violation, and the case stays open. A violated case ends the search.
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
            (decision,) = decide(
                net,
                image,
                cases[number].question,
                limits=Limits(seconds, limits.boxes),
                box=Box(torch.zeros_like(reach), reach),
                progress=progress,
            )
            decisions[number] = decision
            if decision.answer == "falsified" and decision.point is not None:
                inputs = middle.index_add(0, free, decision.point.reshape(-1).double().cpu())
                found = confirm(cases[number], inputs)
                if found is not None:
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
