"""What is done to the images, by name of option: fields, noise, additive parts, boxes from a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from robnet_fx.cli.pace import threads
from tests.cli.test_commands import SHORT, document, fine
from tests.cli.test_errors import refused
from tests.onnx_files import by_hand, weight
from tests.small import digits

BOX = {"order": 0, "multiplicative": [[0.9, 1.2]], "additive": [[-0.02, 0.05]]}


def panel(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def test_noise_is_certified_attacked_and_trained_against(run, model):
    result = run("certify", model, "--noise", 4, "--limit", 30, "--json")
    found = document(result)
    assert "noise eps 4/255 = 0.01569 box D = 64: all in ±0.01569" in panel(result)
    assert (found["perturbation"], found["method"]) == ({"kind": "WhiteNoise", "eps": 4 / 255}, "rsip-ssip")
    assert "order" not in found and found["box"]["radius"] == [4 / 255] * 64
    assert 0 < found["certified_accuracy"] <= found["attacked_accuracy"] <= found["clean_accuracy"]
    attacked = document(run("attack", model, "--noise", "4/255", "--limit", 30, "--json"))
    assert attacked["attacked_accuracy"] == found["attacked_accuracy"] and attacked["eps"] == found["eps"]

    trained = document(run("robustify", model, "--noise", 24, *SHORT, "--json"))
    assert trained["after"]["certified"] > trained["before"]["certified"]
    again = document(run("certify", "net.robust.onnx", "--noise", 24, "--limit", 60, "--json"))
    assert again["certified_accuracy"] == trained["after"]["certified"]
    arguments = json.loads((Path(trained["files"]["run"]) / "arguments.json").read_text())
    assert arguments["perturbation"] == {"kind": "WhiteNoise", "eps": 24 / 255}
    metrics = json.loads((Path(trained["files"]["run"]) / "metrics.json").read_text())
    assert [epoch["eps"] for epoch in metrics["epochs"]] == pytest.approx([24 / 255, 24 / 255])


@pytest.fixture
def large(run, tmp_path):
    """A network and images of 33 x 33 pixels, more than SSIP carries as noise: bright or dark."""
    draw, labels = np.random.default_rng(0), np.arange(80) % 2
    pixels = (draw.random((80, 1, 33, 33)) * 60 + 40 + 120 * labels[:, None, None, None]).astype(np.uint8)
    np.savez("bright.npz", x_train=pixels[:60], y_train=labels[:60], x_test=pixels[60:], y_test=labels[60:])
    weights = {"w": np.array([[-1.0, 1.0]], np.float32) * 8, "b": np.array([4.0, -4.0], np.float32)}
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "w", "b"], ["y"]),
    ]
    by_hand(Path("large.onnx"), nodes, weights, inputs=(("x", 1, ["N", 1, 33, 33]),))
    return "large.onnx", "--data", "bright.npz"


def test_where_noise_has_too_many_coefficients_rsip_ibp_is_taken_and_said(run, large):
    said = "rsip-ibp (D = 1089 is too many for rsip-ssip)"
    for command in (("certify",), ("inspect",), ("robustify", "--epochs", 1, "--runs", "r")):
        name, *options = command
        result = run(name, *large, "--noise", 2, *options, "--json")
        found = document(result)
        assert found["method"] == "rsip-ibp" and said in panel(result)
    assert found["training"]["objective"] == "equation-6" and "clip relu, equation-6, alpha 1" in panel(result)
    assert document(run("check", *large, "--noise", 2, "--json"))["coverage"] == 1
    assert document(run("attack", *large, "--noise", 2, "--steps", 2, "--json"))["attacked_accuracy"] == 1
    certificate = json.loads(Path("r/large.robust-1/certificate.json").read_text())
    assert certificate["method"] == "rsip-ibp"
    (line,) = refused(run("certify", *large, "--noise", 2, "--method", "rsip-ssip"), 2)
    assert "1089" in line and "rsip-ibp" in line
    (line,) = refused(run("robustify", *large, "--noise", 2, "--method", "rsip-ssip"), 2)
    assert "1089" in line
    field = run("certify", *large, "--eps", 2, "--json")
    assert document(field)["method"] == "rsip-ssip" and "too many" not in panel(field)


@pytest.mark.parametrize(
    ("options", "words", "parts"),
    [
        (("--additive",), "order 1, multiplicative, additive, eps 20/255", (True, True)),
        (("--additive-only",), "order 1, additive, eps 20/255", (False, True)),
        ((), "order 1, multiplicative, eps 20/255", (True, False)),
    ],
)
def test_additive_parts(run, model, options, words, parts):
    result = run("certify", model, "--eps", 20, "--order", 1, *options, "--limit", 10, "--json")
    found = document(result)
    assert words in panel(result)
    assert (found["perturbation"]["multiplicative"], found["perturbation"]["additive"]) == parts
    assert len(found["box"]["center"]) == 4 * sum(parts)
    shown = document(run("inspect", model, "--eps", 20, "--order", 1, *options, "--image", 2, "--json"))
    assert shown["box"] == found["box"]
    trained = ("--epochs", 1, "--limit", 60, "--test-limit", 5)
    again = document(run("robustify", model, "--eps", 20, "--order", 1, *options, *trained, "--json"))
    assert again["perturbation"] == found["perturbation"] and again["box"] == found["box"]


def test_a_box_from_a_file(run, model):
    Path("box.json").write_text(json.dumps(BOX))
    result = run("certify", model, "--box", "box.json", "--limit", 20, "--json")
    found = document(result)
    assert "constant term in [0.9000, 1.2000]; additive constant term in [-0.0200, 0.0500]" in panel(result)
    assert "order 0, multiplicative box, additive box" in panel(result)
    ends = np.array(found["box"]["center"]), np.array(found["box"]["radius"])
    np.testing.assert_allclose(np.stack([ends[0] - ends[1], ends[0] + ends[1]], 1), [[0.9, 1.2], [-0.02, 0.05]])
    assert found["eps"] == pytest.approx(0.2) and found["perturbation"]["additive"] == [[-0.02, 0.05]]
    trained = document(run("robustify", model, "--box", "box.json", *SHORT, "--json"))
    assert trained["box"] == found["box"] and trained["after"]["certified"] > 0

    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "W"], ["y"])]
    by_hand(Path("small.onnx"), nodes, {"W": weight(16, 3)}, inputs=[("x", 1, ["N", 1, 4, 4])])
    plain = ("--method", "ibp", "--clip", "none")
    fine(run("inspect", "small.onnx", "--box", "box.json", *plain, "--onnx", "bounds.onnx"))
    notes = {entry.key: entry.value for entry in onnx.load("bounds.onnx").metadata_props}
    assert json.loads(notes["robnet_fx.field"])["perturbation"]["multiplicative"] == [[0.9, 1.2]]


def test_a_box_without_the_unperturbed_image_earns_a_warning(run, model):
    Path("box.json").write_text(json.dumps({"order": 0, "multiplicative": [[1.1, 1.2]]}))
    result = fine(run("certify", model, "--box", "box.json", "--limit", 5))
    assert "warning: box.json: the multiplicative box leaves out the unperturbed image" in result.stderr


def test_one_perturbation_at_a_time(run, model):
    Path("box.json").write_text(json.dumps(BOX))
    for command in ("robustify", "certify", "attack"):
        (line,) = refused(run(command, model), 2)
        assert "--eps" in line and "--noise" in line and "--box" in line
    for options, words in [
        (("--eps", 4, "--noise", 2), "--eps and --noise"),
        (("--noise", 2, "--box", "box.json"), "--noise and --box"),
        (("--noise", 2, "--order", 1), "--order does not go with --noise"),
        (("--noise", 2, "--additive"), "--additive does not go with --noise"),
        (("--box", "box.json", "--additive-only"), "--additive-only does not go with --box"),
        (("--noise", "lots"), "--noise takes pixel levels"),
        (("--noise", 300), "--noise must lie between"),
    ]:
        (line,) = refused(run("certify", model, *options), 2)
        assert words in line


def test_threads_are_settled_before_long_work(run, model, monkeypatch):
    tried = []

    def choose(step, device):
        step()
        tried.append(device.type)
        return threads.Choice(1, "computing on 1 thread")

    monkeypatch.setattr(threads, "choose", choose)
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    torch.set_num_threads(2)  # with one there would be nothing to settle
    commands = (("certify",), ("certify", "--method", "rsip", "--boxes", 1), ("attack",), ("robustify", "--epochs", 1))
    for name, *options in commands:
        limit = ("--limit", 60, "--test-limit", 3) if name == "robustify" else ("--limit", 1)
        result = fine(run(name, model, "--eps", 5, "--order", 0, *limit, *options))
        assert "computing on 1 thread" in result.stderr
    assert tried == ["cpu"] * len(commands)


def test_a_model_that_knows_nothing_of_the_images_is_warned_of(run, model):
    images, labels = (part.numpy()[1500:1600] for part in digits())
    wrong = (labels[60:] + 5) % 10
    np.savez("wrong.npz", x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=wrong)
    result = fine(run("certify", model, "--eps", 5, "--order", 0, "--data", "wrong.npz"))
    assert "warning: the model knows nothing of these images of wrong.npz: 0.0% of 40 are right" in panel(result)
    good = fine(run("certify", model, "--eps", 5, "--order", 0, "--limit", 60))
    assert "knows nothing" not in good.stderr
