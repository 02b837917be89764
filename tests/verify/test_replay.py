"""A certificate holds when it is checked again, and any change in it is found and named."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch

from robnet_fx import RobnetError, UsageError
from robnet_fx.verify import Limits, certify
from robnet_fx.verify.replay import known, replay
from tests.small import bounded, digits

X, Y = digits()
X, Y = X[1500:1520], Y[1500:1520]


def judge():
    return bounded(eps=0.7, fit=200).by("rsip-ssip", 16)


@pytest.fixture
def net():
    return judge()


@pytest.fixture(scope="module")
def written():
    net = judge()
    found = certify(net, X, Y, limits=Limits(boxes=3))
    assert found.certified.any() and found.falsified.any() and found.unknown.any()
    return json.loads(found.to_json(leaves=True))


def first(document, test):
    return next(sample for sample in document["samples"] if test(sample))


def split(sample):
    return sample.get("how") == "split"


def falsified(sample):
    return sample.get("answer") == "falsified"


def test_what_was_written_holds(net, written):
    leaves = sum(sum(n < -1 for n in sample["leaves"]) for sample in written["samples"] if sample["certified"])
    assert replay(written, net, X, Y) == leaves > 10


def swapped(sample):
    """A proof with a part left out: a half is said to be the whole of what it is a half of."""
    at = next(place for place, number in enumerate(sample["leaves"]) if number >= 0)
    sample["leaves"] = [*sample["leaves"][:at], -3]


CHANGES = {
    "leaf is not proved": lambda d: first(d, split).update(leaves=[-2]),
    "leaf is open": lambda d: first(d, split).update(leaves=[-1]),
    "no tree of halves": lambda d: first(d, split)["leaves"].append(-2),
    "ends before": lambda d: first(d, split)["leaves"].pop(),
    "level 7 that there is not": lambda d: first(d, split).update(leaves=[-9]),
    "margin .* there": lambda d: first(d, split).update(margin=first(d, split)["margin"] - 0.1),
    "margin .* here": lambda d: first(d, falsified).update(margin=9.0),
    "outside the box": lambda d: first(d, falsified)["coefficients"].__setitem__(1, 3.0),
    "leave the answer right": lambda d: first(d, falsified).update(coefficients=[1, 0, 0, 0]),
    "3 coefficients there": lambda d: first(d, falsified)["coefficients"].pop(),
    "contradict": lambda d: first(d, falsified).update(certified=True),
    "predicted": lambda d: d["samples"][0].update(predicted=(d["samples"][0]["predicted"] + 1) % 10),
    "label": lambda d: d["samples"][0].update(label=(d["samples"][0]["label"] + 1) % 10),
    "certified_accuracy": lambda d: d.update(certified_accuracy=1.0),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_changed_answer_is_named(net, written, message):
    document = copy.deepcopy(written)
    CHANGES[message](document)
    with pytest.raises(RobnetError, match=message):
        replay(document, net, X, Y)


def test_a_part_that_is_left_out_is_found(net, written):
    """Whatever is taken from a tree, its leaves are the whole box: a shorter tree has larger leaves."""
    document = copy.deepcopy(written)
    swapped(first(document, split))
    with pytest.raises(RobnetError):
        replay(document, net, X, Y)


ELSE = {
    "box": lambda d: d["box"]["radius"].__setitem__(0, 0.5),
    "model_sha256.weights": lambda d: d["model_sha256"].update(weights="0"),
    "data_sha256": lambda d: d.update(data_sha256="0"),
    "clip": lambda d: d.update(clip="clamp"),
    "method": lambda d: d.update(method="rsip"),
    "symbols": lambda d: d.update(symbols=0),
    "samples": lambda d: d["samples"].pop(),
}


@pytest.mark.parametrize("name", ELSE)
@pytest.mark.parametrize("check", [known, replay])
def test_a_certificate_about_something_else_is_refused(net, written, name, check):
    document = copy.deepcopy(written)
    ELSE[name](document)
    with pytest.raises(UsageError, match=f"something else\n  {name}: .* there, .* here"):
        check(document, net, X, Y)


def test_a_changed_weight_image_and_eps_are_refused(net, written):
    other = bounded(eps=0.7, fit=200, seed=0).by("rsip-ssip", 16)
    with torch.no_grad():
        other.model[0].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(UsageError, match="model_sha256"):
        replay(written, other, X, Y)
    changed = X.clone()
    changed[3, 0, 4, 4] ^= 1
    with pytest.raises(UsageError, match="data_sha256"):
        replay(written, net, changed, Y)
    moved = bounded(eps=0.5, fit=200).by("rsip-ssip", 16)
    with pytest.raises(UsageError, match="box"):
        replay(written, moved, X, Y)


def test_what_is_no_certificate_is_refused(net):
    for document in ({}, {"schema": "robnet-fx/record", "command": "check"}):
        with pytest.raises(UsageError, match="no certificate"):
            replay(document, net, X, Y)


def test_a_certificate_without_leaves_says_how_to_get_them(net, written):
    document = copy.deepcopy(written)
    del first(document, split)["leaves"]
    with pytest.raises(UsageError, match="--leaves"):
        replay(document, net, X, Y)


def test_answers_are_read_as_they_were_written(net, written):
    found = known(written, net, X, Y)
    answered = [i for i, s in enumerate(written["samples"]) if s.get("answer") in ("certified", "falsified")]
    assert list(found) == answered
    again = certify(net, X, Y, limits=Limits(boxes=3), known=found)
    mine, theirs = json.loads(again.to_json(leaves=True))["samples"], written["samples"]
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        assert all(a[key] == b[key] for key in a.keys() - {"seconds", "margin"})
        both = [math.nan if each["margin"] is None else each["margin"] for each in (a, b)]
        assert both[0] == pytest.approx(both[1], rel=1e-3, nan_ok=True)  # of unknown ones in float32, batch by batch
