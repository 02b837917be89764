"""The bounds as an ONNX file: onnxruntime reproduces them, certifies the same images, and nothing else is needed."""

from __future__ import annotations

import json

import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from robnet_fx import BiasField, UnsupportedError, UnsupportedOpError, UsageError, WhiteNoise, bound
from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.interchange import bounds as export_bounds
from robnet_fx.interchange.bounds import write_bounds
from tests.onnx_files import Residual, by_hand, settled
from tests.small import bounded, digits


def run(path, image, spec):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image", "spec"]
    return [torch.from_numpy(value) for value in session.run(["lower", "upper"], {"image": image, "spec": spec})]


def assert_close(ours, theirs):
    assert bool(((ours - theirs).abs() <= 1e-4 * (1 + theirs.abs())).all())


def shallow_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))


def classifier():
    return bounded(shallow_net, eps=0.2, fit=200)


@pytest.fixture(scope="module")
def of_digits(tmp_path_factory):
    """The bounds of a classifier of digits as a file, and what was said of it."""
    net, path = classifier(), tmp_path_factory.mktemp("digits") / "bounds.onnx"
    example = digits()[0][:1] / 255
    written = write_bounds(net, path, example, {"box": json.dumps(net.radius.tolist())})
    assert torch.equal(example, digits()[0][:1] / 255)
    return path, written


def test_the_file_certifies_what_the_model_certifies(of_digits):
    net, (path, written) = classifier(), of_digits
    images, labels = digits()[0][:6] / 255, digits()[1][:6]
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"box": json.dumps(net.radius.tolist())}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)  # no notes on source files
    spec = margin_spec(labels, other_classes(labels, 10), 10).float()
    assert (written.batch, written.rows) == (None, None)
    lower, upper = run(path, images.numpy(), spec.numpy())
    for ours, theirs in zip(net.bounds(images, spec), (lower, upper), strict=True):
        assert_close(theirs, ours)
    margins = net.margins(images, labels)
    assert_close(upper, margins[margins > -torch.inf].reshape(upper.shape))


def test_another_box_may_be_given(of_digits):
    """One for all images or one for each; without, the box that the file was written with."""
    net, (path, _) = classifier(), of_digits
    images, labels = digits()[0][:5] / 255, digits()[1][:5]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_overridable_initializers()] == ["center", "radius"]
    spec = margin_spec(labels, other_classes(labels, 10), 10).float()
    share = torch.rand(5, len(net.center))
    default = net.center.unsqueeze(0), net.radius.unsqueeze(0)
    each = net.center + net.radius * (1 - share), net.radius * share
    upper = {}
    for name, box in {"default": default, "one": tuple(part[:1] for part in each), "each": each}.items():
        given = {"image": images, "spec": spec, "center": box[0], "radius": box[1]}
        found = session.run(["lower", "upper"], {key: value.numpy() for key, value in given.items()})
        for ours, theirs in zip(net.bounds(images, spec, *box), found, strict=True):
            assert_close(torch.from_numpy(theirs), ours)
        upper[name] = torch.from_numpy(found[1])
    assert torch.equal(upper["default"], run(path, images.numpy(), spec.numpy())[1])
    assert not torch.allclose(upper["one"], upper["default"]) and not torch.allclose(upper["each"], upper["one"])


def test_white_noise_has_a_box_of_its_own_too(tmp_path):
    small = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    net = bound(small.eval(), WhiteNoise(0.02), clip=None, example=torch.rand(2, 1, 4, 4))
    written = write_bounds(net, tmp_path / "bounds.onnx", torch.rand(2, 1, 4, 4))
    assert written.difference <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "bounds.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_overridable_initializers()] == ["center", "radius"]


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )


def pooled() -> nn.Module:
    """Operations whose transposes come from autograd."""
    return nn.Sequential(
        nn.Sigmoid(),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AdaptiveAvgPool2d((3, 1)),
        nn.Flatten(),
        nn.Linear(9, 5),
    )


class Attentive(nn.Module):
    """Two tokens that attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(96, 8), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.reshape(-1, 2, 96))
        return self.last(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1))


def assert_sizes_are_free(net, path, size, classes):
    for batch, rows in ((1, 4), (2, 1), (5, 3)):
        image, spec = torch.rand(batch, *size), torch.randn(batch, rows, classes)
        found = run(path, image.numpy(), spec.numpy())
        for ours, theirs in zip(net.bounds(image, spec), found, strict=True):
            assert_close(theirs, ours)


@pytest.mark.parametrize(
    ("make", "method"),
    [(normed, "rsip-ssip"), (Residual, "rsip-ssip"), (pooled, "rsip-ssip"), (Attentive, "rsip-ibp")],
)
def test_batch_and_rows_stay_free(tmp_path, make, method):
    net = bound(settled(make()), BiasField(1, 0.1), method, clip=None, example=torch.rand(2, 3, 8, 8))
    written = write_bounds(net, tmp_path / "bounds.onnx", torch.rand(1, 3, 8, 8))
    assert (written.batch, written.rows) == (None, None)
    assert written.difference <= 1e-4
    assert_sizes_are_free(net, tmp_path / "bounds.onnx", (3, 8, 8), 5)


def test_batch_and_rows_stay_free_of_plain_layers(of_digits):
    path, written = of_digits
    assert written.difference <= 1e-4
    assert_sizes_are_free(classifier(), path, (1, 8, 8), 10)


def test_a_batch_that_the_graph_fixes_is_one_image(tmp_path, monkeypatch):
    """A rule may ask for sizes in a way that no trace keeps: the file is for one image then, and says so."""
    small = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    net = bound(small.eval(), BiasField(1, 0.1), example=torch.rand(2, 1, 4, 4))
    attempt, asked = export_bounds._attempt, []

    def tied(*args, free):
        asked.append(free)
        if free:
            raise UnsupportedError("a rule ties the sizes")
        return attempt(*args, free=free)

    monkeypatch.setattr(export_bounds, "_attempt", tied)
    written = write_bounds(net, tmp_path / "bounds.onnx", torch.rand(2, 1, 4, 4))
    assert asked == [True, False]
    assert (written.batch, written.rows) == (1, 4)
    assert written.difference <= 1e-4


def test_error_symbols_are_in_the_file(tmp_path):
    """So many that some images have errors left over, and any number of images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    net = bound(settled(model), BiasField(1, 0.3), clip=None, example=torch.rand(2, 1, 4, 4), symbols=3)
    written = write_bounds(net, tmp_path / "bounds.onnx", torch.rand(1, 1, 4, 4))
    assert (written.batch, written.rows) == (None, None)
    image, spec = torch.rand(5, 1, 4, 4), torch.randn(5, 2, 3)
    image[0] /= 100
    found = run(tmp_path / "bounds.onnx", image.numpy(), spec.numpy())
    for ours, theirs in zip(net.bounds(image, spec), found, strict=True):
        assert_close(theirs, ours)


def test_a_file_has_a_number_of_symbols(tmp_path):
    net = bound(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), BiasField(1, 0.1), example=torch.rand(2, 1, 4, 4), symbols="all"
    )
    with pytest.raises(UsageError, match="give a number of symbols"):
        write_bounds(net, tmp_path / "bounds.onnx", torch.rand(1, 1, 4, 4))
    assert not any(tmp_path.iterdir())


def test_full_rsip_has_no_fixed_graph(tmp_path):
    with pytest.raises(UsageError, match="rsip-ssip"):
        write_bounds(bounded(method="rsip"), tmp_path / "bounds.onnx", torch.rand(1, 1, 8, 8))
    assert not any(tmp_path.iterdir())


def test_a_file_that_would_differ_is_not_written(tmp_path, monkeypatch):
    def wrong(*_):
        nodes = [
            helper.make_node("ReduceMin", ["spec"], ["lower"], axes=[2], keepdims=0),
            helper.make_node("ReduceMax", ["spec"], ["upper"], axes=[2], keepdims=0),
        ]
        box = (("center", 1, [1, 4]), ("radius", 1, [1, 4]))
        inputs = (("image", 1, ["batch", 1, 8, 8]), ("spec", 1, ["batch", "rows", 10]), *box)
        outputs = (("lower", 1, None), ("upper", 1, None))
        return onnx.load(by_hand(tmp_path / "wrong", nodes, inputs=inputs, outputs=outputs, opset=17))

    monkeypatch.setattr(export_bounds, "_exported", wrong)
    with pytest.raises(UnsupportedError, match="differs"):
        write_bounds(bounded(), tmp_path / "bounds.onnx", torch.rand(1, 1, 8, 8))
    assert not (tmp_path / "bounds.onnx").exists()


def test_an_operation_that_onnx_lacks_is_named(monkeypatch, tmp_path):
    def export(*_, **__):
        raise RuntimeError("No ONNX function found for <OpOverload(op='aten.lgamma', overload='default')>")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(UnsupportedOpError, match=r"aten\.lgamma"):
        write_bounds(bounded(method="ibp"), tmp_path / "bounds.onnx", torch.rand(1, 1, 8, 8))
