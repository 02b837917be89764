"""The command line on files as Keras leaves them: images channels last or flat, a softmax at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.images.layout import arrange
from robnet_fx.interchange.network import write_onnx
from robnet_fx.zoo.data import load
from tests.images.test_layout import flat, last
from tests.small import bounded, digits


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return bounded(fit=200).model


def keras(net: nn.Module, path: Path, kind: str) -> Path:
    """The digits network as a file that takes its images channels last or flat and ends in a softmax."""
    model = nn.Sequential(last(net) if kind == "channels last" else flat(net, 1, 8, 8), nn.Softmax(1))
    taken = (8, 8, 1) if kind == "channels last" else (64,)
    write_onnx(model.eval(), path, arrange(digits()[0][:2] / 255, kind, taken))
    return path


@pytest.mark.parametrize(("kind", "taken"), [("channels last", (8, 8, 1)), ("flat", (64,))])
def test_the_command_line_on_a_file_of_another_layout(kind, taken, run, trained, content, tmp_path):
    keras(trained, tmp_path / "net.onnx", kind)
    (tmp_path / "plain.onnx").write_bytes(content)
    field = ("--order", 1, "--eps", 60, "--json")
    found, plain = (
        json.loads(run("certify", name, *field, "--limit", 20).stdout) for name in ("net.onnx", "plain.onnx")
    )
    assert found["layout"] == kind and plain["layout"] == "channels first"
    assert found["clean_accuracy"] > 0.8 and 0 < found["certified_accuracy"] <= found["attacked_accuracy"]
    for one, other in zip(found["samples"], plain["samples"], strict=True):
        assert one["certified"] == other["certified"]
        assert (one["margin"] or 0) == pytest.approx(other["margin"] or 0, rel=1e-5)

    short = ("--epochs", 1, "--limit", 60, "--test-limit", 10)
    result = run("robustify", "net.onnx", *field, *short)
    assert result.exit_code == 0, result.output
    for said in (kind, str(list(taken)), "softmax"):
        assert said in result.stderr
    written, before = load_onnx(tmp_path / "net.robust.onnx"), onnx.load(tmp_path / "net.onnx")
    assert json.loads(result.stdout)["written_as"] == "initialisers"
    assert written.input_shape == taken
    assert [node.op_type for node in written.proto.graph.node] == [node.op_type for node in before.graph.node]

    checked = run("check", "net.onnx", "--order", 1)
    assert checked.exit_code == 0 and kind in checked.stderr and "assumption" not in checked.stderr  # its layers tell
    inspected = run("inspect", "net.onnx", "--stage", "passes", "--json")
    assert kind in inspected.stderr and "softmax" in inspected.stderr


def test_bounds_of_a_flat_file_are_about_images(run, trained, tmp_path):
    keras(trained, tmp_path / "net.onnx", "flat")
    field = ("--order", 0, "--eps", 60, "--method", "ibp", "--clip", "none")
    shown = run("inspect", "net.onnx", *field, "--image", 3, "--onnx", "bounds.onnx", "--json")
    assert json.loads(shown.stdout)["image"]["index"] == 3 and shown.exit_code == 0
    image = onnx.load(tmp_path / "bounds.onnx").graph.input[0]
    assert [size.dim_value for size in image.type.tensor_type.shape.dim][1:] == [1, 8, 8]


def test_the_images_of_the_data_decide(run, trained, tmp_path):
    """64 entries look like 8x8 pixels; as a strip of 4x16 the field runs along other axes."""
    keras(trained, tmp_path / "net.onnx", "flat")
    data = load("digits")
    arrays = {name: getattr(data, name).numpy() for name in ("x_train", "y_train", "x_test", "y_test")}
    arrays |= {name: arrays[name].reshape(-1, 1, 4, 16) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "strips.npz", **arrays)
    result = run("certify", "net.onnx", "--order", 1, "--eps", 60, "--limit", 10, "--data", "strips.npz", "--json")
    assert result.exit_code == 0, result.output
    assert "images [1, 4, 16]" in result.stderr and "assumption" not in result.stderr


class Brightest(nn.Module):
    """The class of an image is its brightest channel."""

    def __init__(self, channels: int, unpack) -> None:
        super().__init__()
        self.conv, self.unpack = nn.Conv2d(channels, channels, 1), unpack
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.conv.bias.zero_()

    def forward(self, x):
        return self.conv(self.unpack(x)).mean((2, 3))


def saved(name: str, channels: int, size: int, axes: str, honest: bool = True) -> None:
    """A data set of images with one bright channel, which is their label, or has nothing to do with it."""
    draw, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 64), ("test", 12)):
        labels = np.arange(count) % channels
        images = draw.integers(0, 120, (count, channels, size, size))
        images[np.arange(count), labels] += 135
        arrays[f"x_{part}"] = (images if axes == "nchw" else np.moveaxis(images, 1, -1)).astype(np.uint8)
        arrays[f"y_{part}"] = labels if honest else draw.permutation(labels)
    np.savez(name, **arrays)


@pytest.mark.parametrize("axes", ["nchw", "nhwc"])
def test_labels_tell_how_a_cube_lies(run, tmp_path, axes):
    """8 x 8 x 8 numbers fit a network of 8 channels both ways, and the field runs over other axes in each."""
    net = Brightest(8, lambda x: x).eval()
    write_onnx(net, tmp_path / "net.onnx", torch.rand(2, 8, 8, 8))
    certify = ("certify", "net.onnx", "--order", 1, "--eps", 10, "--json", "--data")
    saved("told.npz", 8, 8, axes)
    told = json.loads(run(*certify, "told.npz").stdout)
    assert told["clean_accuracy"] == 1 and axes in told["layout_told"]
    said = json.loads(run(*certify, "told.npz", "--layout", axes).stdout)
    for sample in (*told["samples"], *said["samples"]):
        sample.pop("seconds", None)
    assert told["samples"] == said["samples"] and said["layout_told"] is None

    saved("silent.npz", 8, 8, axes, honest=False)
    refused = run(*certify, "silent.npz")
    assert refused.exit_code == 2 and "--layout nchw|nhwc" in refused.stderr and not refused.stdout
    assert run(*certify, "silent.npz", "--layout", axes).exit_code == 0
    assert run(*certify, "silent.npz", "--layout", "chw").exit_code == 2


@pytest.mark.parametrize("order", ["planes", "pixels"])
def test_labels_tell_the_order_of_a_flat_network(run, tmp_path, order):
    shape = (-1, 3, 4, 4) if order == "planes" else (-1, 4, 4, 3)
    weights = Brightest(3, lambda x: x if order == "planes" else x.permute(0, 3, 1, 2))
    linear = nn.Linear(48, 3, bias=False)  # nothing in it tells what its numbers are
    with torch.no_grad():
        linear.weight.copy_(weights(torch.eye(48).reshape(shape)).T)
    write_onnx(nn.Sequential(linear).eval(), tmp_path / "net.onnx", torch.rand(2, 48))
    saved("told.npz", 3, 4, "nchw")
    saved("silent.npz", 3, 4, "nchw", honest=False)
    field = ("--order", 1, "--eps", 10, "--layout", "nchw", "--json", "--data")
    told = json.loads(run("certify", "net.onnx", *field, "told.npz").stdout)
    assert told["clean_accuracy"] == 1 and ("pixel" in told["layout"]) == (order == "pixels")
    refused = run("certify", "net.onnx", *field, "silent.npz")
    assert refused.exit_code == 2 and "--flat planes|pixels" in refused.stderr
    trained = run("robustify", "net.onnx", *field, "told.npz", "--epochs", 1, "--test-limit", 6)
    assert trained.exit_code == 0, trained.output
    again = run("certify", "net.robust.onnx", *field, "silent.npz")  # which remembers the order
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["layout"] == told["layout"]
