"""A file with open sizes, two outputs and one probability, from check to the written file that remembers the choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.onnx_files import by_hand, weight


@pytest.fixture
def binary(tmp_path, monkeypatch):
    """Bright or dark: a network of one probability and an embedding, for images of any size, and such images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.arange(220) % 2
    pixels = (rng.random((220, 1, 6, 5)) * 80 + 40 + 100 * labels[:, None, None, None]).astype(np.uint8)
    np.savez("binary.npz", x_train=pixels[:200], y_train=labels[:200], x_test=pixels[200:], y_test=labels[200:])
    nodes = [
        helper.make_node("Conv", ["x", "K"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "W", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["probability"]),
    ]
    kernels = np.abs(weight(4, 1, 3, 3))
    total = float(kernels.sum(axis=(1, 2, 3)).mean())
    weights = {"K": kernels, "W": np.ones((4, 1), np.float32), "b": np.array([-2.0 * total], np.float32)}
    outputs = [("probability", 1, ["N", 1]), ("embedding", 1, ["N", 4])]
    return by_hand(Path("net.onnx"), nodes, weights, inputs=[("x", 1, ["N", 1, "h", "w"])], outputs=outputs)


def test_from_check_to_the_written_file(run, binary):
    asked = ("--data", "binary.npz", "--output", "probability")
    assert run("check", binary, "--data", "binary.npz").exit_code == 2
    unknown = run("check", binary, "--output", "probability")
    assert unknown.exit_code == 2 and "leaves h, w open" in unknown.stderr and "--data" in unknown.stderr
    said = ("probability, chosen of 2 outputs", "sigmoid, left out of the bounds", "[1, 6, 5], 2 classes")

    def heard(result) -> bool:
        text = " ".join(result.stderr.replace("│", " ").split())
        return all(words in text for words in said)

    checked = run("check", binary, *asked, "--order", 1, "--json")
    assert checked.exit_code == 0 and heard(checked)
    assert json.loads(checked.stdout)["remarks"]["output"].startswith("probability")

    short = ("--epochs", 1, "--order", 0, "--eps", 5)
    trained = run("robustify", binary, *asked, *short, "--json")
    assert trained.exit_code == 0 and heard(trained), trained.output
    assert json.loads(trained.stdout)["after"]["clean"] > 0.9
    written = onnx.load("net.robust.onnx")
    assert written.graph.output == onnx.load(binary).graph.output
    assert written.graph.input == onnx.load(binary).graph.input

    certified = run("certify", "net.robust.onnx", "--order", 0, "--eps", 5, "--json")
    assert certified.exit_code == 0 and heard(certified)
    document = json.loads(certified.stdout)
    assert document["certified_accuracy"] > 0.9 and document["remarks"]["output"].startswith("probability, chosen")
    assert {sample["label"] for sample in document["samples"]} == {0, 1}
