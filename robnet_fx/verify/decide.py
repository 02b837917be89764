"""A stand-in for the engine, with its signature: attack by a few points, one box, and the widest radius halved."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import to_float
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.certificate import in_dtype
from robnet_fx.verify.question import Question

_POINTS = 64


@dataclass(frozen=True)
class Limits:
    """What a sample may take: seconds, and boxes."""

    seconds: float | None = None
    boxes: int | None = None


@dataclass(frozen=True)
class Decision:
    """What was found of a sample: `answer` is "certified", "falsified" or "unknown"; `margin` an upper bound of the
    question's worst value, `point [D]` the coefficients of a counterexample, `proved` the share of the box."""

    answer: str
    how: str
    boxes: int
    seconds: float
    margin: float
    point: Tensor | None = None
    proved: float = 0.0
    why: str = ""


@torch.no_grad()
def decide(
    net: BoundedModel,
    images: Tensor,
    question: Question,
    *,
    limits: Limits,
    box: Box | None = None,
    progress: Progress = SILENT,
) -> list[Decision]:
    """Of each sample, `images [N, *S]`, whether the bad set of `question` is met over `box [1 or N, D]`."""
    exact = in_dtype(net, torch.float64)
    center, radius = (net.center.unsqueeze(0), net.radius.unsqueeze(0)) if box is None else box
    with progress.task("deciding", len(images)) as task:
        found = []
        for n in range(len(images)):
            image, own = to_float(images[n : n + 1], exact.center), question[slice(n, n + 1)].to(exact.center)
            here = Box(*(part.to(exact.center)[n if len(part) > 1 else 0].unsqueeze(0) for part in (center, radius)))
            found.append(_one(exact, image, own, here, limits))
            task.advance(1)
    return found


def _one(net: BoundedModel, image: Tensor, question: Question, box: Box, limits: Limits) -> Decision:
    start = time.monotonic()
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(-1, 2, (_POINTS, len(net.center)), generator=generator).to(image)
    t[0] = 0
    points = box.center + box.radius * t
    each = Question(question.rows.expand(_POINTS, -1, -1), question.offset.expand(_POINTS, -1), question.group,
                    question.strict)  # fmt: skip
    values = each.values(net(points, image.expand(_POINTS, *image.shape[1:])))
    met = each.worst(torch.where(question.strict & (values == 0), -1.0, values))
    if float(met.max()) >= 0:
        best = int(met.argmax())
        spent = time.monotonic() - start
        return Decision("falsified", "attack", 0, spent, float(met.max()), points[best].cpu())
    waiting, boxes, proved, worst = [(box, 1.0)], 0, 0.0, -float("inf")
    while waiting:
        spent = time.monotonic() - start
        if (limits.seconds is not None and spent >= limits.seconds) or boxes >= (limits.boxes or 10_000):
            why = "boxes" if boxes >= (limits.boxes or 10_000) else "time"
            return Decision("unknown", "", boxes, spent, max(worst, 0.0), None, proved, f"out of {why}")
        here, share = waiting.pop()
        _, upper = net.get_submodule("bounds")(image, question.rows, *here)
        margin = float(question.worst(upper + question.offset))
        boxes += 1
        if margin < 0:
            proved, worst = proved + share, max(worst, margin)
            continue
        half = here.radius.clone()
        axis = int(half[0].argmax())
        half[0, axis] /= 2
        for side in (-1, 1):
            middle = here.center.clone()
            middle[0, axis] += side * half[0, axis]
            waiting.append((Box(middle, half), share / 2))
    return Decision("certified", "boxes", boxes, time.monotonic() - start, worst, None, 1.0)
