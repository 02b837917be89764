"""Answers of `certify` written, checked again, and gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robnet_fx.cli.options import Effort
from robnet_fx.interchange.vnnlib import write_vnnlib
from robnet_fx.verify import Limits
from tests.cli.test_commands import document, fine
from tests.cli.test_errors import refused
from tests.stops import stop_after

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


CURVE = ("--order", 1, "--eps", "250,120,200", "--limit", 12, "--boxes", 40)


def test_several_strengths_have_a_line_each(run, model):
    shown = fine(run("certify", model, *CURVE, "--leaves", "--out", "c.json", "--save-images", "turned"))
    lines = [line.split() for line in shown.stdout.splitlines()]
    found = json.loads(Path("c.json").read_text())["curve"]
    for levels, line in zip((120, 200, 250), found, strict=True):
        assert line["eps"] == levels / 255
        shares = [line[f"{name}_accuracy"] for name in ("clean", "attacked", "certified", "one_box")]
        assert shares == sorted(shares, reverse=True)
        assert [str(levels), *(f"{share:.1%}" for share in (*shares, line["unknown"]))] in lines
        turned = sorted(int(path.stem) for path in Path(f"turned/{levels}").iterdir())
        assert turned == [each["index"] for each in line["samples"] if each.get("answer") == "falsified"]
    assert found[0]["certified_accuracy"] > found[2]["certified_accuracy"]
    alone = document(run("certify", model, *HARD, "--json"))
    assert {key: value for key, value in found[1].items() if key != "samples"}.items() <= alone.items()

    assert document(run("certify", model, *CURVE, "--replay", "c.json", "--json"))["images"] == 12
    lines = refused(run("certify", model, *HARD, "--replay", "c.json"), 2)
    assert "about something else" in lines[0] and "eps" in lines[1]
    again = document(run("certify", model, *HARD, "--resume", "c.json", "--json"))
    assert again["certified_accuracy"] == found[1]["certified_accuracy"] and "curve" not in again


def test_noise_has_a_curve_too_and_instances_in_folders(run, model):
    found = document(run("certify", model, "--noise", "2,4", "--limit", 4, "--boxes", 4, "--vnnlib", "i", "--json"))
    assert [line["box"]["radius"][0] for line in found["curve"]] == [2 / 255, 4 / 255]
    for levels in (2, 4):
        assert len(Path(f"i/{levels}/instances.csv").read_text().splitlines()) == 4


def test_the_largest_eps_of_each_image(run, model):
    few = ("--order", 1, "--limit", 5, "--boxes", 2000)
    shown = fine(run("certify", model, *few, "--eps", 200, "--largest", "--out", "c.json")).stdout
    assert "proved up to" in shown and "median" in shown
    samples = json.loads(Path("c.json").read_text())["samples"]
    for sample in samples:
        assert ("largest" in sample) == sample["correct"]
        if sample["correct"]:
            ends = sample["largest"]
            assert (ends["proved"] == 200 / 255) == (ends["falsified"] is None) == sample["certified"]
    turned = min((each for each in samples if each.get("answer") == "falsified"), key=lambda each: each["index"])
    for end, answer in (("proved", "certified"), ("falsified", "falsified")):
        eps = f"{turned['largest'][end] * 100!r}%"
        again = document(run("certify", model, *few, "--eps", eps, "--json"))["samples"]
        assert next(each for each in again if each["index"] == turned["index"])["answer"] == answer


def test_ctrl_c_while_images_are_bisected_keeps_the_answers(run, model, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("robnet_fx.verify.bisection.largest", interrupted)
    field = ("--order", 1, "--eps", 200, "--limit", 5, "--boxes", 1)
    stopped = run("certify", model, *field, "--largest", "--out", "c.json")
    assert stopped.exit_code == 130 and "--largest unfinished" in stopped.stderr and "--resume c.json" in stopped.stderr
    samples = json.loads(Path("c.json").read_text())["samples"]
    assert all(("answer" in each) == each["correct"] and "largest" not in each for each in samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("certify", "--eps", "5,10", "--largest"), "--largest looks at every strength up to one"),
        (("certify", "--eps", 5, "--largest", "--replay", "c.json"), "--largest writes none"),
        (("certify", "--eps", "5,,10"), "--eps takes pixel levels"),
        (("certify", "--eps", "5,300"), "--eps must lie between"),
        (("certify", "--eps", "5,10", "--noise", 2), "different perturbations"),
        (("attack", "--eps", "5,10"), "--eps takes one strength here"),
        (("robustify", "--noise", "5,10"), "--noise takes one strength here"),
        (("check", "--eps", "5,10"), "--eps takes one strength here"),
        (("inspect", "--image", 0, "--eps", "5,10"), "--eps takes one strength here"),
        (("certify", "--eps", 5, "--memory", "much"), "--memory takes a size"),
        (("certify", "--eps", 5, "--symbols", 4000, "--memory", "1MB"), "--memory is too little for the bounds of one"),
    ],
)
def test_strengths_and_memory_that_do_not_go(run, model, options, message):
    command, *rest = options
    (line,) = refused(run(command, model, *rest), 2)
    assert message in line


def test_a_box_that_leaves_out_the_image_cannot_be_bisected(run, model):
    Path("box.json").write_text('{"order": 0, "multiplicative": [[1.1, 1.3]]}')
    line = refused(run("certify", model, "--box", "box.json", "--limit", 3, "--boxes", 1, "--largest"), 2)[0]
    assert "is no part of the one at" in line
    Path("box.json").write_text('{"order": 0, "multiplicative": [[1, 1.3]]}')
    found = document(run("certify", model, "--box", "box.json", "--limit", 3, "--boxes", 1, "--largest", "--json"))
    assert any(sample.get("largest") for sample in found["samples"])


def test_symbols_keep_to_the_memory_that_is_allowed(run, model):
    write_vnnlib("p.vnnlib", torch.zeros(64), torch.ones(64), 0, 10)
    assert document(run("verify", model, "p.vnnlib", "--boxes", 1, "--memory", "2MB", "--json"))["symbols"] < 4096
    field = ("--order", 1, "--eps", 120, "--limit", 5, "--boxes", 20, "--json")
    plenty, little = (document(run("certify", model, *field, *memory)) for memory in ((), ("--memory", "2MB")))
    assert plenty["symbols"] == 4096 and little["symbols"] < 4096
    answers = [[sample.get("answer") for sample in each["samples"]] for each in (plenty, little)]
    assert answers[0] == answers[1]


def test_ctrl_c_writes_what_is_known_and_resume_goes_on(run, model, monkeypatch):
    whole = document(run("certify", model, *HARD, "--json"))
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
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
