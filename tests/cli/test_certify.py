"""Answers of `certify` written, checked again, and gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robnet_fx.cli.options import Effort
from robnet_fx.verify import Limits
from tests.cli.test_commands import document, fine
from tests.cli.test_errors import refused

HARD = ("--order", 1, "--eps", 200, "--limit", 12, "--boxes", 40)


def test_a_certificate_is_replayed_and_a_changed_one_refused(run, model):
    fine(run("certify", model, *HARD, "--leaves", "--out", "c.json", "--save-images", "turned"))
    found = json.loads(Path("c.json").read_text())
    answers = {sample["index"]: sample.get("answer") for sample in found["samples"]}
    assert set(answers.values()) >= {"certified", "falsified"}
    turned = sorted(int(path.stem) for path in Path("turned").iterdir())
    assert turned == sorted(index for index, answer in answers.items() if answer == "falsified")
    with Image.open(f"turned/{turned[0]}.png") as picture:
        assert np.asarray(picture).shape == (8, 8)

    again = fine(run("certify", model, *HARD, "--replay", "c.json"))
    assert "the certificate holds: 12 images" in again.stdout
    assert document(run("certify", model, *HARD, "--replay", "c.json", "--json"))["holds"]
    sample = next(sample for sample in found["samples"] if sample["certified"])
    sample["margin"] -= 1
    Path("changed.json").write_text(json.dumps(found))
    lines = refused(run("certify", model, *HARD, "--replay", "changed.json"), 1)
    assert "1 entries" in lines[0] and f"image {sample['index']}: margin" in lines[1]
    other = ("--order", 1, "--eps", 190, "--limit", 12)
    lines = refused(run("certify", model, *other, "--replay", "c.json"), 2)
    assert "about something else" in lines[0] and "box" in lines[1]


def test_ctrl_c_writes_what_is_known_and_resume_goes_on(run, model, monkeypatch):
    from robnet_fx.verify import decision as module

    whole = document(run("certify", model, *HARD, "--json"))
    answered, conclude = [], module._Work.conclude

    def interrupted(self, sample, how):
        answered.append(conclude(self, sample, how))
        if len(answered) == 5:
            raise KeyboardInterrupt
        return answered[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module._Work, "conclude", interrupted)
        stopped = run("certify", model, *HARD, "--out", "part.json")
    assert stopped.exit_code == 130 and "--resume part.json" in stopped.stderr
    part = json.loads(Path("part.json").read_text())
    assert sum("answer" in sample for sample in part["samples"]) == 5
    again = document(run("certify", model, *HARD, "--resume", "part.json", "--json"))
    for mine, theirs in zip(again["samples"], whole["samples"], strict=True):
        assert (mine.get("answer"), mine.get("boxes")) == (theirs.get("answer"), theirs.get("boxes"))


def test_other_verifiers_are_asked_the_same(run, model):
    field = ("--order", 0, "--eps", 200, "--limit", 3)
    found = document(run("certify", model, *field, "--vnnlib", "instances", "--json"))
    assert len(Path("instances/instances.csv").read_text().splitlines()) == 3
    words = {"certified": "holds", "falsified": "violated"}
    for sample in found["samples"]:
        files = [f"instances/{sample['index']}.{kind}" for kind in ("onnx", "vnnlib")]
        said = fine(run("verify", *files, "--boxes", 200)).stdout.split()[0]
        assert said == words.get(sample.get("answer"), "violated")


def test_the_usual_effort_is_ten_seconds():
    assert Effort().limits() == Limits(seconds=10.0)
    assert Effort(boxes=3).limits() == Limits(boxes=3)
    assert Effort(budget=0.5, boxes=3).limits() == Limits(0.5, 3)


@pytest.mark.parametrize(("option", "value"), [("--budget", -1), ("--budget", "inf"), ("--boxes", 0)])
def test_an_effort_that_is_none(run, model, option, value):
    (line,) = refused(run("certify", model, "--eps", 20, option, value), 2)
    assert option in line


@pytest.mark.parametrize("text", ["not json", "[]", '{"schema": "other"}'])
def test_what_is_no_certificate(run, model, text):
    Path("c.json").write_text(text)
    line = refused(run("certify", model, "--eps", 20, "--limit", 1, "--replay", "c.json"), 2)[0]
    assert "c.json" in line or "no certificate" in line
