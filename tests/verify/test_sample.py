"""What a sample's parts tell of the ways to prove them, and that the dearest way proves what is true."""

import math

import pytest
import torch

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.verify import Limits, certify, sample
from robnet_fx.verify.parts import Node, Part
from robnet_fx.verify.replay import replay
from robnet_fx.verify.sample import Sample, Task, halvings, learn, pays
from tests.small import bounded, digits

X, Y = digits()
X, Y = X[1500:1530], Y[1500:1530]


def task(own, ratios, before=None, times=1):
    return Task(own, Part.whole(3), Node(), max(ratios), ratios=ratios, before=before or {}, halvings=times)


def test_what_a_halving_brings_is_learnt_at_the_dearest_level_that_both_have():
    own = Sample(0)
    own.begin([task(own, {0: 500.0, 1: 4.0}, {0: 600.0, 1: 64.0}, 2), task(own, {1: 1.0, 2: 0.5}, {1: 2.0})])
    learn(own)
    assert own.gain == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert own.dear == pytest.approx(math.log(2))


def test_nothing_is_learnt_from_what_is_no_number():
    own = Sample(0)
    before = own.gain
    own.begin([task(own, {0: math.inf}, {0: 3.0}), task(own, {0: 3.0}, {0: math.inf}), task(own, {0: 2.0})])
    learn(own)
    assert own.gain == before and own.dear is None


def test_a_part_is_halved_as_often_as_its_sample_needs():
    own = Sample(0, rounds=2)
    for gain, ratio, times in [(math.log(4), 15.0, 2), (math.log(2), 15.0, 4), (math.log(4), 1.01, 1), (0.1, 1e9, 4)]:
        own.gain = gain
        assert halvings(task(own, {1: ratio}), 2) == times
        assert halvings(task(Sample(0, rounds=1, gain=gain), {1: ratio}), 2) == min(2, times)  # the whole box
    assert halvings(task(own, {1: math.inf}), 2) == halvings(task(own, {1: 1.0}), 2) == 1


def test_a_part_is_halved_until_the_dearest_level_reaches_it():
    own = Sample(0, rounds=2, gain=math.log(1.3), dear=math.log(2.6))
    assert own.reach == pytest.approx(math.log(2.6))
    within = 0.9 * math.log(2.6)
    for ratio in (1.1, 2.6, 4.0, 6.0):
        expected = max(1, min(4, math.ceil((math.log(ratio) - within) / math.log(1.3))))
        assert halvings(task(own, {1: ratio}), 2) == expected
    assert halvings(task(own, {2: 2.0}), 2) == 3  # what the dearest level has not proved needs all of it
    own.gain = math.log(4.0)
    assert own.reach == 0 and halvings(task(own, {1: 17.0}), 2) == 3


def test_what_levels_find_counts_once_and_from_the_next_round_on():
    own = Sample(0)
    parts = [task(own, {0: 9.0}) for _ in range(20)]
    for number, part in enumerate(parts):
        part.count(True)  # at level 0 they have been bounded before: another net confirms
        part.level = 1
        part.count(number < 11)
        part.ratios[1] = 1.0
        part.count(False)
        part.level = 2
        part.count(number < 10)
        part.level = 3
        part.count(number == 0)
    assert own.tried == {1: 20, 2: 20, 3: 20} and own.succeeded == {1: 11, 2: 10, 3: 1}
    assert not own.idle and not own.sure
    own.begin([])
    assert own.idle == {3} and own.sure == {1}


def test_what_has_not_been_bounded_is_put_back():
    own = Sample(0)
    parts = [Task(own, Part.whole(3), Node()), task(own, {0: 9.0})]
    own.begin(parts)
    for part in parts:
        own.put_back(part)
    assert own.open == parts and own.waiting == 0 and own.boxes == 1  # one has been, at the cheapest level


def test_few_parts_make_no_level_sure():
    own = Sample(0)
    for _ in range(3):
        task(own, {0: 9.0}).count(True)
        part = task(own, {0: 9.0})
        part.level = 1
        part.count(True)
    own.begin([])
    assert not own.sure
    part = task(own, {0: 9.0})
    part.level = 1
    part.count(True)
    own.begin([])
    assert own.sure == {1}


def test_the_dearest_level_is_tried_on_a_few_parts_of_what_is_hard():
    own, easy = Sample(0, gain=math.log(1.3)), Sample(0, gain=math.log(4.0))
    for rounds in range(4):
        own.begin([])
        easy.begin([])
        assert not pays(task(easy, {1: 2.0}))
        assert not pays(task(own, {1: 50.0})) and not pays(task(own, {1: 1.0}))
        assert [pays(task(own, {1: 2.0})) for _ in range(6)] == [rounds >= 2 and i < 4 for i in range(6)]


def test_the_dearest_level_pays_where_it_proves_what_more_halves_would():
    own = Sample(0, gain=math.log(1.3), dear=math.log(2.4))
    assert [pays(task(own, {1: ratio})) for ratio in (1.1, 1.8, 2.3, 2.5, math.inf)] == [
        False,
        True,
        True,
        False,
        False,
    ]
    easy = Sample(0, gain=math.log(4.0), dear=math.log(2.4))
    assert not any(pays(task(easy, {1: ratio})) for ratio in (1.1, 2.3, 20.0, 300.0))


def test_proofs_of_the_dearest_level_hold(monkeypatch):
    """It is made to pay from the start: it proves parts, its leaves are checked, and no answer becomes another one."""
    net = bounded(eps=0.6, fit=200).by("rsip-ssip", 4)
    limits = Limits(boxes=48)
    usual = certify(net, X, Y, limits=limits)
    monkeypatch.setattr(sample, "_PATIENCE", 0)
    monkeypatch.setattr(sample, "_DEARER", 0.5)
    made = []
    by = BoundedModel.by
    monkeypatch.setattr(BoundedModel, "by", lambda net, *kind: made.append(kind) or by(net, *kind))
    found = certify(net, X, Y, limits=limits)
    assert ("rsip", 4) in made
    levels = {level for each in found.decisions.values() for level in each.tree if level < -1}
    assert -4 in levels  # level 2, the third
    assert replay(found.document(leaves=True), net, X, Y) == sum(
        level < -1 for each in found.decisions.values() if each.answer == "certified" for level in each.tree
    )
    for number, decision in found.decisions.items():
        if "unknown" not in (decision.answer, usual.decisions[number].answer):
            assert decision.answer == usual.decisions[number].answer
    assert int(found.certified.sum()) >= int(usual.certified.sum()) > 0
    assert torch.equal(found.correct, usual.correct)
