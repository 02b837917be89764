"""Pages from the command line: of `certify`, of `robustify`, and of what both have written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.test_commands import document, fine
from tests.cli.test_errors import refused
from tests.pages import self_contained

HARD = ("--order", 1, "--eps", 200, "--limit", 12, "--boxes", 20)
SHORT = ("--epochs", 1, "--limit", 100, "--test-limit", 20, "--order", 1, "--eps", 120, "--boxes", 4)


def page(name):
    return self_contained(Path(name).read_text(encoding="utf-8"))


def test_certify_writes_a_page_beside_its_answers(run, model):
    typed = ("certify", model, *HARD, "--html", "my page.html")
    found = document(run(*typed, "--json"))
    made = page("my page.html")
    assert f"{found['certified_accuracy']:.1%} of 12 test images of digits are proved right" in made.words
    falsified = next(sample for sample in found["samples"] if sample.get("answer") == "falsified")
    assert made.words.count("falsifying field") == len([src for src in made.of("img", "alt") if src == "original"])
    assert f"image {falsified['index']}, label {falsified['label']}" in made.words or falsified["margin"] < 0.5
    command = "robnet-fx certify net.onnx --eps 200 --order 1 --boxes 20 --limit 12 --json --html 'my page.html'"
    assert found["command_line"] == command and command in made.words
    again = fine(run("certify", model, *HARD, "--html", "again.html"))
    assert "wrote again.html" in again.stderr and "certified" in again.stdout


def test_robustify_writes_a_page_that_report_can_repeat(run, model):
    found = document(run("robustify", model, *SHORT, "--html", "page.html", "--json"))
    made, folder = page("page.html"), found["files"]["run"]
    before, after = found["before"], found["after"]
    assert f"After training {after['certified']:.1%} of 20 test images of digits" in made.words
    assert f"before, {before['certified']:.1%} were" in made.words
    assert found["command_line"] in made.words and made.of("img", "src")
    result = fine(run("report", folder, "--out", "repeated.html"))
    assert result.stdout.startswith("After training") and "wrote repeated.html" in result.stderr
    ours, theirs = (
        Path(name).read_text().replace("robnet-fx robustify</p>", "robnet-fx report</p>")
        for name in ("page.html", "repeated.html")
    )
    assert ours == theirs


def test_a_run_of_the_library_has_a_page_without_pictures(run, model):
    folder = document(run("robustify", model, *SHORT, "--json"))["files"]["run"]
    Path(folder, "page.json").unlink()
    fine(run("report", folder))
    made = page("report.html")
    assert not made.of("img", "src") and "before" in made.words and "net.onnx" in made.words
    assert "does not say which command" in made.words


def test_several_strengths_are_a_curve(run, model):
    shares = {}
    for eps in (100, 200):
        fine(run("certify", model, *HARD, "--eps", eps, "--out", f"{eps}.json"))
        shares[eps] = json.loads(Path(f"{eps}.json").read_text())["certified_accuracy"]
    result = fine(run("report", "200.json", "100.json", "--out", "page.html"))
    assert result.stdout.startswith("2 certificates compared")
    made = page("page.html")
    lines = re.findall(r'<path class="edge lower [^"]*" d="M([^"H]*)"', Path("page.html").read_text())
    (points,) = [[float(point.split()[1]) for point in line.split("L")] for line in lines]
    assert points == pytest.approx([240 * (1 - shares[eps]) for eps in (100, 200)], abs=0.01)
    assert "100.json" in made.words and "200.json" in made.words


def test_a_curve_of_one_command_has_lines_and_pictures(run, model):
    several = ("--order", 1, "--eps", "100,200", "--limit", 12, "--boxes", 20)
    found = document(run("certify", model, *several, "--html", "page.html", "--json"))
    made = page("page.html")
    for line in found["curve"]:
        assert f"{line['certified_accuracy']:.1%}" in made.words
    assert "eps 100, 200/255" in made.words and made.of("img", "src")
    assert '<path class="band answers"' in Path("page.html").read_text()


@pytest.mark.parametrize("name", ["absent", "empty", "model", "list", "other", "unfinished"])
def test_what_is_no_run(run, model, name):
    Path("empty").mkdir()
    Path("list").write_text("[]")
    Path("other").write_text(json.dumps({"schema": "robnet-fx/record", "version": 1, "command": "attack"}))
    Path("unfinished").mkdir()
    Path("unfinished/certificate.json").write_text('{"schema": "robnet-fx/rec')
    given = str(model) if name == "model" else name
    lines = refused(run("report", given), 2)
    assert given in lines[0]
    assert any("remedy" in line and "certify --out" in line for line in lines)
    assert not Path("report.html").exists()
    assert refused(run("report", given, "--out", "page.html"), 2) == lines


def test_a_certificate_with_a_part_missing(run, model):
    found = document(run("certify", model, *HARD, "--json"))
    del found["samples"][3]["label"]
    Path("c.json").write_text(json.dumps(found))
    lines = refused(run("report", "c.json"), 2)
    assert "c.json" in lines[0] and "remedy" in lines[-1]


def test_what_cannot_be_written_is_refused_before_the_work(run, model, monkeypatch):
    monkeypatch.setattr("robnet_fx.cli.opened.open_judged", None)  # never reached
    for option in ("--html", "--out"):
        result = run("certify", model, *HARD, option, f"absent{os.sep}file")
        assert result.exit_code == 2 and "there is no directory absent" in result.stderr
        assert run("certify", model, *HARD, option, os.curdir).exit_code == 2
    assert not Path("absent").exists()
