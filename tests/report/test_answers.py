"""The page about certificates: every figure is the record's, strings are text, it reads on any screen and on paper."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch

from robnet_fx import BiasField, Limits, WhiteNoise, bound, certify
from robnet_fx.report.answers import answers_page
from robnet_fx.report.answers.case import Case, focus
from robnet_fx.report.answers.overview import headline, parts
from robnet_fx.report.answers.triptychs import drawn
from robnet_fx.verify.triptych import OF_EACH, Triptych, View, chosen, triptychs
from tests.pages import self_contained
from tests.small import bounded, digits

PERTURBATIONS = {
    "field": BiasField(1, 0.7),
    "added": BiasField(1, 0.25, additive=True),
    "noise": WhiteNoise(0.06),
}


def a_case(perturbation, boxes: int = 6) -> Case:
    images, labels = (each[:40] for each in digits())
    net = bound(bounded(fit=200).model, perturbation, example=images[:2] / 255)
    record = certify(net, images, labels, limits=Limits(boxes=boxes)).document()
    record |= {"model": "<b>net</b>.onnx", "data": 'a "set" & more', "data_notes": ["read <so>"]}
    return Case("<i>one</i>", record, None, "robnet-fx certify '<script>'", drawn(triptychs(net, images, record)))


@pytest.fixture(scope="module")
def cases():
    return {name: a_case(perturbation) for name, perturbation in PERTURBATIONS.items()}


@pytest.fixture(scope="module")
def curve(cases):
    """The record that one command writes about several strengths, with each image's largest."""
    record = json.loads(json.dumps(cases["field"].record))
    own = ("eps", "box", "clean_accuracy", "attacked_accuracy", "certified_accuracy", "one_box_accuracy", "unknown")
    first = {key: record.pop(key) for key in (*own, "samples")}
    second = copy.deepcopy(first) | {
        "eps": 0.1,
        "certified_accuracy": 0.5,
        "attacked_accuracy": 0.625,
        "unknown": 0.125,
    }
    for number, sample in enumerate(first["samples"]):
        proved = None if number == 0 else 0.01 * number
        sample["largest"] = {"proved": proved, "falsified": None if number == 1 else 0.01 * number + 0.02}
    return Case("curve", record | {"curve": [first, second]})


def words(page) -> str:
    return " ".join(page.words.split())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_figure_is_the_records(cases, name):
    case = cases[name]
    page = self_contained(answers_page("certify", [case]))
    said, record = words(page), case.record
    assert not re.search(r"\b(None|True|False)\b", said)
    keys = ("clean_accuracy", "attacked_accuracy", "certified_accuracy", "one_box_accuracy", "unknown")
    assert " ".join([f"{record['eps'] * 255:.4g}", *(f"{record[key]:.1%}" for key in keys)]).replace(" ", "") in (
        said.replace(" ", "")
    )
    for value in (*record["model_sha256"].values(), record["data_sha256"], *record["versions"].values()):
        assert value in said
    assert case.command in said
    boxes = sum(sample["boxes"] for sample in case.answers)
    assert f"boxes in all{boxes:,}".replace(" ", "") in said.replace(" ", "")
    labels = {sample["label"] for sample in record["samples"]}
    for label in labels:
        own = [sample for sample in record["samples"] if sample["label"] == label]
        share = sum(sample["certified"] for sample in own) / len(own)
        clean = sum(sample["correct"] for sample in own) / len(own)
        assert f"{label}{len(own)}{clean:.1%}{share:.1%}" in said.replace(" ", "")


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_pictures_are_those_of_the_rule(cases, name):
    case = cases[name]
    page = self_contained(answers_page("certify", [case]))
    shown = [picture["sample"] for picture in case.pictures]
    assert shown == [case.record["samples"][place] for place in chosen(case.record["samples"])]
    assert {sample["answer"] for sample in shown} >= {"falsified", "certified"}
    assert all(sum(each["answer"] == sample["answer"] for each in shown) <= OF_EACH for sample in shown)
    for picture, sample in zip(case.pictures, shown, strict=True):
        assert f"image {sample['index']}, label {sample['label']}" in page.words
        if sample["answer"] == "falsified":
            assert ", ".join(f"{value:.4g}" for value in sample["coefficients"]) in page.words
            assert f"{sample['margin']:+.3g}" in page.words
        assert picture["survived"]["margin"] < 0
    noun = case.noun
    assert f"worst {noun} survived" in page.words and f"falsifying {noun}" in page.words
    addresses = page.of("img", "src")
    maps = {"field": 1, "added": 2, "noise": 1}[name]
    views = [picture[key] for picture in case.pictures for key in ("survived", "falsifying") if picture[key]]
    assert len(addresses) == len(case.pictures) + len(views) * (1 + maps)
    assert all(page.of("img", "alt"))


def test_what_users_wrote_is_text(cases):
    text = answers_page("report", [cases["field"], cases["noise"]])
    page = self_contained(text)
    for said in ("<b>net</b>.onnx", 'a "set" & more', "read <so>", "robnet-fx certify '<script>'", "<i>one</i>"):
        assert said in page.words
    assert not {"script", "i", "so"} & {*page.tags} and not [
        name for _, name, _ in page.attributes if name.startswith("on")
    ]


def test_it_is_made_for_dark_screens_small_ones_and_paper(cases):
    text = answers_page("certify", [cases["field"]])
    assert text.count("@media screen and (prefers-color-scheme: dark)") == 2  # so that paper stays white
    assert "@media print" in text and "@media (max-width: 560px)" in text
    page = self_contained(text)
    assert "light dark" in page.of("meta", "content")
    assert "width=device-width, initial-scale=1" in page.of("meta", "content")
    charts = page.of("svg", "role")
    said = page.of("svg", "aria-labelledby") + page.of("svg", "aria-label")
    assert charts == ["img"] * len(charts) and len(said) == len(charts)
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= defined


def test_a_curve_has_lines_a_band_and_a_row_for_each_eps(curve):
    text = answers_page("report", [curve])
    page = self_contained(text)
    assert text.count('<path class="band answers"') == 2  # against eps, and of what each image takes
    said = words(page)
    for row in curve.rows:
        assert f"{row.eps * 255:.4g}{row.clean:.1%}{row.attacked:.1%}{row.certified:.1%}" in said.replace(" ", "")
    assert [row.eps for row in curve.rows] == sorted(row.eps for row in curve.rows)
    assert f"50.0% are proved right under every field of the box at eps {0.1 * 255:.4g}/255" in headline([curve])
    assert "How much each image takes" in said and "Pictures need the images" in said
    assert focus(curve.record)["eps"] == curve.focus["eps"]


def test_the_distribution_of_the_largest_eps(cases):
    record = json.loads(json.dumps(cases["field"].record))
    right = [sample for sample in record["samples"] if sample["correct"]]
    for number, sample in enumerate(right):
        proved = None if number == 0 else min(0.02 * number, record["eps"])
        falsified = None if number % 3 or proved == record["eps"] else (proved or 0) + 0.01
        sample["largest"] = {"proved": proved, "falsified": falsified}
    case = Case("largest", record)
    text = answers_page("report", [case])
    self_contained(text)
    largest = text.partition('id="h-run-0-largest"')[2].partition("</section>")[0]
    proved = sorted(sample["largest"]["proved"] or 0 for sample in right)
    assert sum(value >= proved[len(right) // 2] for value in proved) * 2 >= len(right)
    assert f"proved up to {proved[len(right) // 2] * 255:.4g}, and fewer than half are turned" in largest
    edges = re.findall(r'class="edge (lower )?answers" d="M([^"H]*)"', largest)
    upper, lower = ([tuple(map(float, point.split())) for point in line.split("L")] for _, line in edges)
    for line in (lower, upper):
        heights = [height for _, height in line]
        assert heights == sorted(heights)  # down the page: fewer and fewer
        assert heights[0] == pytest.approx(240 * (1 - len(right) / 40), abs=0.01)
    assert all(above[1] <= below[1] for above, below in zip(upper, lower, strict=True))
    to_the_end = sum(value == record["eps"] for value in proved) / 40
    assert to_the_end > 0 and lower[-1] == (960, pytest.approx(240 * (1 - to_the_end), abs=0.01))


def test_before_stands_against_after(cases):
    case = cases["field"]
    before = {"clean": 0.9, "certified": 0.125, "attacked": 0.25, "one_box": 0.0}
    run = Case(case.name, case.record, before)
    said = words(self_contained(answers_page("robustify", [run])))
    after = case.record["certified_accuracy"]
    assert f"After training {after:.1%} of 40 test images" in said and "before, 12.5% were" in said
    assert "before" + f"{case.record['eps'] * 255:.4g}" + "90.0%25.0%12.5%0.0%12.5%" in said.replace(" ", "")
    assert sum(parts(run.rows[0]).values()) == pytest.approx(1)


def test_several_are_compared(cases, curve):
    both = [cases["field"], cases["noise"], curve]
    text = answers_page("report", both)
    page = self_contained(text)
    assert page.words.count("Where it comes from") == 3
    assert {f"run-{i}" for i in range(3)} <= set(page.ids)
    bands = re.findall(r'class="band (run-\d)"', text)
    assert bands == ["run-0", "run-1"]  # the curve and the field are about the same network and images
    assert headline(both).startswith("3 certificates compared")


def test_a_run_that_was_stopped(cases):
    record = json.loads(json.dumps(cases["field"].record))
    for sample in record["samples"][:10]:
        sample.pop("answer", None)
    left = sum(sample["correct"] for sample in record["samples"][:10])
    said = words(self_contained(answers_page("certify", [Case("part", record)])))
    assert f"not reached before the run was stopped{left}" in said
    nothing = record | {"samples": [{**sample, "answer": None} for sample in record["samples"]]}
    for sample in nothing["samples"]:
        sample.pop("answer")
    self_contained(answers_page("certify", [Case("none", nothing)]))


def test_what_is_no_picture_has_its_figures_alone(cases):
    each = copy.deepcopy(cases["field"].pictures)
    for picture in each:
        for name in ("original", "survived", "falsifying"):
            if picture[name] is not None:
                picture[name] |= {"picture": None, "maps": {}}
        picture["reach"] = {}
    page = self_contained(answers_page("certify", [Case("volume", cases["field"].record, pictures=each)]))
    assert not page.of("img", "src") and "taken for" in page.words and "Maps of" not in page.words


def test_volumes_have_no_pictures():
    def view(point):
        return View(torch.rand(1, 4, 4, 4), 0, -1.0, point, {"multiplicative": torch.rand(1, 4, 4, 4)} if point else {})

    sample = {"index": 0, "label": 0, "answer": "certified", "margin": -1.0}
    (made,) = drawn([Triptych(sample, view(None), view(torch.ones(1)), None, None)])
    assert made["reach"] == {} == made["survived"]["maps"] and made["survived"]["picture"] is None
    json.dumps(made)
