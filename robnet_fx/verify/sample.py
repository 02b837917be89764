"""A sample whose box is cut into parts, and what its parts tell of the ways there are to prove them.

A part's *ratio* is its bound's rise over the margin at its middle, in units of that margin: below 1 it is proved. How
much a halving divides it by, and how much the dearest level of bounds does, is learnt from each sample's own parts, and
says which of the two is the shorter way. So is whether a level is worth its time, and whether what it finds proved is
nearly all there is: then its exact net may bound parts at once. What is learnt in a round counts from the next one on.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from robnet_fx.verify.parts import Node, Part

_GAIN = math.log(4.0)  # the logarithm of what a ratio is divided by where a part is halved, before more is known
_LEAST_GAIN = 0.1  # what is told from less is noise
_FIRST_HALVINGS = 2  # of the whole box: of what is behind the cliff nobody knows how far
_MOST_HALVINGS = 4  # at once
_PATIENCE = 2  # rounds before the dearest level is tried, and how many parts are
_TRIED = 4
_REACH = math.log(4.0)  # what it is hoped to divide a ratio by, before it has been tried
_DEARER = 2.5  # times the cost of the level before
_SURELY = 0.9  # of the dearest level's reach, where parts are halved to come within it
_WORTH = 1 / 8  # the share of parts that a level must prove to be tried before the next one
_ENOUGH = 4  # parts from which on a share tells something


@dataclass(eq=False)
class Sample:
    """What is known of one sample: its tree, the parts that are open, and what it has cost.

    `margin` is the largest bound that the question's worst row had on the last round's parts, `point [D]` the
    coefficients of a counterexample, `proved` the share of the box that is proved. `gain` and `dear` are logarithms of
    what a halving and the dearest level divide a part's ratio by, `dear` None before that has been tried. Of the levels
    that parts were at, `tried` and `succeeded` count how many were bounded and proved, `idle` are those that prove too
    little and `sure` those that prove more than half.
    """

    index: int
    root: Node = field(default_factory=Node)
    open: list[Task] = field(default_factory=list)
    failed: list[Task] = field(default_factory=list)
    round: list[Task] = field(default_factory=list)
    rounds: int = 0
    waiting: int = 0
    gain: float = _GAIN
    dear: float | None = None
    on_trial: int = 0
    boxes: int = 0
    seconds: float = 0.0
    proved: float = 0.0
    margin: float = math.nan
    point: Tensor | None = None
    why: str = ""
    tried: Counter[int] = field(default_factory=Counter)  # by level, and below
    succeeded: Counter[int] = field(default_factory=Counter)
    idle: set[int] = field(default_factory=set)
    sure: set[int] = field(default_factory=set)

    @property
    def proved_all(self) -> bool:
        """Whether every part is proved."""
        return self.point is None and self.root.proved()

    def begin(self, chosen: list[Task]) -> None:
        """A round of these parts."""
        self.round, self.waiting = chosen, len(chosen)
        self.rounds += 1
        self.boxes += len(chosen)
        self.on_trial = _TRIED if self.dear is None and self.rounds > _PATIENCE else 0
        tried = self.tried.items()
        self.idle = {level for level, count in tried if self.succeeded[level] + 1 < _WORTH * count}
        self.sure = {level for level, count in tried if self.succeeded[level] > count / 2 and count >= _ENOUGH}

    def put_back(self, task: Task) -> None:
        """Leave a part of the round open, as it is."""
        self.open.append(task)
        self.waiting -= 1
        self.boxes -= not task.ratios

    @property
    def reach(self) -> float:
        """The logarithm of what the dearest level divides a ratio by, 0 where it costs more than it saves."""
        return self.dear if self.dear is not None and 2 ** (self.dear / self.gain) > _DEARER else 0.0


@dataclass(eq=False)
class Task:
    """A part of a sample's box, the level that it is at, and whether that is the exact net's turn.

    `ratios` are its own by level; `before` are those of the part that it is a piece of, `halvings` ago."""

    sample: Sample
    part: Part
    node: Node
    level: int = 0
    exact: bool = False
    upper: float = math.inf
    ratios: dict[int, float] = field(default_factory=dict)
    before: dict[int, float] = field(default_factory=dict)
    halvings: int = 1

    def count(self, proved: bool) -> None:
        """What its level has found, once: what an exact net says of it after another has said it already is no more."""
        if self.level not in self.ratios:
            self.sample.tried[self.level] += 1
            self.sample.succeeded[self.level] += proved


def halvings(task: Task, dearest: int) -> int:
    """How often a part that was not proved is halved before its pieces are bounded: until they are within the reach of
    the dearest level, or where that does not pay, of the one before."""
    ratio, reach = task.ratios[task.level], 0.0 if task.level == dearest else _SURELY * task.sample.reach
    times = math.ceil((math.log(ratio) - reach) / task.sample.gain) if 1 < ratio < math.inf else 1
    return max(1, min(times, _MOST_HALVINGS if task.sample.rounds > 1 else _FIRST_HALVINGS))


def pays(task: Task) -> bool:
    """Whether the dearest level is likely to prove a part, and cheaper than the halves that would.

    What it does not prove it was bounded in vain for, so that wide parts are halved until they are within its reach."""
    sample, ratio = task.sample, task.ratios[task.level]
    if not 1 < ratio < math.inf or 2 ** math.ceil(math.log(ratio) / sample.gain) <= _DEARER:
        return False
    if sample.dear is None:
        sample.on_trial -= math.log(ratio) < _REACH
        return sample.on_trial >= 0 and math.log(ratio) < _REACH
    return math.log(ratio) < sample.dear


def learn(sample: Sample) -> None:
    """What halving, and the dearest level, have brought in the round that is over."""
    halved, dearest = [], []
    for task in sample.round:
        finite = {level: ratio for level, ratio in task.ratios.items() if 0 < ratio < math.inf}
        if common := [level for level in finite if task.before.get(level, math.inf) < math.inf]:
            halved.append(math.log(task.before[max(common)] / finite[max(common)]) / task.halvings)
        if (last := max(finite, default=0)) > 1 and last - 1 in finite:
            dearest.append(math.log(finite[last - 1] / finite[last]))
    if halved:
        sample.gain = max(_LEAST_GAIN, math.fsum(halved) / len(halved))
    if dearest:
        sample.dear = math.fsum(dearest) / len(dearest)
    sample.round = []
