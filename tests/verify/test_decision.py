"""Three answers: what is certified holds at every point, what is falsified is turned by a point of the box, and no
answer hangs on the batch, the order or where a run was stopped."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

import robnet_fx
from robnet_fx import BiasField, Box, UsageError
from robnet_fx.algebra.logits import worst_margin
from robnet_fx.bounds.evaluate import Branch
from robnet_fx.bounds.memory import of_verdicts
from robnet_fx.bounds.methods import OrNone
from robnet_fx.machine.memory import USABLE, at_most
from robnet_fx.testing import all_corners
from robnet_fx.verify import Limits, Question, Unfinished, certify, classification, decide, decision, sample
from robnet_fx.verify import search as module
from tests.small import bounded, digits
from tests.stops import stop_after

X, Y = digits()
X, Y = X[1500:1540], Y[1500:1540]
FEW = Limits(boxes=3)


@pytest.fixture(scope="module")
def net():
    """Images of all three answers, after one box and after many."""
    return bounded(eps=0.6, fit=200).by("rsip-ssip", 16)


@pytest.fixture(scope="module")
def right(net):
    images = X.float() / 255
    known = net.logits(images).argmax(1) == Y
    return images[known], Y[known]


@pytest.fixture(scope="module")
def decisions(net, right):
    images, labels = right
    return decide(net, images, classification(labels, 10, torch.float32), limits=FEW)


def without_time(found):
    return [replace(each, seconds=0.0, point=None) for each in found]


def test_there_are_all_answers_by_all_ways(decisions):
    assert {each.answer for each in decisions} == {"certified", "falsified", "unknown"}
    assert {each.how for each in decisions} >= {"one box", "attack", "symbols", "split", "boxes"}


def test_samples_are_finished_before_others_are_begun(net, right, decisions, monkeypatch):
    """Where a batch is small, answers come one after the other, and they are those of large batches."""
    images, labels = right
    real, done, seen = decision.levels, [], []

    def small(*nets):
        made = real(*nets)
        for level in made:
            level.batch = 2
        return made

    monkeypatch.setattr(decision, "levels", small)
    begin = module.Search._enter

    def entered(search, task, level):
        seen.append((task.sample.index, len(done)))
        begin(search, task, level)

    monkeypatch.setattr(module.Search, "_enter", entered)
    question = classification(labels, 10, torch.float32)
    found = decide(net, images, question, limits=FEW, tell=lambda number, _: done.append(number))
    early = sum(each.how in ("one box", "attack") for each in found)
    first_met = dict(reversed(seen))
    assert len(first_met) > 5 and first_met[max(first_met)] > early + len(first_met) // 2
    assert without_margins(found) == without_margins(decisions)


@torch.no_grad()
def test_no_point_of_the_box_turns_what_is_certified(net, right, decisions):
    images, labels = right
    exact = bounded(eps=0.6, fit=200)
    dimensions = len(exact.center)
    t = torch.rand(4000, dimensions, generator=torch.Generator().manual_seed(0)) * 2 - 1
    t = torch.cat([t, t.sign(), all_corners(dimensions).float()])
    highest = []
    for image, label, found in zip(images, labels, decisions, strict=True):
        logits = exact.perturbed(exact.center + exact.radius * t, image.expand(len(t), -1, -1, -1))
        worst = float(worst_margin(logits, label.expand(len(t))).max())
        if found.answer == "certified":
            assert worst <= found.margin + 1e-5 and found.margin < 0 and found.proved == 1
        highest.append((found.answer, worst))
    assert max(worst for answer, worst in highest if answer == "certified") > -1  # the bounds are not idle


@torch.no_grad()
def test_a_counterexample_lies_in_the_box_and_turns_the_answer(net, right, decisions):
    images, labels = right
    exact = robnet_fx.verify.convert.in_dtype(net, torch.float64)
    for image, label, found in zip(images, labels, decisions, strict=True):
        assert (found.point is not None) == (found.answer == "falsified")
        if found.point is not None:
            assert ((found.point - exact.center).abs() <= exact.radius * (1 + 1e-12)).all()
            logits = exact.perturbed(found.point.unsqueeze(0), image.double().unsqueeze(0))
            margin = float(worst_margin(logits, label.unsqueeze(0)))
            assert margin >= 0 and margin == pytest.approx(found.margin)


def test_parts_without_room_lose_their_symbols_where_errors_become_few():
    """Where every unit has an error in the smallest of boxes, symbols that make way for others are worth more."""
    straight = bounded().by("rsip-ssip", 16)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10)).eval()
    curved = robnet_fx.bound(layers, BiasField(1, 0.1), example=X[:2] / 255, symbols=16)
    for net, few in ((straight, True), (curved, False), (straight.by("rsip-ssip", "all"), False)):
        levels = decision.levels(net, net)
        assert [isinstance(level.net.symbols, OrNone) for level in levels] == [False, few, False]
        assert [level.net.symbols for level in levels] == [0, net.symbols, net.symbols]


def test_splitting_proves_more_than_one_box(decisions):
    one_box, split = (
        sum(test(each) for each in decisions) for test in (lambda d: d.one_box, lambda d: d.how == "split")
    )
    assert one_box > 0 and split >= 3


def test_a_sample_is_answered_as_it_is_alone(net, right, decisions):
    images, labels = right
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:12]
    for index in (order, order[:1], order[:5].flip(0)):
        found = decide(net, images[index], classification(labels[index], 10, torch.float32), limits=FEW)
        for place, own in zip(index.tolist(), without_time(found), strict=True):
            (whole,) = without_time([decisions[place]])
            assert replace(own, margin=0) == replace(whole, margin=0)
            assert own.margin == pytest.approx(whole.margin, rel=1e-4)


def test_more_boxes_never_lose_an_answer(net, right, decisions):
    images, labels = right
    question = classification(labels, 10, torch.float32)
    few, many = (decide(net, images, question, limits=Limits(boxes=count)) for count in (1, 400))
    assert all((each.boxes == 1 and each.how != "split") or each.proved == 1 for each in few)
    for rows in (zip(few, decisions, strict=True), zip(decisions, many, strict=True)):
        for less, more in rows:
            assert less.answer in ("unknown", more.answer)
    assert sum(each.answer == "unknown" for each in many) < sum(each.answer == "unknown" for each in few)


def test_symbols_save_boxes(net, right, decisions):
    images, labels = right
    plain = decide(net.by("rsip-ssip"), images, classification(labels, 10, torch.float32), limits=FEW)
    both = [(a.boxes, b.boxes) for a, b in zip(decisions, plain, strict=True) if a.how == b.how == "split"]
    assert sum(a for a, _ in both) < sum(b for _, b in both)


@pytest.mark.parametrize("method", ["rsip-ibp", "rsip"])
def test_any_method_with_a_form_splits(right, method):
    images, labels = (each[:10] for each in right)
    found = decide(bounded(eps=0.3, fit=200).by(method), images, classification(labels, 10, torch.float32), limits=FEW)
    assert any(each.how == "split" for each in found) and {each.answer for each in found} >= {"certified"}


@pytest.mark.parametrize("method", ["ibp", "ssip"])
def test_a_method_without_a_form_has_one_box(right, method):
    images, labels = (each[:10] for each in right)
    found = decide(bounded(eps=0.1, fit=200).by(method), images, classification(labels, 10, torch.float32))
    assert {each.how for each in found} <= {"one box", "attack"} and any(each.one_box for each in found)


def test_what_is_found_in_float32_counts_only_in_float64(net, right, monkeypatch):
    """A search that claims everything is contradicted by the exact bounds."""
    images, labels = right
    branch_rows = robnet_fx.BoundedModel.branch_rows

    def bold(self, pictures, rows, box):
        found = branch_rows(self, pictures, rows, box)
        claimed = torch.full_like(found.upper, -1.0) if self.center.dtype == torch.float32 else found.upper
        return Branch(claimed, found.form, found.const, found.pre)

    honest = decide(net, images, classification(labels, 10, torch.float32), limits=Limits(boxes=8))
    monkeypatch.setattr(robnet_fx.BoundedModel, "branch_rows", bold)
    found = decide(net, images, classification(labels, 10, torch.float32), limits=Limits(boxes=8))
    for mine, theirs in zip(honest, found, strict=True):
        assert theirs.answer in ("unknown", mine.answer) or mine.answer == "unknown"
        assert theirs.answer != "certified" or theirs.margin < 0
    assert any(each.answer == "certified" and each.boxes > 1 for each in found)  # not by what was claimed of the whole


def test_where_most_is_proved_the_exact_net_bounds_parts_at_once(net, right, monkeypatch):
    """The answers are the same, and fewer parts are bounded twice."""
    images, labels = right
    branch_rows, bounded = robnet_fx.BoundedModel.branch_rows, Counter()

    def counted(self, pictures, rows, box):
        bounded[self.center.dtype] += len(pictures)
        return branch_rows(self, pictures, rows, box)

    monkeypatch.setattr(robnet_fx.BoundedModel, "branch_rows", counted)
    found, parts = [], []
    for enough in (4, 10**9):
        monkeypatch.setattr(sample, "_ENOUGH", enough)
        bounded.clear()
        found.append(decide(net, images, classification(labels, 10, torch.float32), limits=Limits(boxes=96)))
        parts.append(dict(bounded))
    for one, other in zip(*found, strict=True):
        assert one.answer == other.answer or "unknown" in (one.answer, other.answer)
        assert one.answer != "certified" or one.margin < 0
    assert parts[0][torch.float32] < parts[1][torch.float32]
    assert sum(parts[0].values()) < sum(parts[1].values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_bounds_that_are_not_numbers_prove_nothing(net, right, monkeypatch, value):
    images, labels = right

    def poisoned(self, pictures, rows, box=None):
        return torch.full(rows.shape[:2], value, dtype=pictures.dtype)

    branch_rows = robnet_fx.BoundedModel.branch_rows

    def poisoned_too(self, pictures, rows, box):
        return branch_rows(self, pictures, rows, box)._replace(upper=poisoned(self, pictures, rows))

    monkeypatch.setattr(robnet_fx.BoundedModel, "upper_rows", poisoned)
    monkeypatch.setattr(robnet_fx.BoundedModel, "branch_rows", poisoned_too)
    found = decide(net, images, classification(labels, 10, torch.float32), limits=Limits(boxes=4))
    assert {each.answer for each in found} == {"falsified", "unknown"}


def test_time_is_shared_by_the_parts_of_a_batch(net, right, monkeypatch):
    images, labels = right
    clock = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    found = decide(net, images, classification(labels, 10, torch.float32), limits=Limits(seconds=1.0))
    stopped = [each for each in found if each.how == "time"]
    assert stopped and all(1 <= each.seconds < 2 for each in stopped)
    assert sum(each.seconds for each in found) == pytest.approx(next(clock) // 2, abs=1)


def test_ctrl_c_keeps_what_is_known_and_a_run_goes_on(net, monkeypatch):
    whole = certify(net, X, Y, limits=FEW)
    stop_after(monkeypatch, 9)
    with pytest.raises(Unfinished) as stopped:
        certify(net, X, Y, limits=FEW)
    monkeypatch.undo()
    part = stopped.value.certificate
    assert len(part.decisions) == 9 and part.document()["certified_accuracy"] < whole.certified_accuracy
    again = certify(net, X, Y, limits=FEW, known=part.decisions)
    assert without_time(again.decisions.values()) == without_time(whole.decisions.values())


class Bowl(nn.Module):
    """Two logits, [0, t] with t the mean of the image less a constant."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x):
        t = x.flatten(1).mean(1, keepdim=True) - self.level
        return torch.cat([torch.zeros_like(t), t], 1)


def contrast(level: float):
    """Contrast in [0.75, 1.25] of a grey image of 1/2: t runs from 3/8 - level to 5/8 - level."""
    net = robnet_fx.bound(Bowl(level).double(), BiasField(0, 0.25), example=torch.full((2, 1, 2, 2), 0.5).double())
    return net, torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)


def asked(rows, offset, group, strict) -> Question:
    return Question(
        torch.tensor([rows], dtype=torch.float64),
        torch.tensor([offset], dtype=torch.float64),
        torch.tensor(group),
        torch.tensor(strict),
    )


@pytest.mark.parametrize(
    ("level", "rows", "offset", "group", "strict", "answer"),
    [
        (0.7, [[-1, 1]], [0], [0], [False], "certified"),  # t < 0
        (0.5, [[-1, 1]], [0], [0], [False], "falsified"),
        (0.625, [[-1, 1]], [0], [0], [False], "falsified"),  # t = 0 at a corner: a tie
        (0.5, [[0, 1], [0, -1]], [-0.05, -0.05], [0, 0], [False, False], "certified"),  # t cannot be both
        (0.5, [[0, 1], [0, -1]], [-0.05, 0.1], [0, 0], [False, False], "falsified"),  # 0.05 <= t <= 0.1
        (0.5, [[0, 1], [0, -1]], [-0.2, -0.2], [0, 1], [False, False], "certified"),  # |t| < 0.2
        (0.5, [[0, 1], [0, -1]], [-0.05, -0.2], [0, 1], [True, True], "falsified"),
    ],
)
def test_any_question_in_disjunctive_form(level, rows, offset, group, strict, answer):
    net, image = contrast(level)
    (found,) = decide(net, image, asked(rows, offset, group, strict), limits=Limits(boxes=200))
    assert found.answer == answer


def test_a_strict_border_is_no_counterexample():
    net, image = contrast(0.625)
    (found,) = decide(net, image, asked([[-1, 1]], [0], [0], [True]), limits=Limits(boxes=200))
    assert found.answer == "unknown"  # t = 0 at a corner: not in the bad set, and no bound is below 0


def test_each_sample_may_have_its_own_box(net, right):
    images, labels = (each[:6] for each in right)
    scale = torch.tensor([[0.0], [0.1], [0.2], [0.5], [1.0], [1.0]])
    box = Box(net.center.expand(6, -1), net.radius * scale)
    question = classification(labels, 10, torch.float32)
    together = decide(net, images, question, limits=FEW, box=box)
    for i, found in enumerate(together):
        own = Box(*(end[i : i + 1] for end in box))
        (alone,) = decide(net, images[i : i + 1], question[slice(i, i + 1)], limits=FEW, box=own)
        assert (alone.answer, alone.boxes) == (found.answer, found.boxes)
    assert together[0].answer == "certified"
    with pytest.raises(UsageError, match="box"):
        decide(net, images, question, box=Box(net.center.expand(2, -1), net.radius.expand(2, -1)))


def test_a_point_that_no_bound_excludes_ends():
    """A box of one point at a tie of a strict question cannot be halved for ever."""
    net, image = contrast(0.5)
    box = Box(net.center.unsqueeze(0), torch.zeros(1, 1, dtype=torch.float64))
    (found,) = decide(net, image, asked([[-1, 1]], [0], [0], [True]), limits=Limits(boxes=100000), box=box)
    assert (found.answer, found.how) == ("unknown", "precision")


def test_batches_keep_to_the_memory_that_is_allowed(net, right, decisions):
    images, labels = right
    question = classification(labels, 10, torch.float32)
    needs = [of_verdicts(net.perturbed, *kind) for kind in ((0,), (16,), (16, "rsip"))]
    exact = robnet_fx.verify.convert.in_dtype(net, torch.float64)
    size = int(needs[1].of(3) / USABLE) + 100
    with at_most(size):
        levels = decision.levels(net, exact)
        assert levels[1].batch == 3
        assert all(need.of(level.batch) <= USABLE * size for need, level in zip(needs, levels, strict=True))
        found = decide(net, images, question, limits=FEW)
    assert without_margins(found) == without_margins(decisions)
    with (
        at_most(int(needs[0].of(1) / USABLE) + 100),
        pytest.raises(UsageError, match="one image with 16 symbols: they take some"),
    ):
        decide(net, images, question, limits=FEW)


def without_margins(found):
    return [replace(each, margin=0.0) for each in without_time(found)]


def test_what_a_larger_box_answers_is_not_worked_again(net, right, decisions):
    images, labels = right
    half = Box(net.center.unsqueeze(0), net.radius.unsqueeze(0) / 2)
    question = classification(labels, 10, torch.float32)
    alone = decide(net, images, question, limits=FEW, box=half)
    found = decide(net, images, question, limits=FEW, box=half, around=dict(enumerate(decisions)))
    for own, other, larger in zip(found, alone, decisions, strict=True):
        assert own.one_box == other.one_box
        if larger.answer == "certified":
            assert (own.answer, own.how) == ("certified", "one box" if own.one_box else "larger box")
            assert own.boxes == 1 and (own.one_box or own.margin == larger.margin)
        else:
            assert own.answer == other.answer
    assert any(each.how == "larger box" for each in found)
