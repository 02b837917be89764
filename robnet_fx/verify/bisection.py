"""How strong a perturbation each image can take: its largest proved and its smallest falsified eps, by bisection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import check
from robnet_fx.machine import ranks
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.curves import check_nested
from robnet_fx.verify.decision import USUAL, Decision, decide
from robnet_fx.verify.question import posed
from robnet_fx.verify.search import Limits
from robnet_fx.verify.verdict import classify

_FINEST = 1 / 510  # half a pixel level
_LEAST_HALVINGS = 4  # of the largest eps


@dataclass(frozen=True)
class Largest:
    """`proved`: the largest eps at which an image is certified; `falsified`: the smallest at which a perturbation that
    turns it is known. None where there is none; what lies between the two is unknown, or finer than was looked."""

    proved: float | None
    falsified: float | None


@dataclass
class _Ladder:
    """What is known of an image on the steps from 1 to `top`: it is proved up to `proved` and falsified from
    `falsified` on; `unknown` are steps that were tried in vain."""

    top: int
    falsified: int
    proved: int = 0
    unknown: list[int] = field(default_factory=list)

    def next(self) -> int | None:
        """The step to try: the last, then the middle of what may still be proved, then of what may be falsified."""
        if not (self.proved or self.unknown or self.falsified <= self.top):
            return self.top
        between = [step for step in self.unknown if self.proved < step < self.falsified]
        provable = (self.proved, min(between, default=self.falsified))
        falsifiable = (max(between, default=self.proved), self.falsified)
        return next((sum(ends) // 2 for ends in (provable, falsifiable) if ends[1] - ends[0] > 1), None)

    def learn(self, step: int, answer: str) -> None:
        """Take in the answer at a step."""
        if answer == "certified":
            self.proved = step
        elif answer == "falsified":
            self.falsified = step
        else:
            self.unknown.append(step)

    def largest(self, eps: Sequence[float]) -> Largest:
        """The ends, where `eps` are the strengths of all steps from 0."""
        proved, falsified = self.proved > 0, self.falsified <= self.top
        return Largest(eps[self.proved] if proved else None, eps[self.falsified] if falsified else None)


def largest(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    limits: Limits = USUAL,
    known: Mapping[int, Decision] | None = None,
    progress: Progress = SILENT,
) -> dict[int, Largest]:
    """Up to which eps images `[N, C, *spatial]` are proved to keep their label `[N]`, and from which on they do not.

    Each image that is right is bisected up to the eps that `net` has now, to half a pixel level and a sixteenth of it
    at least; `known` are decisions of `certify` at that eps. All are worked at once, each over boxes of its own.
    `limits` are what an image may cost, shared evenly over the steps that it may take. Proofs and counterexamples are
    in float64. Of several ranks each works some of the images. Returns what was found by the number of the image.

    Raises `UsageError` for data that does not fit and where the boxes are not nested.
    """
    check(images, labels, net.classes)
    halvings = max(_LEAST_HALVINGS, math.ceil(math.log2(max(net.eps, _FINEST) / _FINEST)))
    top = 2**halvings
    eps = [net.eps * step / top for step in range(top + 1)]
    check_nested(net, eps)
    exact = in_dtype(net, torch.float64)
    over = Box(*map(torch.stack, zip(*map(net.transform.box_at, eps), strict=True)))
    _, correct = classify(exact, images, labels)
    share = _shared(limits, 2 * halvings + 1)

    def work(own: list[int]) -> list[tuple[int, Largest]]:
        pictures, question = posed(exact, images, labels, own)
        ladders = [_Ladder(top, top + 1) for _ in own]
        for number, ladder in zip(own, ladders, strict=True):
            if known is not None and number in known:
                ladder.learn(top, known[number].answer)
        with progress.task("bisecting", len(own)) as task:
            left = len(own)
            while asked := {n: step for n, ladder in enumerate(ladders) if (step := ladder.next()) is not None}:
                task.advance(left - len(asked))
                left, who, steps = len(asked), torch.tensor([*asked]), torch.tensor([*asked.values()])
                box = Box(*(end[steps].to(exact.center) for end in over))
                found = decide(net, pictures[who], question[who], limits=share, box=box, exact=exact)
                for (n, step), decision in zip(asked.items(), found, strict=True):
                    ladders[n].learn(step, decision.answer)
            task.advance(left)
        return [(number, ladder.largest(eps)) for number, ladder in zip(own, ladders, strict=True)]

    return dict(sorted(ranks.shared(correct.nonzero().squeeze(1).tolist(), work)))


def _shared(limits: Limits, steps: int) -> Limits:
    """The limits of one of so many steps."""
    seconds, boxes = limits.seconds, limits.boxes
    return Limits(None if seconds is None else seconds / steps, None if boxes is None else max(1, boxes // steps))
