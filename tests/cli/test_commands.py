"""The commands on a real model: results on standard output, everything else on standard error, JSON as one document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

import robnet_fx
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.cli.texts import read_eps, read_memory
from robnet_fx.errors import UsageError
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.frontend.onnx.metadata import normalisation_metadata
from robnet_fx.images.pixels import subset
from robnet_fx.machine.files import sha256_of_file
from robnet_fx.machine.memory import bytes_text
from robnet_fx.rules import registry
from robnet_fx.train import checkpoint as checkpoints
from robnet_fx.zoo.data import load

ROOT = Path(__file__).parents[2]
FIELD = ("--order", 1, "--eps", 120)
SHORT = ("--epochs", 2, "--lr", "3e-3", "--batch-size", 32, "--limit", 300, "--test-limit", 60)


def fine(result):
    assert result.exit_code == 0, result.output
    return result


def document(result):
    return json.loads(fine(result).stdout)


@pytest.mark.parametrize(
    ("text", "eps"),
    [
        ("40", 40 / 255),
        ("0.5", 0.5 / 255),
        ("40/255", 40 / 255),
        ("15.7%", 0.157),
        ("0", 0),
        ("255", 1),
        (" 1/10 ", 0.1),
    ],
)
def test_eps_counts_pixel_levels(text, eps, capsys):
    assert read_eps(text) == pytest.approx(eps)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("text", "levels", "share"), [("0.157", "40.04", "15.7%"), (".4", "102", "40%")])
def test_a_bare_number_that_looks_like_a_share_earns_a_warning(text, levels, share, capsys):
    assert read_eps(text) == pytest.approx(float(text) / 255)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("warning: ") and "did you mean" in err and levels in err and share in err


def test_eps_is_never_negative():
    with pytest.raises(UsageError, match="--eps"):
        read_eps("-0.001")


def test_robustify_then_certify_repeats_the_number(run, model):
    result = document(run("robustify", model, *FIELD, *SHORT, "--json"))
    assert result["after"]["one_box"] > result["before"]["one_box"]
    for score in (result["before"], result["after"]):
        assert score["one_box"] <= score["certified"] <= score["attacked"] <= score["clean"]
    written, folder = (Path(result["files"][name]) for name in ("model", "run"))
    assert written == Path("net.robust.onnx")
    assert result["model_sha256"] == {"before": sha256_of_file(model), "after": sha256_of_file(written)}
    written_there = {path.name for path in folder.iterdir()}
    assert written_there == {
        *(
            "arguments.json",
            "metrics.json",
            "checkpoint.pt",
            "certificate.json",
            "page.json",
            "bounds.py",
            "weights.pt",
        ),
        "model.onnx",
    }
    assert load_onnx(written).metadata["robnet_fx.data"] == "digits"

    again = document(run("certify", written, *FIELD, "--limit", 60, "--json"))
    assert again["certified_accuracy"] == result["after"]["certified"]
    assert again["attacked_accuracy"] == result["after"]["attacked"]
    assert again["model_sha256"]["file"] == result["model_sha256"]["after"]


def test_robustify_compiles_and_rounds_where_asked(run, model, monkeypatch):
    compiled = []
    monkeypatch.setattr(BoundedModel, "compile", lambda net: compiled.append(net.method))
    short = ("--epochs", 1, "--limit", 100, "--test-limit", 10)
    result = document(run("robustify", model, *FIELD, *short, "--precision", "bf16", "--compile", "--json"))
    assert compiled == ["rsip-ssip"]
    arguments = json.loads((Path(result["files"]["run"]) / "arguments.json").read_text())
    assert (arguments["precision"], arguments["recipe"]["precision"], arguments["compiled"]) == ("bf16", "bf16", True)


def test_robustify_shows_the_box_first_and_a_table_last(run, model):
    result = fine(
        run("robustify", model, "--eps", "40", "--order", 3, "--epochs", 1, "--limit", 100, "--test-limit", 10)
    )
    assert "D = 16: constant term in [0.8431, 1.1569], the other 15 in ±0.01046" in result.stderr
    assert "40/255 = 0.1569" in result.stderr
    assert all(stage in result.stderr for stage in ("training", "bounding", "splitting"))
    for word in (
        "before",
        "after",
        "clean",
        "attacked (upper limit)",
        "certified",
        "net.robust.onnx",
        "runs/net.robust-1",
    ):
        assert word in result.stdout
    loss = ("--objective", "small-boxes:cuts=2")
    short = ("--order", 0, "--epochs", 1, "--limit", 100, "--test-limit", 10)
    other = fine(run("robustify", model, "--eps", 40, *short, *loss))
    assert "small-boxes:cuts=2, alpha 1" in other.stderr and "clip relu, cc:cuts=8, alpha 1" in result.stderr
    assert sorted(path.name for path in Path("runs").iterdir()) == ["net.robust-1", "net.robust-2"]
    checkpoint = checkpoints.load(Path("runs/net.robust-2/checkpoint.pt"))
    assert checkpoint["settings"]["objective"] == "SmallBoxes(cuts=2, tau=1.0, steps=0)"


def test_certify_says_everything_that_repeats_it(run, model):
    result = run("certify", model, *FIELD, "--limit", 30, "--json", "--out", "verdict.json", "--method", "rsip-ibp")
    found = document(result)
    assert Path("verdict.json").read_text() == result.stdout
    assert found["images"] == len(found["samples"]) == 30
    assert (found["method"], found["clip"], found["dtype"]) == ("rsip-ibp", "relu", "float64")
    assert (found["model"], found["data"]) == ("net.onnx", "digits")
    assert found["eps"] == pytest.approx(120 / 255)
    assert found["box"]["radius"] == pytest.approx([120 / 255, *[120 / 255 / 15] * 3])
    assert found["model_sha256"]["file"] == sha256_of_file(model)
    assert len(found["data_sha256"]) == 64

    chosen, digits = subset(539, 30).tolist(), load("digits")
    assert [sample["index"] for sample in found["samples"]] == chosen
    assert [sample["label"] for sample in found["samples"]] == digits.y_test[chosen].tolist()
    assert found["certified_accuracy"] == sum(sample["certified"] for sample in found["samples"]) / 30
    assert found["certified_accuracy"] <= found["attacked_accuracy"] <= found["clean_accuracy"]


def test_attack_gives_the_fields_it_found(run, model):
    found = document(run("attack", model, "--eps", 250, "--limit", 40, "--steps", 10, "--restarts", 2, "--json"))
    center, radius = (found["box"][name] for name in ("center", "radius"))
    assert found["attacked_accuracy"] < found["clean_accuracy"]
    for sample in found["samples"]:
        assert sample["fooled"] == (sample["margin"] >= 0)
        for value, middle, reach in zip(sample["coefficients"], center, radius, strict=True):
            assert abs(value - middle) <= reach + 1e-6


def test_the_normalisation_is_read_from_the_file(run, model):
    proto = onnx.load(model)
    onnx.helper.set_model_props(proto, normalisation_metadata([0.25], [0.5]))
    onnx.save(proto, model)
    arguments = ("certify", model, *FIELD, "--limit", 10, "--json")
    found = document(run(*arguments))
    assert found["normalisation"] == {"mean": [0.25], "std": [0.5]}
    own = document(run(*arguments, "--mean", "0", "--std", "1"))
    assert own["normalisation"] == {"mean": [0], "std": [1]}
    assert own["samples"] != found["samples"]


def test_robustify_writes_the_normalisation_into_the_file(run, model):
    fine(
        run("robustify", model, *FIELD, "--epochs", 1, "--limit", 60, "--test-limit", 5, "--pretrain", "--mean", "0.1")
    )
    metadata = load_onnx("net.robust.onnx").metadata
    assert metadata["robnet_fx.mean"] == "0.1"
    assert "robnet_fx.std" not in metadata


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("source", {"x", "conv2d", "relu", "linear_1", "output"}),
        ("passes", {"coefficients", "image", "field", "clip", "conv2d", "linear_1"}),
        ("bounds", {"image", "spec", "field_ssip", "relu_pre", "conv2d_ibp", "upper"}),
    ],
)
def test_inspect_shows_each_stage(run, model, stage, names):
    found = document(run("inspect", model, "--stage", stage, "--order", 1, "--json"))
    assert names <= {node["name"] for node in found["nodes"]}
    table = fine(run("inspect", model, "--stage", stage, "--order", 1)).stdout
    assert all(name in table for name in names)
    code = fine(run("inspect", model, "--stage", stage, "--order", 1, "--code")).stdout
    assert code.strip() == found["code"].strip()
    assert "def forward(self" in code


def test_inspect_shows_the_bounds_on_an_image(run, model):
    found = document(run("inspect", model, *FIELD, "--image", 7, "--json"))
    nodes = {node["name"]: node for node in found["nodes"]}
    assert nodes["conv2d"]["pre"] <= min(nodes["conv2d"]["ibp"], nodes["conv2d"]["ssip"])
    assert 0 < nodes["conv2d"]["unstable"] < 1
    assert nodes["relu"]["pre"] is None
    assert found["image"]["index"] == 7
    assert found["image"]["label"] == int(load("digits").y_test[7])
    result = fine(run("inspect", model, *FIELD, "--image", 7, "--method", "rsip-ibp"))
    assert "test image 7" in result.stdout and "unstable" in result.stdout


def test_inspect_shows_what_cannot_be_bounded(run, model, monkeypatch):
    monkeypatch.delitem(registry._TABLE, torch.ops.aten.sin.default, raising=False)
    proto = onnx.load(model)
    next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "Sin"
    onnx.save(proto, model)
    found = document(run("inspect", model, "--stage", "passes", "--json"))
    assert [node["operation"] for node in found["nodes"] if node["problem"]] == ["aten.sin.default"]


def test_zoo(run):
    names = [network["name"] for network in document(run("zoo", "list", "--json"))["networks"]]
    table = fine(run("zoo", "list")).stdout
    assert "dm-small" in names and all(name in table for name in names)
    result = fine(run("zoo", "export", "dm-small", "small.onnx"))
    assert result.stdout == "" and "small.onnx" in result.stderr
    assert load_onnx("small.onnx").input_shape == (3, 32, 32)
    result = run("zoo", "export", "vast", "vast.onnx")
    assert result.exit_code == 2 and "unknown network 'vast'" in result.stderr and not Path("vast.onnx").exists()


@pytest.mark.parametrize(
    "command", ["robustify", "certify", "verify", "attack", "check", "inspect", "report", "zoo export"]
)
def test_help_has_an_example(run, command):
    text = fine(run(*command.split(), "--help")).stdout
    assert f"robnet-fx {command} " in " ".join(text.split())


def test_the_command_line_loads_what_it_needs_when_it_needs_it():
    script = """
import sys, robnet_fx
before = set(sys.modules)
import robnet_fx.cli.main
heavy = "torch", "torchvision", "onnx", "onnxruntime", "sklearn", "robnet_fx.zoo", "robnet_fx.inspect"
print(*[name for name in set(sys.modules) - before if name.startswith(heavy)])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_version(run):
    assert fine(run("--version")).stdout == f"robnet-fx {robnet_fx.__version__}\n"


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 2**30), ("500 mb", 500 * 2**20), ("0.5GiB", 2**29)])
def test_memory_is_read_with_its_unit(text, size):
    assert read_memory(text) == size


@pytest.mark.parametrize("size", [3 * 2**20, 700_000_000, 1_020 * 2**20, 12_345_678_901, 5 * 2**40])
def test_memory_is_written_in_the_units_it_is_read_in(size):
    assert read_memory(bytes_text(size)) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("text", ["8", "GB", "-1GB", "0GB", "1.2.3GB", "8KB", ""])
def test_memory_without_a_sensible_unit_is_refused(text):
    with pytest.raises(UsageError, match="8GB"):
        read_memory(text)
