"""Answers at several strengths: those of each by itself, shared where boxes lie in each other, and written as one."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace

import pytest
import torch

import robnet_fx
from robnet_fx import BiasField, Box, RobnetError, UsageError
from robnet_fx.algebra.logits import worst_margin
from robnet_fx.verify import Limits, Unfinished, certify, curve, decision
from robnet_fx.verify import curves as module
from robnet_fx.verify.replay import known_at, replay_at
from tests.small import bounded, digits, plain_net

X, Y = digits()
X, Y = X[1500:1540], Y[1500:1540]
EPS = [0.2, 0.4, 0.7]
LIMITS = Limits(boxes=40)
FIGURES = ("clean_accuracy", "attacked_accuracy", "certified_accuracy", "one_box_accuracy")


@pytest.fixture
def net():
    return bounded(eps=0.7, fit=200).by("rsip-ssip", 16)


@pytest.fixture(scope="module")
def found():
    return curve(bounded(eps=0.7, fit=200).by("rsip-ssip", 16), X, Y, EPS[::-1], limits=LIMITS)


@pytest.fixture
def written(found):
    return json.loads(json.dumps(module.document(found, leaves=True)))


def test_each_line_is_what_certify_finds_at_its_eps(net, found):
    for eps, line in zip(EPS, found, strict=True):
        net.set_eps(eps)
        alone = certify(net, X, Y, limits=LIMITS)
        assert [getattr(line, name) for name in FIGURES] == [getattr(alone, name) for name in FIGURES]
        answers = [{n: (each.answer, each.one_box) for n, each in one.decisions.items()} for one in (line, alone)]
        assert answers[0] == answers[1]
        assert line.about["eps"] == eps and line.about["box"] == alone.about["box"]


def test_answers_are_shared_along_nested_boxes(found):
    for smaller, larger in itertools.pairwise(found):
        assert not (larger.certified & ~smaller.certified).any() and not (smaller.falsified & ~larger.falsified).any()
        shared = {n for n, each in smaller.decisions.items() if each.how == "larger box"}
        assert shared and all(larger.decisions[n].answer == "certified" for n in shared)
        assert all(smaller.decisions[n].boxes == 1 and not smaller.decisions[n].tree for n in shared)
        assert larger.certified_accuracy <= smaller.certified_accuracy
    assert found[-1].falsified.any() and all(each.how != "larger box" for each in found[-1].decisions.values())


@torch.no_grad()
def test_no_point_turns_what_a_larger_box_certifies(net, found):
    net.set_eps(EPS[1])
    t = torch.rand(2000, len(net.center), generator=torch.Generator().manual_seed(0)) * 2 - 1
    t = torch.cat([t, t.sign()])
    for number, each in found[1].decisions.items():
        if each.how == "larger box":
            pictures = (X[number].float() / 255).expand(len(t), -1, -1, -1)
            logits = net.perturbed(net.center + net.radius * t, pictures)
            assert float(worst_margin(logits, Y[number].expand(len(t))).max()) <= each.margin < 0


def test_what_turns_an_image_in_a_small_box_answers_the_unknown_of_a_larger(found):
    first = next(n for n, each in found[-1].decisions.items() if each.answer == "falsified")
    turned = found[-1].decisions[first]
    unknown = replace(turned, answer="unknown", how="boxes", point=None)
    small = replace(found[0], decisions={first: turned})
    larger = [replace(found[0], decisions={first: each}) for each in (unknown, replace(turned, how="corner"))]
    agreed = module._agreed([small, larger[0], larger[0]])
    assert all(each.decisions[first] is turned for each in agreed)
    assert module._agreed([small, larger[1]])[1].decisions[first].how == "corner"  # its own is kept
    assert module._agreed([larger[0], small])[0].decisions[first] is unknown


def test_boxes_that_are_not_nested_are_refused():
    with pytest.warns(UserWarning, match="leaves out the unperturbed image"):
        away = robnet_fx.bound(plain_net(), BiasField(0, 0.1, [(1.05, 1.1)]), example=torch.rand(2, 1, 8, 8))
    with pytest.raises(UsageError, match=r"no part of the one at 0\.1"):
        curve(away, X, Y, [0.05, 0.1])
    touching = robnet_fx.bound(plain_net(), BiasField(0, 0.3, [(1, 1.3)]), example=torch.rand(2, 1, 8, 8))
    module.check_nested(touching, [step / 1000 for step in range(1000)])


@pytest.mark.parametrize("eps", [[], [0.1, 2.0], [-0.1]])
def test_strengths_that_are_none(net, eps):
    with pytest.raises(UsageError, match="eps"):
        curve(net, X, Y, eps)


def test_the_net_keeps_its_eps(net):
    net.set_eps(0.1)
    radius = net.radius.clone()
    curve(net, X[:2], Y[:2], [0.05, 0.2], limits=Limits(boxes=1))
    assert net.eps == 0.1 and torch.equal(net.radius, radius)


def test_ctrl_c_keeps_the_lines_that_were_begun(net, found, monkeypatch):
    count, real = [0], decision._Work.answered

    def interrupted(self, number, each):
        real(self, number, each)
        count[0] += 1
        if count[0] == len(found[-1].decisions) + 5:  # in the second line
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decision._Work, "answered", interrupted)
        with pytest.raises(Unfinished) as stopped:
            curve(net, X, Y, EPS, limits=LIMITS)
    lines = stopped.value.curve
    assert [line.about["eps"] for line in lines] == EPS[1:] and len(lines[0].decisions) >= 5
    document = json.loads(json.dumps(module.document(lines, leaves=True)))
    known = known_at(document, net, X, Y, EPS)
    assert [*known] == EPS[1:] and all(each.how != "larger box" for each in known[EPS[1]].values())
    again = curve(net, X, Y, EPS, limits=LIMITS, known=known)
    for one, two in zip(again, found, strict=True):
        assert [each.answer for each in one.decisions.values()] == [each.answer for each in two.decisions.values()]


def test_the_record_of_a_curve_is_that_of_its_lines(found, written):
    assert [line["eps"] for line in written["curve"]] == EPS
    assert {"model_sha256", "data_sha256", "images", "limits", "clip", "method", "versions"} <= written.keys()
    assert not {"eps", "box", "samples", "certified_accuracy", "unknown"} & written.keys()
    for line, certificate in zip(module.lines(written), found, strict=True):
        own = json.loads(certificate.to_json(leaves=True))
        assert line == own | {"curve": line.get("curve")} if "curve" in line else line == own
    (only,) = module.lines(own)
    assert only == own


def test_a_curve_is_replayed(net, written):
    assert replay_at(written, net, X, Y, EPS) > 10 and net.eps == 0.7
    (one,) = module.lines(written)[-1:]
    assert replay_at(one, net, X, Y, EPS[-1:]) > 10


def shared(line):
    return next(sample for sample in line["samples"] if sample.get("how") == "larger box")


def own(line):
    return next(sample for sample in line["samples"] if sample.get("how") == "split")


CHANGES = {
    "no larger box has this answer": lambda lines: own(lines[2]).update(how="larger box"),
    "no larger box": lambda lines: shared(lines[1]).update(margin=shared(lines[1])["margin"] - 1),
    "a leaf is not proved": lambda lines: own(lines[2]).update(leaves=[-2]),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_changed_line_is_named(net, written, message):
    CHANGES[message](written["curve"])
    with pytest.raises(RobnetError, match=message):
        replay_at(written, net, X, Y, EPS)


def test_other_strengths_are_refused(net, written):
    for eps in (EPS[1:], EPS[-1:], [0.1, *EPS[1:]]):
        with pytest.raises(UsageError, match="something else\n  eps: "):
            replay_at(written, net, X, Y, eps)
    moved = copy.deepcopy(written)
    moved["curve"][2]["box"]["radius"][0] = 0.6
    for check in (replay_at, known_at):
        with pytest.raises(UsageError, match="something else\n  box: "):
            check(moved, net, X, Y, EPS)
    with pytest.raises(UsageError, match="something else\n  box: "):
        known_at(written, net, X, Y, [0.3])


def test_a_box_is_a_part_of_itself(net):
    center, radius = (end.double().unsqueeze(0) for end in Box(net.center, net.radius))
    assert center.shape == radius.shape
    module.check_nested(net, [0.3, 0.3])
