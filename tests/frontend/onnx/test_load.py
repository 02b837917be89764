"""Any ONNX classifier: the same numbers as onnxruntime, any batch size, trainable, and one line for what is wrong."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx2torch.node_converters import OnnxBinaryMathOperation, get_converter
from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
from torch import nn

from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.frontend.onnx.operators import convert
from robnet_fx.frontend.onnx.runtime import OnnxSession, difference
from robnet_fx.machine.torch_internals import without_exports_own_remarks
from tests.onnx_files import CLASSES, SIZE, Residual, by_hand, convnet, exported, settled, weight

EXPORTS = [(False, opset, dynamic) for opset in (9, 11, 13, 17, 18, 20) for dynamic in (False, True)]
EXPORTS += [(True, 18, True), (True, 20, False), (True, 20, True), (True, 23, True)]
PUBLIC = [  # file, image shape, parameters
    ("cifar_base_kw", (3, 32, 32), 105_966),
    ("resnet_2b", (3, 32, 32), 112_006),
    ("cifar10_small", (32, 32, 3), 85_218),
    ("Convnet_maxpool", (1, 28, 28), 11_690),
    ("ffnnSIGMOID__Point_6x200", (1, 28, 28), 360_010),
    ("mnist_0.1", (1, 28, 28), 348_374),
    ("pgd_2_3_16", (3, 32, 32), 75_658),
    ("cifar_base", (3, 32, 32), 311_690),
    ("cifar_bias_field_0", (16,), 363_914),
]


def traced(model, images):
    """The graph torch.export makes of a model with a free batch, and the ATen operations in it."""
    with without_exports_own_remarks():
        program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        program = program.run_decompositions({})
    return program.module(), {str(n.target) for n in program.graph.nodes if n.op == "call_function"}


@pytest.mark.parametrize(("dynamo", "opset", "dynamic"), EXPORTS)
@pytest.mark.parametrize("make", [convnet, Residual])
def test_both_exporters_every_opset(tmp_path, make, dynamo, opset, dynamic):
    net = settled(make())
    model = load_onnx(exported(net, tmp_path / "net.onnx", dynamo=dynamo, dynamic=dynamic, opset=opset))
    assert (model.input_shape, model.classes, model.dynamic_batch) == (SIZE, CLASSES, dynamic)
    assert (model.input_name, model.output_name) == ("pixels", "scores")
    for batch in (1, 5):
        images = torch.rand(batch, *SIZE)
        torch.testing.assert_close(model(images), net(images), rtol=1e-4, atol=1e-5)
    graph, operations = traced(model, images)
    torch.testing.assert_close(graph(images), model(images))
    assert {"aten.conv2d.default", "aten.relu.default", "aten.linear.default"} <= operations
    assert all(model.stored[name] is not None for name, _ in model.named_parameters())


@pytest.mark.parametrize(("name", "shape", "parameters"), PUBLIC)
def test_public_networks(models_dir, name, shape, parameters):
    model = load_onnx(models_dir / f"{name}.onnx")
    assert (model.input_shape, model.classes) == (shape, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters
    images = torch.rand(5, *shape)
    graph, _ = traced(model, images)
    torch.testing.assert_close(graph(images), model(images))
    assert difference(model(images), OnnxSession(model.proto)(images)) < 1e-4
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_normalisation_and_statistics_are_not_trained(tmp_path):
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "W"], ["z"], name="dense"),
        helper.make_node("Add", ["z", "b"], ["zb"], name="shift"),
        helper.make_node("BatchNormalization", ["zb", "s", "c", "m", "v"], ["n"], name="norm"),
        helper.make_node("Mul", ["n", "half"], ["y"]),
    ]
    weights = {"mean": weight(4), "std": weight(4) + 1, "W": weight(4, 3), "b": weight(3), "half": np.float32(0.5)}
    weights |= {"s": weight(3), "c": weight(3), "m": weight(3), "v": weight(3) + 1}
    weights["half"] = np.array(0.5, np.float32)
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, weights))
    trained = {model.stored[name].name for name, _ in model.named_parameters()}
    assert trained == {"W", "b", "s", "c"}
    assert model.metadata == {"labels": "a,b,c"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    first = model(torch.rand(8, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first.requires_grad
    assert model.network.norm.running_mean.equal(before["network.norm.running_mean"])


def test_constants_reach_the_file_through_identity_and_transpose(tmp_path):
    nodes = [
        helper.make_node("Identity", ["W"], ["W1"]),
        helper.make_node("Transpose", ["W1"], ["W2"]),
        helper.make_node("MatMul", ["x", "W2"], ["z"]),
        helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(weight(3))),
        helper.make_node("Add", ["z", "c"], ["y"]),
    ]
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(3, 4)}))
    assert {stored.name for stored in model.stored.values()} == {"W", "c"}


def test_a_shared_initialiser_is_one_parameter(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "W"], ["y"]),
    ]
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 4)}))
    assert len(list(model.parameters())) == 1


def test_copies_share_nothing(tmp_path):
    model = load_onnx(exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17))
    images = torch.rand(2, *SIZE)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not torch.allclose(model(images), twin(images))
    torch.testing.assert_close(model.double()(images.double()).float(), load_onnx(model.path)(images))


def test_weights_can_be_put_back(tmp_path):
    """A plain dict, as the best weights of a run are kept: torch's batch norm wants its counter then."""
    model = load_onnx(exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(kept)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_weights_beside_the_file(tmp_path):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=True, dynamic=True, opset=20)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    load_onnx(path)
    (tmp_path / "net.data").unlink()
    with pytest.raises(UsageError, match="keeps its weights in another file"):
        load_onnx(path)


# ---- what is wrong, in one line ------------------------------------------------------------------------------------


def refused(path, kind=UnsupportedError):
    with pytest.raises(RobnetError) as caught:
        load_onnx(path)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ONNX file"),
        (b"a text\n", "is not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is not an ONNX file"),
    ],
)
def test_not_an_onnx_file(tmp_path, content, words):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert words in refused(path, UsageError)
    assert "No such file" in refused(tmp_path / "absent.onnx", UsageError)
    assert "Is a directory" in refused(tmp_path, UsageError)


def test_truncated_anywhere(tmp_path):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    data = path.read_bytes()
    for length in (5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert refused(path, UsageError) == f"{path} is truncated or damaged"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    bad = weight(4, 3)
    bad[1, 1] = value
    nodes = [helper.make_node("Gemm", ["x", "dense.weight", "dense.bias"], ["y"])]
    path = by_hand(tmp_path / "net.onnx", nodes, {"dense.weight": bad, "dense.bias": weight(3)})
    assert refused(path, UsageError) == f"{path}: NaN or infinite weights in dense.weight"


def test_an_infinite_bound_is_not_a_bad_weight(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["z"]),
        helper.make_node("Clip", ["z", "zero", "inf"], ["y"]),
    ]
    scalars = {"zero": np.array(0, np.float32), "inf": np.array(np.inf, np.float32)}
    load_onnx(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3), **scalars}))


@pytest.mark.parametrize(
    ("nodes", "options", "words"),
    [
        (
            [helper.make_node("Add", ["x", "z"], ["y"])],
            {"inputs": [("x", 1, ["N", 3]), ("z", 1, ["N", 3])]},
            "a classifier has one input, and this network has 2: ['x', 'z']",
        ),
        (
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
            {"inputs": [("x", TensorProto.INT8, ["N", 3])]},
            "the input x is INT8, and images are floating point or UINT8",
        ),
        (
            [helper.make_node("Relu", ["x"], ["y"])],
            {"inputs": [("x", 1, ["N", 3, 8])]},
            "a classifier's output is [batch, classes], and y is [7, 3, 8] for 7 image(s)",
        ),
        (
            [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("ReduceSum", ["t"], ["y"])],
            {},
            "images would not be independent of each other",
        ),
        (
            [helper.make_node("Softmax", ["x"], ["s"], axis=0), helper.make_node("Relu", ["s"], ["y"])],
            {"inputs": [("x", 1, [1, 4])]},
            "along the batch",
        ),
        (
            [
                helper.make_node("Transpose", ["x"], ["t"]),
                helper.make_node("MatMul", ["x", "t"], ["g"]),
                helper.make_node("MatMul", ["g", "x"], ["y"]),
            ],
            {},
            "the logits of an image depend on the other images of its batch",
        ),
    ],
    ids=["inputs", "type", "output", "scalar", "batch", "mixing"],
)
def test_networks_that_are_no_classifiers(tmp_path, nodes, options, words):
    assert words in refused(by_hand(tmp_path / "net.onnx", nodes, **options))


def test_every_unsupported_node_is_listed(tmp_path):
    nodes = [
        helper.make_node("Hardmax", ["x"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "W"], ["z"], name="fine"),
        helper.make_node("Det", ["z"], ["d"], name="second"),
        helper.make_node("Hardmax", ["d"], ["y"], name="third"),
    ]
    message = refused(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3)}))
    headline, *rest = message.splitlines()
    assert headline.endswith("net.onnx: 3 node(s) cannot be converted to PyTorch")
    assert [line.split(":")[0].strip() for line in rest[:3]] == [
        "node    first (Hardmax)",
        "node    second (Det)",
        "node    third (Hardmax)",
    ]
    assert rest[3].strip().startswith("remedy")


def test_training_mode_is_refused(tmp_path):
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "c", "m", "v"], ["y", "m1", "v1"], training_mode=1),
    ]
    weights = {name: weight(4) + 1 for name in "scmv"}
    assert "export the model after model.eval()" in refused(by_hand(tmp_path / "net.onnx", nodes, weights))


def test_a_disagreement_with_onnxruntime_is_an_error(tmp_path, monkeypatch):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    wrong = lambda node, graph: OperationConverterResult(nn.Tanh(), onnx_mapping_from_node(node))  # noqa: E731
    found = convert._find
    monkeypatch.setattr(convert, "_find", lambda op, *rest: (wrong, 14) if op == "Relu" else found(op, *rest))
    assert "PyTorch and onnxruntime disagree by" in refused(path)


# ---- what it is made of --------------------------------------------------------------------------------------------


def test_layers_are_those_of_onnx2torch(tmp_path):
    model = load_onnx(exported(settled(Residual()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=20))
    layers = {type(layer).__name__: layer for layer in model.network.children()}
    assert isinstance(layers["Conv"], nn.Conv2d) and isinstance(layers["Gemm"], nn.Linear)
    assert isinstance(layers["Relu"], nn.ReLU) and isinstance(layers["Add"], OnnxBinaryMathOperation)
    assert isinstance(layers["AveragePool"], nn.AvgPool2d)  # of opset 19, by the converter of opset 11
    assert get_converter("Gelu", 20) is not None  # added


def test_messages_name_the_node(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], name="/body/dense/MatMul"),
        helper.make_node("Erf", ["h"], ["e"], name="odd"),
        helper.make_node("Add", ["e", "b"], ["y"]),
    ]
    graph = trace(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3), "b": weight(3)}))
    layers = {node.name: node.meta.get("layer") for node in graph.graph.nodes if node.op == "call_function"}
    assert layers == {
        "matmul": ("network.body_dense_MatMul", "onnx.MatMul /body/dense/MatMul"),
        "erf": ("network.odd", "onnx.Erf"),
        "add": ("network.add_2", "onnx.Add"),
    }


def test_reading_draws_no_random_numbers(tmp_path):
    path = exported(settled(convnet()), tmp_path / "net.onnx", dynamo=False, dynamic=True, opset=17)
    state = torch.get_rng_state()
    load_onnx(path)
    assert torch.equal(torch.get_rng_state(), state)


def test_constants_beside_data_serve_any_batch(tmp_path):
    """A class token: [1, 1, 4] repeated for each image, before four patches and after them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Concat", ["s", "rest"], ["shape"], axis=0),
        helper.make_node("Expand", ["token", "shape"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x", "tokens"], ["all"], axis=1),
        helper.make_node("Flatten", ["all"], ["y"]),
    ]
    weights = {"token": weight(1, 1, 4), "rest": np.array([1, 4], np.int64)}
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, weights, inputs=[("x", 1, ["N", 3, 4])]))
    images = torch.rand(3, 3, 4)
    graph, _ = traced(model, images)
    torch.testing.assert_close(graph(images), OnnxSession(model.proto)(images))
