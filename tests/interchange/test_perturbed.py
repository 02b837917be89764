"""Images as instances for other verifiers: the files say what `net` says, and `verify` answers them as certificates."""

from __future__ import annotations

import csv
import math

import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from robnet_fx import BiasField, Limits, UnsupportedError, UsageError, WhiteNoise, bound, certify
from robnet_fx.cli.main import app
from robnet_fx.interchange.perturbed import write_instances
from robnet_fx.interchange.vnnlib import read_vnnlib
from tests.perturbations.test_tail import Gamma
from tests.small import bounded, digits, plain_net


def logits(path, coefficients):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ("coefficients", [1, coefficients.shape[1]])
    ]
    return torch.cat([torch.from_numpy(session.run(None, {"coefficients": c[None].numpy()})[0]) for c in coefficients])


def test_verify_answers_as_the_certificate(tmp_path):
    net = bounded(fit=200, eps=0.3)
    images, labels = digits()[0][:40], digits()[1][:40]
    certificate = certify(net, images, labels, limits=Limits(boxes=1))
    proved = certificate.certified.nonzero().flatten()[:2].tolist()
    wrong = (~certificate.correct).nonzero().flatten()[:1].tolist()
    chosen = proved + wrong
    names = [f"image_{index}" for index in chosen]
    written = write_instances(net, images[chosen], labels[chosen], tmp_path / "out", names, seconds=20)
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "out").iterdir())
    rows = list(csv.reader((tmp_path / "out" / "instances.csv").read_text().splitlines()))
    assert rows == [[f"{name}.onnx", f"{name}.vnnlib", "20"] for name in names]
    for index, (network, stated, _) in zip(chosen, rows, strict=True):
        result = CliRunner().invoke(app, ["verify", str(tmp_path / "out" / network), str(tmp_path / "out" / stated),
                                          "--boxes", "1"])  # fmt: skip
        assert result.stdout.split()[0] == ("holds" if index in proved else "violated"), result.output


@pytest.mark.parametrize(
    ("perturbation", "clip", "normalised"),
    [
        (BiasField(1, 0.2, True, True), "relu", {"mean": 0.4, "std": 0.2}),
        (WhiteNoise(0.05), "clamp", {}),
        (Gamma(0.3), None, {}),
    ],
)
def test_everything_in_front_of_the_network_is_in_the_file(tmp_path, perturbation, clip, normalised):
    net = bound(plain_net().double(), perturbation, example=torch.rand(2, 1, 8, 8), clip=clip, **normalised)
    images, labels = digits()[0][3:5], digits()[1][3:5]
    write_instances(net, images, labels, tmp_path, ["a", "b"])
    t = torch.rand(5, len(net.center), dtype=torch.float64) * 2 - 1
    coefficients = net.center + net.radius * t
    for image, label, name in zip(images, labels.tolist(), "ab", strict=True):
        expected = net(coefficients, (image / 255).double().expand(5, 1, 8, 8)).detach()
        found = logits(tmp_path / f"{name}.onnx", coefficients.float())
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
        stated = read_vnnlib(tmp_path / f"{name}.vnnlib")
        (case,) = stated.cases
        assert (stated.inputs, stated.outputs) == (len(net.center), 10)
        assert bool((case.question.rows[0][:, label] == -1).all()) and len(case.question.group) == 9
        for low, high, center, radius in zip(*(x.tolist() for x in (case.lower, case.upper, net.center, net.radius)),
                                             strict=True):  # fmt: skip
            assert low <= center - radius and center + radius <= high
            assert math.isclose(high - low, 2 * radius, rel_tol=1e-9)
    proto = onnx.load(tmp_path / "a.onnx")
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)  # no notes on source files


def test_the_box_is_that_of_set_eps(tmp_path):
    net = bounded(fit=200, eps=0.3)
    net.set_eps(0)
    (_, stated, _) = write_instances(net, digits()[0][:1], digits()[1][:1], tmp_path, ["a"])
    (case,) = read_vnnlib(stated).cases
    assert torch.equal(case.lower, case.upper) and case.lower.tolist() == [1, 0, 0, 0]


def test_what_does_not_belong_together_is_refused(tmp_path):
    net = bounded()
    with pytest.raises(UsageError, match="2 images, 1 labels and 1 names"):
        write_instances(net, digits()[0][:2], digits()[1][:1], tmp_path, ["a"])


def test_a_network_that_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(UnsupportedError, match="cannot export the perturbed network: no such operator"):
        write_instances(bounded(), digits()[0][:1], digits()[1][:1], tmp_path, ["a"])
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_logits_is_not_written(tmp_path, monkeypatch):
    from robnet_fx.interchange import perturbed

    monkeypatch.setattr(perturbed, "difference", lambda ours, theirs: float("nan"))
    with pytest.raises(UnsupportedError, match="no instance is written"):
        write_instances(bounded(), digits()[0][:1], digits()[1][:1], tmp_path, ["a"])
    assert not list(tmp_path.iterdir())
