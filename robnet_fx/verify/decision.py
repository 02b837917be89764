"""Three answers about every sample: certified, falsified or unknown, by a cascade that begins with what costs least."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.dependence import dependents, straight
from robnet_fx.bounds.memory import of_verdicts
from robnet_fx.bounds.methods import OrNone, Symbols, method_named
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches
from robnet_fx.machine.allocator import as_before
from robnet_fx.machine.memory import allowed_memory, available_memory, bytes_text
from robnet_fx.machine.precision import full_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box, check_box
from robnet_fx.verify.ascent import RESTARTS, STEPS, ascend, starting_points
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.parts import Part
from robnet_fx.verify.question import Question
from robnet_fx.verify.sample import Sample, Task
from robnet_fx.verify.search import Level, Limits, Search

ANSWERS = ("certified", "falsified", "unknown")
AROUND = "larger box"  # how an answer came that a box around this one has
_CLIMBING = 256  # samples at once
USUAL = Limits(seconds=10.0)
_OFTEN = 1024  # symbols: few parts have more
_AT_ONCE = 400 * 2**20  # bytes that a batch takes on a CPU: from there on larger ones are slower by the part


@dataclass(frozen=True)
class Decision:
    """The answer about one sample, and what it rests on.

    answer: one of `ANSWERS`. how: what gave it, "one box" or "symbols" (of the whole box), "split", "larger box" (one
    around this was proved), "attack" or "corner" (a point that splitting led to); for unknown what ran out, "time",
    "boxes" or "precision" (parts that floating-point numbers cannot halve). boxes: how many parts were bounded;
    seconds: of work, its share of what was done in batches. margin: the worst row's upper bound over the parts that are
    proved, or its value at the counterexample. point: its coefficients `[D]`. proved: the share of the box. tree: the
    proof, see `parts.Node`. one_box: whether the method's bound of the whole box, without symbols, is enough.
    """

    answer: str
    how: str
    boxes: int
    seconds: float
    margin: float
    point: Tensor | None
    proved: float
    tree: tuple[int, ...]
    one_box: bool

    def document(self) -> dict[str, Any]:
        """As records have it, but for the point and the tree; a margin that is not a finite number is None."""
        return {
            "answer": self.answer,
            "how": self.how,
            "boxes": self.boxes,
            "seconds": round(self.seconds, 3),
            "margin": self.margin if math.isfinite(self.margin) else None,
            "proved": self.proved,
            "one_box": self.one_box,
        }


def decide(
    net: BoundedModel,
    images: Tensor,
    question: Question,
    *,
    limits: Limits = USUAL,
    box: Box | None = None,
    exact: BoundedModel | None = None,
    around: Mapping[int, Decision] | None = None,
    progress: Progress = SILENT,
    tell: Callable[[int, Decision], None] | None = None,
) -> list[Decision]:
    """Whether a question's bad set is met anywhere in a box, for each of N samples.

    images `[N, *S]`; box `[1 or N, D]`, by default that of `net`. One bound of the whole box by the method of `net`
    without symbols comes first, then an attack, then splitting, where a part that this method does not prove is bounded
    with the symbols of `net`, and halved if need be. `net` searches in its own dtype; proofs and counterexamples count
    if they hold for `exact`, the same in float64 if not given. `around` has decisions on boxes that hold these, by the
    sample's number: what is certified there is so here, and one bound of the whole box is all that is worked. `tell` is
    given each sample's number and decision as soon as it is there. Methods without a backward pass have no form to
    split by: theirs is the one box. Raises `UsageError` for images or a box that do not fit, and for too little memory
    (`machine.memory.at_most`).
    """
    exact = exact or in_dtype(net, torch.float64)
    images, question = images.to(exact.center), question.to(exact.center)
    over = check_box(box or Box(exact.center.unsqueeze(0), exact.radius.unsqueeze(0)), exact.center, len(images))
    over = Box(*(end.expand(len(images), -1) for end in over))
    work = _Work(net, exact, images, question, over, limits, progress, tell)
    with full_precision(), as_before():
        work.one_box()
        work.inherit(around or {})
        work.attack()
        work.search()
    return [decision for decision in work.decisions if decision is not None]


class _Work:
    """What is known of all samples; each stage works on those that have no answer yet."""

    def __init__(
        self,
        net: BoundedModel,
        exact: BoundedModel,
        images: Tensor,
        question: Question,
        box: Box,
        limits: Limits,
        progress: Progress,
        tell: Callable[[int, Decision], None] | None,
    ) -> None:
        self.net, self.exact = net, exact
        self.images, self.question, self.box = images, question, box
        self.limits, self.progress, self.tell = limits, progress, tell
        self.samples = [Sample(number) for number in range(len(images))]
        self.decisions: list[Decision | None] = [None] * len(images)
        self.levels = levels(net, exact)

    def open(self) -> Tensor:
        """The samples without an answer."""
        index = [sample.index for sample in self.samples if self.decisions[sample.index] is None]
        return torch.tensor(index, dtype=torch.long, device=self.images.device)

    def conclude(self, sample: Sample, how: str) -> Decision:
        """The sample's answer, from what is known of it."""
        one_box = sample.root.below is None and sample.root.level == 0
        if sample.point is not None:
            answer, margin = "falsified", self.height(sample)
        else:
            answer, margin = "certified" if sample.proved_all else "unknown", sample.margin
            margin = max((task.upper for task in sample.open), default=margin)
        decision = Decision(
            answer,
            how,
            sample.boxes,
            sample.seconds,
            margin,
            sample.point,
            sample.proved,
            tuple(sample.root.written()) if answer != "falsified" else (),
            one_box,
        )
        self.answered(sample.index, decision)
        return decision

    def answered(self, number: int, decision: Decision) -> None:
        """Keep a sample's decision, and tell it."""
        self.decisions[number] = decision
        if self.tell is not None:
            self.tell(number, decision)

    def height(self, sample: Sample) -> float:
        """The worst row at a counterexample."""
        assert sample.point is not None
        own = slice(sample.index, sample.index + 1)
        asked = self.question[own]
        logits = self.exact.perturbed(sample.point.unsqueeze(0).to(self.exact.center), self.images[own])
        return float(asked.worst(asked.values(logits)).detach())

    @torch.no_grad()
    def one_box(self) -> None:
        """Bound whole boxes, without symbols."""
        level = self.levels[0]
        with self.progress.task("bounding", len(self.samples)) as task:
            for part in batches(len(self.samples), level.batch):
                start, asked = time.perf_counter(), self.question[part]
                upper = level.exact.upper_rows(self.images[part], asked.rows, Box(*(end[part] for end in self.box)))
                worst = asked.worst(upper + asked.offset).tolist()
                share = (time.perf_counter() - start) / len(worst)
                for sample, margin in zip(self.samples[part], worst, strict=True):
                    sample.boxes, sample.seconds, sample.margin = 1, share, margin
                    if math.isfinite(margin) and margin < 0:
                        sample.root.level, sample.proved = 0, 1.0
                        self.conclude(sample, "one box")
                task.advance(len(worst))

    def inherit(self, around: Mapping[int, Decision]) -> None:
        """Take over what is certified on boxes around these."""
        for number in self.open().tolist():
            larger, own = around.get(number), self.samples[number]
            if larger is not None and larger.answer == "certified":
                changes = {"how": AROUND, "boxes": own.boxes, "seconds": own.seconds, "tree": (), "one_box": False}
                self.answered(number, replace(larger, **changes))

    def attack(self) -> None:
        """Climb towards counterexamples, from the middle of the box and some other points."""
        starts = starting_points(self.box.center.shape[1], RESTARTS, 0).to(self.net.center)
        left = self.open()
        # Bounds hold more of a sample than a gradient does.
        together = min(_CLIMBING, _fitting(self.net, self.net.method, 0))
        with self.progress.task("attacking", len(left)) as task:
            for part in batches(len(left), together):
                index, start = left[part], time.perf_counter()
                points = self._climb(index, starts)
                met = self._met(index, points)
                share = (time.perf_counter() - start) / len(index)
                for number, point, fooled in zip(index.tolist(), points, met.tolist(), strict=True):
                    sample = self.samples[number]
                    sample.seconds += share
                    if fooled:
                        sample.point = point.cpu()
                        self.conclude(sample, "attack")
                task.advance(len(index))

    def _climb(self, index: Tensor, starts: Tensor) -> Tensor:
        """Coefficients `[b, D]` where the worst row is high."""
        net, asked = self.net, self.question[index].to(self.net.center)
        over = Box(*(end[index].to(net.center) for end in self.box))

        def height(logits: Tensor, who: Tensor) -> Tensor:
            own = asked[who]
            return own.worst(own.values(logits))

        until = math.ulp(0.0) if bool(asked.strict.any()) else 0.0
        t = ascend(net, self.images[index].to(net.center), height, starts, STEPS, over, until)
        return self.box.center[index] + self.box.radius[index] * t.to(self.box.center)

    @torch.no_grad()
    def _met(self, index: Tensor, points: Tensor) -> Tensor:
        asked = self.question[index]
        return asked.met(asked.values(self.exact.perturbed(points, self.images[index])))

    def search(self) -> None:
        """Split what is left."""
        left = [self.samples[number] for number in self.open().tolist()]
        if not method_named(self.net.method).backward:
            for sample in left:
                self.conclude(sample, "one box")
            return
        whole, first = Part.whole(self.box.center.shape[1]), min(1, len(self.levels) - 1)
        for sample in left:
            sample.open, sample.boxes = [Task(sample, whole, sample.root, first)], 0  # it is no other box
        counts = Counter(each.answer for each in self.decisions if each is not None)
        with self.progress.task("splitting", len(left)) as task:

            def finished(sample: Sample) -> None:
                proof = "split" if sample.root.below else "symbols"
                decision = self.conclude(sample, "corner" if sample.point is not None else sample.why or proof)
                counts[decision.answer] += 1
                task.advance(1, **{answer: counts[answer] / len(self.samples) for answer in ANSWERS})

            Search(self.levels, self.images, self.question, self.box, self.limits).run(left, finished)


def levels(net: BoundedModel, exact: BoundedModel) -> list[Level]:
    """The net's method without symbols; the net as it is, where that is something else; and where that keeps symbols,
    full RSIP on what these bound, which tightens every value unit by unit, if memory holds it. Where the parts that
    matter have few errors, those that have more symbols than are kept do without any."""
    cheap = "rsip-ssip" if net.method == "rsip" else net.method
    wanted: list[tuple[str, Symbols]] = [(cheap, 0)]
    if (net.method, net.symbols) != wanted[0]:
        few = net.symbols not in (0, "all") and straight(dependents(net.perturbed))
        wanted.append((net.method, OrNone(net.symbols) if few else net.symbols))
    if net.method == "rsip-ssip" and net.symbols:
        dearest = of_verdicts(net.perturbed, net.symbols, "rsip")
        if dearest.fits(available_memory(net.center.device)):
            wanted.append(("rsip", net.symbols))
    levels = []
    for method, symbols in wanted:
        make = partial(_by, method=method, symbols=symbols)
        often = of_verdicts(net.perturbed, _OFTEN if symbols == "all" else min(symbols, _OFTEN), method)
        most = 1024 if net.center.is_cuda else min(64, _AT_ONCE // often.image)
        batch = max(1, min(_fitting(net, method, symbols), most))
        levels.append(Level(make, net, exact, batch, dear=method == "rsip" != net.method))
    return levels


def _fitting(net: BoundedModel, method: str, symbols: Symbols) -> int:
    """How many samples memory holds at once, at least 1. `UsageError` where that is more than is allowed."""
    memory, allowed = of_verdicts(net.perturbed, symbols, method), allowed_memory()
    if allowed is not None and not memory.fits(allowed):
        kept = f" with {symbols} symbols" if symbols else ""
        least = bytes_text(memory.least())
        raise UsageError(f"--memory is too little for the bounds of one image{kept}: they take some {least}")
    return max(1, memory.fits(available_memory(net.center.device)))


def _by(net: BoundedModel, method: str, symbols: Symbols) -> BoundedModel:
    same = (net.method, net.symbols) == (method, symbols) and not isinstance(symbols, OrNone)
    return net if same else net.by(method, symbols)
