"""Proving a question over a box part by part: bounds that do not suffice on a part may suffice on its halves.

Each part of each sample's box goes through the levels of bounds, the cheapest first. Where none of them proves it, it
is halved as often as its bound is far from what is needed, along the coefficients that move the first relaxed value
most: what is to be won are the errors of relaxations, in which the margin's own slopes cancel. The points where its
worst row is highest are tried as counterexamples. Levels search in the arithmetic of their nets; what they find proved
counts when `exact` has bounded it too.

What becomes of a sample follows from itself alone: its parts are worked in rounds of fixed numbers, and batches hold
parts of many samples. So neither the batch nor the number of processes changes an answer, but for rounding.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robnet_fx.bounds.influence import influence
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import batches
from robnet_fx.machine.allocator import give_back_freed_memory
from robnet_fx.machine.memory import allowed_memory
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.parts import Node, Part, boxes
from robnet_fx.verify.question import Question
from robnet_fx.verify.sample import Sample, Task, halvings, learn, pays

ROUND = 16  # parts of a sample that are worked at once, at most
_FIRST = 4  # in the first round after the whole box; each round may have twice as many as the one before
_SMALLEST = 2.0**-40  # of a coefficient's width: what is not proved there never will be


@dataclass(frozen=True)
class Limits:
    """For a sample: `seconds` of the work, its share of what is done in batches, and `boxes`, parts that are bounded.
    None is no limit. Neither is exceeded by more than a batch."""

    seconds: float | None = None
    boxes: int | None = None


class Level:
    """A net that bounds parts, the one that has to agree, and how many parts each takes at once.

    `make` gives the bounds of this level of a net; they are made when first needed. `dear`: only where it pays.
    """

    def __init__(
        self,
        make: Callable[[BoundedModel], BoundedModel],
        net: BoundedModel,
        exact: BoundedModel,
        batch: int,
        dear: bool = False,
    ) -> None:
        self._make, self._net, self._exact = make, net, exact
        self.batch, self.dear = batch, dear

    @cached_property
    def net(self) -> BoundedModel:
        """What searches."""
        return self._make(self._net)

    @cached_property
    def exact(self) -> BoundedModel:
        """What has to agree."""
        return self.net if self._net is self._exact else self._make(self._exact)


class Search:
    """The parts of many samples, worked in batches until each sample has an answer or has used up its limits."""

    def __init__(self, levels: Sequence[Level], images: Tensor, question: Question, box: Box, limits: Limits) -> None:
        """images `[N, *S]`, question of N samples and box `[N, D]`, all in the dtype and on the device of `exact`."""
        self.levels, self.limits = levels, limits
        self.images, self.question, self.box = images, question, box
        self.influence: dict[int, Tensor] = {}
        self.queues: dict[tuple[int, bool], deque[Task]] = {
            (level, exact): deque() for level in range(len(levels)) for exact in (False, True)
        }

    def run(self, samples: Sequence[Sample], finished: Callable[[Sample], None]) -> None:
        """Work samples whose `open` parts are given; `finished` is told of each as it gets its answer.

        A sample is begun where no batch can be filled with what is begun already: who stops the work has answers."""
        left, active = deque(samples), 0
        with torch.no_grad():
            self._weigh([sample.index for sample in samples])
            while left or active:
                while left and not self._busy():
                    active += 1
                    active -= self._go_on(left.popleft(), finished)
                if not active:
                    continue
                kind = max(self.queues, key=lambda kind: len(self.queues[kind]))
                for sample in self._work(*kind):
                    active -= self._go_on(sample, finished)

    def _busy(self) -> bool:
        """Whether there is a whole batch to work."""
        return any(len(queue) >= self.levels[level].batch for (level, _), queue in self.queues.items())

    def _weigh(self, samples: Sequence[int]) -> None:
        """Learn along which coefficients the boxes of samples are split."""
        cheapest = self.levels[0]
        for part in batches(len(samples), cheapest.batch):
            index = torch.tensor(samples[part], device=self.images.device)
            found = influence(cheapest.exact, self.images[index], self._over(index)).double().cpu()
            self.influence |= dict(zip(samples[part], found, strict=True))

    def _go_on(self, sample: Sample, finished: Callable[[Sample], None]) -> bool:
        """Begin the next round of a sample that waits for nothing; whether it is finished instead."""
        if sample.point is None and not sample.why:
            learn(sample)
            for task in sample.failed:
                self._split(task)
            sample.failed = []
            if sample.open and not sample.why:
                sample.why = self._used_up(sample)
        if sample.point is not None or sample.why or not sample.open:
            finished(sample)
            return True
        sample.open.sort(key=lambda task: task.upper)  # the worst last, where a counterexample is likeliest
        size = min(ROUND, _FIRST * 2 ** max(0, sample.rounds - 1))  # what is learnt early is of most use
        chosen = sample.open[-size:]
        del sample.open[-size:]
        sample.begin(chosen)
        for task in chosen:
            self._enter(task, task.level)
        return False

    def _late(self, sample: Sample) -> bool:
        return self.limits.seconds is not None and sample.seconds >= self.limits.seconds

    def _used_up(self, sample: Sample) -> str:
        if self._late(sample):
            return "time"
        return "boxes" if self.limits.boxes is not None and sample.boxes >= self.limits.boxes else ""

    def _enter(self, task: Task, level: int) -> None:
        """Have a part bounded at a level, or at the next one where this has proved too little to be worth its time;
        by the exact net where the other one's word has mostly been a proof."""
        sample = task.sample
        while level in sample.idle and (self._usual(level + 1) or level + 1 in sample.sure):
            level += 1
        task.level, task.exact = level, level in sample.sure
        self.queues[level, task.exact].append(task)

    def _usual(self, level: int) -> bool:
        """Whether there is a level of this number, for every part."""
        return level < len(self.levels) and not self.levels[level].dear

    def _work(self, level: int, exact: bool) -> list[Sample]:
        """Bound a batch of parts at a level, and return the samples that now wait for nothing. Parts of a sample whose
        time is up stay open."""
        own, queue = self.levels[level], self.queues[level, exact]
        tasks = [queue.popleft() for _ in range(min(len(queue), own.batch))]
        late = {task for task in tasks if self._late(task.sample)}
        for task in late:
            task.sample.put_back(task)
        if in_time := [task for task in tasks if task not in late]:
            start = time.perf_counter()
            self._bound(in_time, own.exact if exact else own.net)
            share = (time.perf_counter() - start) / len(in_time)
            for task in in_time:
                task.sample.seconds += share
            if allowed_memory() is not None:
                give_back_freed_memory()
        return [sample for sample in dict.fromkeys(task.sample for task in tasks) if not sample.waiting]

    def _of(self, tasks: Sequence[Task]) -> tuple[Tensor, Question, Box]:
        index = self._index(tasks)
        return self.images[index], self.question[index], boxes([task.part for task in tasks], self._over(index))

    def _index(self, tasks: Sequence[Task]) -> Tensor:
        return torch.tensor([task.sample.index for task in tasks], device=self.images.device)

    def _over(self, index: Tensor) -> Box:
        """The whole boxes of samples."""
        return Box(self.box.center[index], self.box.radius[index])

    def _bound(self, tasks: Sequence[Task], net: BoundedModel) -> None:
        """Bound parts that are at one level by its net or its exact one; what is not proved learns where its worst row
        leads."""
        images, question, box = self._of(tasks)
        asked, over = question.to(net.center), Box(*(end.to(net.center) for end in box))
        pictures = images.to(net.center)
        found = net.branch_rows(pictures, asked.rows, over)
        uppers = found.upper + asked.offset
        worst = asked.worst(uppers)
        row = (uppers - worst.unsqueeze(1)).abs().nan_to_num(torch.inf).argmin(1)
        form = found.form[torch.arange(len(tasks), device=row.device), row]
        middle = asked.worst(asked.values(net.perturbed(over.center, pictures)))
        proved = worst.isfinite() & (worst < 0)
        unproved = (~proved).nonzero().squeeze(1)
        if len(unproved):
            self._try([tasks[i] for i in unproved.tolist()], images[unproved], question[unproved], form[unproved])
        for task, upper, center, done in zip(tasks, worst.tolist(), middle.tolist(), proved.tolist(), strict=True):
            task.count(done)
            task.ratios[task.level] = (upper - center) / abs(center) if center < 0 else math.inf
            if done and net is self.levels[task.level].exact:
                self._proved(task, upper)
            elif done:
                task.exact = True
                self.queues[task.level, True].append(task)
            else:
                task.upper = upper
                self._not_proved(task)

    def _proved(self, task: Task, upper: float) -> None:
        task.node.level = task.level
        task.sample.proved += task.part.share
        task.sample.waiting -= 1
        task.sample.margin = max(task.sample.margin, upper) if task.sample.margin <= 0 else upper

    def _not_proved(self, task: Task) -> None:
        """To the next level, or to be halved at the end of the round."""
        above = task.level + 1
        if self._usual(above) or (above < len(self.levels) and pays(task)):
            self._enter(task, above)
            return
        task.sample.failed.append(task)
        task.sample.waiting -= 1

    def _split(self, task: Task) -> None:
        """Halve a part, once or as often as its bound promises to be of use: it is not bounded in between."""
        times = halvings(task, len(self.levels) - 1)
        left = [(task.part, task.node)]
        for _ in range(times):
            left = [half for part, node in left for half in self._halved(task.sample, part, node)]
        task.sample.open += [
            Task(task.sample, part, node, upper=task.upper, before=task.ratios, halvings=times) for part, node in left
        ]

    def _halved(self, sample: Sample, part: Part, node: Node) -> list[tuple[Part, Node]]:
        width = part.upper - part.lower
        dimension = int((self.influence[sample.index] * width).argmax())
        if float(width[dimension]) < _SMALLEST:
            sample.why = "precision"
        return list(zip(part.halves(dimension), node.split(dimension), strict=True))

    def _try(self, tasks: Sequence[Task], images: Tensor, question: Question, rising: Tensor) -> None:
        """Whether a part's middle, or the corner where `rising [B, D]` leads, is a counterexample, in exact numbers."""
        net = self.levels[0].exact
        over = self._over(self._index(tasks))
        lower, upper = (torch.stack(ends).to(rising) for ends in zip(*(task.part for task in tasks), strict=True))
        for t in (torch.where(rising > 0, upper, lower), (lower + upper) / 2):
            points = over.center + over.radius * t.to(over.center)
            met = question.met(question.values(net.perturbed(points, images)))
            for number in met.nonzero().squeeze(1).tolist():
                tasks[number].sample.point = points[number].cpu()
