"""`robnet-fx check`: 0 for a network that can be bounded, 3 with every gap named for one that cannot."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from onnx import helper
from rich.console import Console

from robnet_fx import BiasField
from robnet_fx.inspect.coverage import coverage
from robnet_fx.report.coverage import coverage_report
from tests.gaps import Gappy, forgetful  # noqa: F401  (a fixture)
from tests.onnx_files import by_hand, exported
from tests.small import plain_net


def test_a_network_that_can_be_bounded(run, model):
    result = run("check", model)
    assert result.exit_code == 0, result.output
    assert "100% of the operations" in result.stdout
    assert "robust training" in result.stdout and "batch of 128" in result.stdout
    assert "all symbols in use" in result.stdout and "1024" in result.stdout


def test_the_document(run, model):
    small, large = (json.loads(run("check", model, "--json", "--batch", n, "--order", n).stdout) for n in (1, 3))
    assert small["supported"] and small["coverage"] == 1 and small["unsupported"] == []
    assert small["nodes"] == small["bounded"] == 6
    assert (
        small["clip"] == "relu" and json.loads(run("check", model, "--json", "--clip", "none").stdout)["clip"] is None
    )
    for use in ("training", "verdicts"):
        needs = small["memory_bytes"][use], large["memory_bytes"][use]
        assert 0 < needs[0]["image"] < needs[0]["batch_1"] < needs[1]["batch_3"]
        assert needs[0]["largest_batch"] > needs[1]["largest_batch"] > 0
    for found in (small, large):
        assert [box["symbols"] for box in found["boxes"]] == [0, 64, 256, 1024]
        assert all(box["seconds"] > 0 and box["memory"] > 0 for box in found["boxes"])


def test_what_little_memory_is_enough_for():
    found = coverage(plain_net(), BiasField(1, 0.0), example=torch.rand(2, 1, 8, 8))

    def said(available: int) -> str:
        shown = io.StringIO()
        Console(width=200, file=shown).print(coverage_report("net", found, [], 4, available, "cpu"))
        return next(line for line in shown.getvalue().splitlines() if "robust training" in line)

    assert found.one_margin.of(1) < found.training.of(1) < found.training.of(2)
    assert said(2 * found.one_margin.of(1)).rstrip().endswith("1, by --objective small-boxes")
    assert said(found.one_margin.of(1)).split()[-1] == "none"
    assert said(2 * found.training.of(1)).split()[-1] == str(found.training.fits(2 * found.training.of(1)))


@pytest.mark.usefixtures("forgetful")
def test_three_gaps_in_three_layers(run):
    path = exported(Gappy().eval(), Path("gappy.onnx"), dynamo=True, dynamic=True, opset=18, size=(1, 8, 8))
    result = run("check", path, "--out", "report.json")
    assert result.exit_code == 3
    assert "57.1% of the operations" in result.stdout and "4 of 7" in result.stdout
    gaps = json.loads(Path("report.json").read_text())["unsupported"]
    assert [gap["node"] for gap in gaps] == ["tanh", "sigmoid", "leaky_relu"]
    for gap in gaps:
        assert gap["source"].startswith("gaps.py:")
        for text in (gap["shape"], gap["layer"], gap["source"], gap["reason"], gap["remedy"]):
            assert text and text in result.stdout


def test_a_file_that_cannot_be_converted(run):
    shape = (("x", 1, ["N", 4]),)
    nodes = [helper.make_node("Det", ["x"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["y"], name="last")]
    by_hand(Path("strange.onnx"), nodes, inputs=shape)
    result = run("check", "strange.onnx", "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["supported"] is False and document["coverage"] is None
    assert "first" in document["error"] and "first" in result.stderr
