"""Judging in parts: what the whole certificate says, and nothing twice."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from robnet_fx.machine.progress import SILENT
from robnet_fx.reproduce import judging
from robnet_fx.reproduce.judging import judge, shares
from robnet_fx.verify.certificate import certify
from robnet_fx.verify.search import Limits
from tests.small import bounded, digits

LIMITS = Limits(boxes=4)


@pytest.fixture
def worked(monkeypatch):
    """How many images each part had that was worked, in parts of 8."""
    counts = []

    def counting(net, images, labels, **rest):
        counts.append(len(images))
        return certify(net, images, labels, **rest)

    monkeypatch.setattr(judging, "ON_CPU", 8)
    monkeypatch.setattr(judging, "certify", counting)
    return counts


def lasting(samples):
    return [{name: sample.get(name) for name in ("index", "correct", "answer", "how", "boxes")} for sample in samples]


def test_parts_say_what_the_whole_says_and_are_not_worked_again(worked, tmp_path):
    images, labels = (part[:20] for part in digits())
    net = bounded(fit=200, eps=0.6)
    whole = certify(net, images, labels, limits=LIMITS).document()
    found = judge(net, images, labels, LIMITS, tmp_path, SILENT)
    assert lasting(found) == lasting(whole["samples"])
    assert {sample.get("answer") for sample in found} >= {"certified", "falsified"}
    assert shares(found) == {name: whole[name] for name in shares(found)}
    assert worked == [8, 8, 4]
    assert judge(net, images, labels, LIMITS, tmp_path, SILENT) == found and worked == [8, 8, 4]


class Bars:
    """Every bar that is opened, with what is told beside it."""

    def __init__(self):
        self.opened = []

    @contextmanager
    def task(self, name, total):
        self.opened.append((name, total))
        self.done, self.told = 0, []
        yield self

    def advance(self, steps=1, **figures):
        self.done += steps
        self.told.append(figures)


def test_one_bar_tells_what_is_done_with_each_part(worked, tmp_path):
    images, labels = (part[:12] for part in digits())
    bars = Bars()
    bars.remark = None
    judge(bounded(fit=200, eps=0.6), images, labels, LIMITS, tmp_path, bars)
    assert bars.opened == [("judging", 12)] and bars.done == 12
    parts = [figures["part"] for figures in bars.told if "part" in figures]
    assert {part.split()[0] for part in parts} == {"bounding", "attacking", "splitting"}
    assert [figures["certified"] for figures in bars.told if "certified" in figures][-1] > 0


def test_what_is_about_something_else_is_worked_anew(worked, tmp_path):
    images, labels = (part[:12] for part in digits())
    net = bounded(fit=200, eps=0.6)
    judge(net, images, labels, LIMITS, tmp_path, SILENT)
    (tmp_path / "8.json").write_text("damaged")
    judge(net, images, labels, LIMITS, tmp_path, SILENT)
    assert worked == [8, 4, 4]
    judge(net, images, labels, Limits(boxes=1), tmp_path, SILENT)
    net.set_eps(0.3)
    judge(net, images, labels, Limits(boxes=1), tmp_path, SILENT)
    assert worked == [8, 4, 4, 8, 4, 8, 4]
