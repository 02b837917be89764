"""The largest proved and the smallest falsified eps of an image: what certify says at both, as near as was looked."""

from __future__ import annotations

import itertools

import pytest
import torch

from robnet_fx import UsageError
from robnet_fx.verify import Largest, Limits, bisection, certify, largest
from tests.small import bounded, digits

X, Y = digits()
X, Y = X[1500:1560], Y[1500:1560]
EPS, MANY = 0.6, Limits(boxes=1000)


@pytest.fixture(scope="module")
def net():
    return bounded(eps=EPS, fit=200).by("rsip-ssip", 16)


@pytest.fixture(scope="module")
def some(net):
    """Images of all answers, one of them wrong, and their answers."""
    whole = certify(net, X, Y, limits=Limits(boxes=40))
    chosen = [who.nonzero().squeeze(1)[:3] for who in (whole.certified, whole.falsified, ~whole.correct)]
    index = torch.cat(chosen).sort().values
    return X[index], Y[index], certify(net, X[index], Y[index], limits=MANY)


@pytest.fixture(scope="module")
def found(net, some):
    images, labels, whole = some
    return largest(net, images, labels, limits=MANY, known=whole.decisions)


def test_every_right_image_is_bisected(some, found):
    _, _, whole = some
    assert [*found] == whole.correct.nonzero().squeeze(1).tolist() and not whole.correct.all()
    for number, each in found.items():
        answer = whole.decisions[number].answer
        assert (each.proved == EPS) == (each.falsified is None) == (answer == "certified")
        if answer == "falsified":
            assert 0 < each.falsified - (each.proved or 0) <= 1 / 510  # nothing stays unknown on this network


def test_certify_agrees_at_both_ends(net, some, found):
    images, labels, _ = some
    for number, each in found.items():
        one = images[number : number + 1], labels[number : number + 1]
        for eps, answer in ((each.proved, "certified"), (each.falsified, "falsified")):
            if eps is not None:
                net.set_eps(eps)
                assert certify(net, *one, limits=MANY).decisions[0].answer == answer
    net.set_eps(EPS)


def test_answers_at_the_largest_eps_need_not_be_known(net, some, found):
    images, labels, _ = some
    again = largest(net, images[:2], labels[:2], limits=MANY)
    assert again == {number: found[number] for number in again} and net.eps == EPS


def test_with_few_boxes_something_stays_unknown(net, some, found):
    images, labels, _ = some
    few = largest(net, images, labels, limits=Limits(boxes=1))
    for number, each in few.items():
        assert (each.proved or 0) <= (found[number].proved or 0)
        assert each.falsified is None or each.falsified >= found[number].falsified
    assert any((each.proved or 0) < (found[n].proved or 0) for n, each in few.items())


def test_limits_are_shared_over_the_steps(net, some, monkeypatch):
    images, labels, whole = some
    asked, real = [], bisection.decide

    def counted(net, pictures, question, *, limits, box, exact):
        asked.append((len(pictures), limits))
        assert len(box.radius) == len(pictures)
        return real(net, pictures, question, limits=limits, box=box, exact=exact)

    monkeypatch.setattr(bisection, "decide", counted)
    largest(net, images, labels, limits=Limits(seconds=38.0, boxes=190), known=whole.decisions)
    assert {limits for _, limits in asked} == {Limits(2.0, 10)}  # 0.6 is 9 halvings of half a pixel level
    assert asked[0][0] == int(whole.falsified.sum()) and 9 <= len(asked) <= 19


@pytest.mark.parametrize("top", [16, 128])
def test_a_ladder_finds_both_ends_wherever_they_are(top):
    for proved, falsified in itertools.combinations(range(top + 2), 2):
        ladder, tries = bisection._Ladder(top, top + 1), 0
        while (step := ladder.next()) is not None:
            ladder.learn(step, "certified" if step <= proved else "falsified" if step >= falsified else "unknown")
            tries += 1
        assert (ladder.proved, ladder.falsified) == (proved, falsified)
        assert tries <= 2 * (top.bit_length() - 1) + 1


def test_a_proof_above_what_was_tried_in_vain_is_used():
    """A time limit may give up at a step and not at the next."""
    ladder = bisection._Ladder(16, 17)
    for step, answer in ((16, "falsified"), (8, "unknown"), (4, "unknown")):
        ladder.learn(step, answer)
    ladder.learn(12, "certified")
    assert ladder.next() == 14
    ladder.learn(14, "unknown")
    ladder.learn(13, "falsified")
    assert ladder.next() is None and ladder.largest([0.0] * 17) == Largest(0.0, 0.0)


def test_what_cannot_be_bisected(net):
    with pytest.raises(UsageError):
        largest(net, X[:3], Y[:2])
    net.set_eps(0)
    try:
        assert {(each.proved, each.falsified) for each in largest(net, X[:3], Y[:3]).values()} == {(0, None)}
    finally:
        net.set_eps(EPS)
