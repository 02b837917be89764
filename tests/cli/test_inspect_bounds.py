"""`robnet-fx inspect --eps`: the source graph against its bounds, as a table, as a page and as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from tests.cli.test_commands import FIELD, document, fine
from tests.onnx_files import by_hand, exported, weight


def test_the_table_stands_for_itself(run, model):
    result = fine(run("inspect", model, *FIELD))
    assert "test image 0" in result.stdout
    for word in ("conv2d_ssip", "relu_pre"):
        assert word not in result.stdout  # the kinds stand beside the node
    for word in ("pre ibp ssip rsip", "[B, 4, 4, 4]", "sampled", "unstable", "growth", "rsip-ssip", "▲ marks"):
        assert word in result.stdout
    for word in ("born", "kept", "of the margins", "◆ marks the most"):
        assert word in result.stdout


def test_the_document(run, model):
    found = document(run("inspect", model, *FIELD, "--image", 3, "--json"))
    assert found["image"]["index"] == 3
    assert list(found["logits"]) == ["ibp", "ssip", "rsip-ibp", "rsip-ssip", "rsip"]
    assert found["logits"]["rsip-ssip"] < found["logits"]["ibp"]
    nodes = {node["name"]: node for node in found["nodes"]}
    assert nodes["relu"]["rule"] == "relu" and nodes["relu"]["inputs"] == ["conv2d"]
    assert nodes["conv2d"]["rsip"] <= nodes["conv2d"]["rsip_ssip"] == nodes["conv2d"]["pre"]
    assert {"conv2d_ibp", "conv2d_ssip", "conv2d_rsip"} <= set(nodes["conv2d"]["generated"])
    assert {"relu_relaxed", "relu_born", "relu_used", "relu_ssip"} <= set(nodes["relu"]["generated"])
    errors = nodes["relu"]["errors"]
    assert 0 < errors["born"] <= errors["kept"] and 0 < errors["hurts"] < found["margins"]["symbols"] < 1
    assert sum(node["errors"]["worst"] for node in found["nodes"]) == 1
    assert sum(found["margins"].values()) == pytest.approx(1)


def test_the_page(run, model):
    result = fine(run("inspect", model, *FIELD, "--html", "page.html"))
    assert "wrote page.html" in result.stderr
    text = Path("page.html").read_text(encoding="utf-8")
    assert "net.onnx" in text and "order 1, multiplicative, eps 120/255" in text
    assert 'id="node-conv2d_ssip"' not in text and 'id="node-conv2d"' in text and 'id="code-conv2d_ssip"' in text
    assert str(Path.cwd()) not in text


def test_a_page_that_cannot_be_written(run, model):
    result = run("inspect", model, *FIELD, "--html", "absent/page.html")
    assert result.exit_code == 2 and "there is no directory absent" in result.stderr


def test_the_bounds_as_an_onnx_file(run):
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "W"], ["y"])]
    by_hand(Path("small.onnx"), nodes, {"W": weight(16, 3)}, inputs=[("x", 1, ["N", 1, 4, 4])])
    found = document(run("inspect", "small.onnx", *FIELD, "--onnx", "bounds.onnx", "--json"))
    assert found["files"] == {"onnx": "bounds.onnx"}
    notes = {entry.key: entry.value for entry in onnx.load("bounds.onnx").metadata_props}
    assert json.loads(notes["robnet_fx.field"])["eps"] == pytest.approx(120 / 255)
    assert notes["robnet_fx.method"] == "rsip-ssip" and notes["robnet_fx.clip"] == "relu"
    assert notes["robnet_fx.symbols"] == "0"
    session = onnxruntime.InferenceSession("bounds.onnx", providers=["CPUExecutionProvider"])
    images, specs = session.get_inputs()
    batch = images.shape[0] if isinstance(images.shape[0], int) else 2
    rows = specs.shape[1] if isinstance(specs.shape[1], int) else 3
    spec = np.tile(np.eye(3, dtype=np.float32)[None, :rows], (batch, 1, 1))
    lower, upper = session.run(None, {"image": np.full((batch, 1, 4, 4), 0.5, np.float32), "spec": spec})
    assert lower.shape == (batch, rows) and (lower <= upper).all()


def test_without_a_data_set_a_random_image_is_bounded(run):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()
    torch.manual_seed(0)
    exported(net, Path("odd.onnx"), dynamo=False, dynamic=True, opset=17, size=(2, 6, 6))
    result = fine(run("inspect", "odd.onnx", *FIELD, "--html", "page.html"))
    assert "a random image" in result.stdout and Path("page.html").exists()
    assert run("inspect", "odd.onnx", *FIELD, "--image", 0).exit_code == 2


@pytest.mark.parametrize("option", [("--html", "page.html"), ("--onnx", "bounds.onnx"), ("--image", 0)])
def test_what_needs_an_eps_and_no_stage(run, model, option):
    result = run("inspect", model, *option)
    assert result.exit_code == 2 and f"{option[0]} needs --eps" in result.stderr
    result = run("inspect", model, *FIELD, *option, "--stage", "bounds")
    assert result.exit_code == 2 and "--stage" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["net.onnx"]


def test_full_rsip_has_no_onnx_file(run, model):
    result = run("inspect", model, *FIELD, "--method", "rsip", "--onnx", "bounds.onnx")
    assert result.exit_code == 2 and "rsip-ssip" in result.stderr
