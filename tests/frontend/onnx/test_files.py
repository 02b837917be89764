"""ONNX files as people have them: nodes in any order, dead branches, several outputs, open sizes, fused operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.onnx.header import Axis, read_header
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.frontend.onnx.runtime import OnnxSession, difference
from robnet_fx.interchange.network import write_onnx
from tests.onnx_files import by_hand, weight

node = helper.make_node
DENSE = [node("MatMul", ["x", "W"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "V"], ["y"])]
WEIGHTS = {"W": weight(4, 6), "V": weight(6, 3, seed=1)}
POOLED = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "V"], ["y"])]


def in_domain(path: Path, *domains: str) -> Path:
    """The file, with operators of other domains allowed."""
    proto = onnx.load(path)
    proto.opset_import.extend(helper.make_opsetid(name, 1) for name in domains)
    onnx.save(proto, path)
    return path


def refused(path: Path, **options) -> RobnetError:
    with pytest.raises(RobnetError) as caught:
        load_onnx(path, **options)
    return caught.value


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A branch whose last node gives its value."""
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)])


# ---- order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_nodes_in_any_order_are_read_and_written_back_in_it(tmp_path, order):
    path = by_hand(tmp_path / "net.onnx", [DENSE[i] for i in order], WEIGHTS)
    model, images = load_onnx(path), torch.rand(3, 4)
    plain = load_onnx(by_hand(tmp_path / "plain.onnx", DENSE, WEIGHTS))
    torch.testing.assert_close(model(images), plain(images))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert write_onnx(model, tmp_path / "out.onnx", images) == "initialisers"
    assert list(onnx.load(tmp_path / "out.onnx").graph.node) == list(onnx.load(path).graph.node)
    torch.testing.assert_close(load_onnx(tmp_path / "out.onnx")(images), plain(images) / 4)


def test_nodes_in_a_circle_are_a_damaged_file(tmp_path):
    nodes = [node("Add", ["x", "b"], ["a"]), node("Add", ["a", "x"], ["b"]), node("MatMul", ["b", "W"], ["y"])]
    assert "in a circle" in str(refused(by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3)})))


# ---- what the logits do not need -----------------------------------------------------------------------------------

DEAD = {
    "an operator nobody knows": [node("Frobnicate", ["r"], ["z"], domain="acme")],
    "NaN": [node("Add", ["r", "nan"], ["z"])],
    "control flow": [
        node(
            "If",
            ["flag"],
            ["z"],
            then_branch=branch("t", node("Hardmax", ["r"], ["t"])),
            else_branch=branch("e", node("Det", ["r"], ["e"])),
        )
    ],
    "a label": [node("ArgMax", ["y"], ["z"], axis=1)],
}


@pytest.mark.parametrize("kind", DEAD)
@pytest.mark.parametrize("declared", [False, True], ids=["dead", "an output"])
def test_only_what_the_logits_need_counts(tmp_path, kind, declared):
    """Dead, or an output of its own that can be no logits for its type or its shape."""
    shape = {"a label": ("z", 7, ["N"])}.get(kind, ("z", 1, ["N", 5, 5]))
    outputs = [("y", 1, ["N", 3]), *([shape] if declared else [])]
    extra = {"nan": np.array(np.nan, np.float32), "flag": np.array(True)}
    path = by_hand(tmp_path / "net.onnx", [*DEAD[kind], *DENSE], {**WEIGHTS, **extra}, outputs=outputs)
    model, images = load_onnx(in_domain(path, "acme")), torch.rand(3, 4)
    torch.testing.assert_close(model(images), load_onnx(by_hand(tmp_path / "y.onnx", DENSE, WEIGHTS))(images))
    assert ("not z" in model.remarks.get("output", "")) == declared
    write_onnx(model, tmp_path / "out.onnx", images)
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(path)


def test_a_map_of_probabilities_is_its_tensor(tmp_path):
    """As converters of scikit-learn write a classifier: a label, and a list of dicts."""
    nodes = [
        *DENSE,
        node("Softmax", ["y"], ["s"], axis=1),
        node("ArgMax", ["s"], ["label"], axis=1, keepdims=0),
        node("ZipMap", ["s"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    path = by_hand(tmp_path / "net.onnx", nodes, WEIGHTS, outputs=[("label", 7, ["N"]), ("maps", 1, None)])
    proto = onnx.load(path)
    proto.graph.output[1].CopyFrom(onnx.ValueInfoProto(name="maps"))
    maps = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(1, None))
    proto.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(maps))
    onnx.save(proto, path)
    model = load_onnx(in_domain(path, "ai.onnx.ml"))
    assert (model.output_name, model.classes) == ("s", 3)
    assert model.remarks["output"] == "s, of which maps is made"
    assert load_onnx(path, output="maps").output_name == "s"


def test_branches_that_shapes_choose_are_taken(tmp_path):
    """As PyTorch's older exporter writes a squeeze: where the axis is not 1 long, the value stays."""
    nodes = [
        *DENSE[:2],
        node("MatMul", ["r", "V"], ["v"]),
        node("Shape", ["v"], ["s"]),
        node("Gather", ["s", "one"], ["n"], axis=0),
        node("Equal", ["n", "one"], ["c"]),
        node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch("t", node("Squeeze", ["v"], ["t"])),
            else_branch=branch("e", node("Neg", ["v"], ["e"])),
        ),
    ]
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, {**WEIGHTS, "one": np.array(1, np.int64)}))
    assert model.classes == 3


# ---- which output --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """Logits and an embedding: only a person knows which is which."""
    outputs = [("y", 1, ["N", 3]), ("r", 1, ["N", 6])]
    return by_hand(tmp_path / "two.onnx", DENSE, WEIGHTS, outputs=outputs)


def test_several_outputs_need_a_name_that_the_written_file_remembers(two, tmp_path):
    error = refused(two)
    assert isinstance(error, UsageError) and "--output NAME" in str(error)
    assert "y (FLOAT [N, 3])" in str(error) and "r (FLOAT [N, 6])" in str(error)
    model, out = load_onnx(two, output="y"), tmp_path / "out.onnx"
    write_onnx(model, out, torch.rand(2, 4))
    assert [value.name for value in onnx.load(out).graph.output] == ["y", "r"]
    again = load_onnx(out)
    assert (again.output_name, again.classes) == ("y", 3)
    assert load_onnx(out, output="r").classes == 6
    net = robnet_fx.bound(again, BiasField(0, 0.1), example=torch.rand(2, 1, 2, 2))
    assert net.remarks["output"] == "y, chosen of 2 outputs"


@pytest.mark.parametrize(("name", "classes"), [("y", 3), ("r", 6), ("h", 6)])
def test_any_tensor_can_be_named(two, name, classes):
    images = torch.rand(3, 4)
    model = load_onnx(two, output=name)
    assert model.classes == classes
    proto = onnx.load(two)
    proto.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run([name], {"x": images.numpy()})
    torch.testing.assert_close(model(images), torch.from_numpy(theirs))


def test_names_that_are_no_logits(two, tmp_path):
    assert isinstance(refused(two, output="logits"), UsageError)
    label = by_hand(
        tmp_path / "label.onnx", [*DENSE, node("ArgMax", ["y"], ["l"], axis=1)], WEIGHTS, outputs=[("l", 7, None)]
    )
    assert "such as 'y'" in str(refused(label))
    assert load_onnx(label, output="y").classes == 3
    assert "is no logits" in str(refused(label, output="l"))


# ---- sizes that the images settle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [["N", 3, "H", "W"], [2, 3, "H", 8], None], ids=["all", "one", "no shape"])
def test_open_sizes_are_those_of_the_images(tmp_path, sizes):
    path = by_hand(tmp_path / "net.onnx", POOLED, {"V": weight(3, 3)}, inputs=[("x", 1, sizes)])
    assert "--data" in str(refused(path)) and isinstance(refused(path), UsageError)
    for side in (4, 6):
        model = load_onnx(path, (3, side, 8))
        assert model.input_shape == (3, side, 8)
    if sizes is not None:
        assert "does not take [3, 8]" in str(refused(path, shape=(3, 8)))
    graph = robnet_fx.trace(path, torch.rand(2, 3, 5, 8))
    assert graph.graph.find_nodes(op="placeholder")[0].meta["shape"] == (3, 5, 8)
    write_onnx(model, tmp_path / "out.onnx", torch.rand(2, 3, 6, 8))
    assert onnx.load(tmp_path / "out.onnx").graph.input == onnx.load(path).graph.input


def test_the_header_says_what_is_known_without_weights(tmp_path):
    nodes = [
        node("Sub", ["x", "mean"], ["c"]),
        node("Transpose", ["c"], ["t"], perm=[0, 3, 1, 2]),
        node("GlobalAveragePool", ["t"], ["p"]),
        *POOLED[1:],
    ]
    constants = {"V": weight(3, 3), "mean": weight(3)}
    path = by_hand(tmp_path / "net.onnx", nodes, constants, inputs=[("x", 1, ["N", "height", 8, 3])])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").unlink()
    header = read_header(path)
    assert header.image.axes == (Axis(None, "N"), Axis(None, "height"), Axis(8), Axis(3))
    assert header.image.open == ("height",) and header.fixed_batch is None
    assert header.image.takes((5, 8, 3)) and not header.image.takes((5, 8, 1)) and not header.image.takes((8, 3))
    assert header.transposes == ((0, 3, 1, 2),) and header.metadata == {"labels": "a,b,c"}
    assert str(header.outputs[0]) == "y (FLOAT of unknown shape)"


# ---- fused operators, and quantised ones ---------------------------------------------------------------------------

MS = {"domain": "com.microsoft"}
CONV = {**MS, "kernel_shape": [2, 2]}
IMAGE = [("x", 1, ["N", 1, 3, 3])]
TOKENS = {"sh": np.array([-1, 3, 3], np.int64), "Q": weight(3, 3)}
FUSED = {
    "FusedConv": ([node("FusedConv", ["x", "K", "k"], ["c"], activation="Relu", **CONV)], {}),
    "its sum": (
        [
            node("Conv", ["x", "K", "k"], ["z"], kernel_shape=[2, 2]),
            node("FusedConv", ["x", "K2", "k", "z"], ["c"], activation="Tanh", **CONV),
        ],
        {"K2": weight(2, 1, 2, 2, seed=3)},
    ),
    "its slope": (
        [node("FusedConv", ["x", "K", "k"], ["c"], activation="LeakyRelu", activation_params=[0.3], **CONV)],
        {},
    ),
    "its limits": (
        [node("FusedConv", ["x", "K", "k"], ["c"], activation="Clip", activation_params=[0.0, 0.2], **CONV)],
        {},
    ),
    "FusedGemm": (
        [
            node("Flatten", ["x"], ["f"]),
            node("FusedGemm", ["f", "G", "g"], ["c"], activation="LeakyRelu", activation_alpha=0.3, transB=1, **MS),
        ],
        {"G": weight(8, 9), "g": weight(8)},
    ),
    "FusedMatMul": (
        [node("Flatten", ["x"], ["f"]), node("FusedMatMul", ["f", "G"], ["c"], transB=1, alpha=0.5, **MS)],
        {"G": weight(8, 9)},
    ),
    "of two values": (
        [
            node("Reshape", ["x", "sh"], ["t"]),
            node("FusedMatMul", ["t", "t"], ["s"], transA=1, alpha=0.5, **MS),
            node("MatMul", ["s", "R"], ["c"]),
        ],
        {"R": weight(3, 2), **TOKENS},
    ),
    "BiasGelu": ([node("Flatten", ["x"], ["f"]), node("BiasGelu", ["f", "b"], ["c"], **MS)], {"b": weight(9)}),
    "FastGelu": ([node("FastGelu", ["x"], ["c"], **MS)], {}),
    "QuickGelu": ([node("QuickGelu", ["x"], ["c"], alpha=1.5, **MS)], {}),
    "SkipLayerNormalization": (
        [
            node("Reshape", ["x", "sh"], ["t"]),
            node("MatMul", ["t", "Q"], ["q"]),
            node("SkipLayerNormalization", ["t", "q", "g", "b", "i"], ["o", "", "", "sum"], epsilon=1e-5, **MS),
            node("Add", ["o", "sum"], ["c"]),
        ],
        {**TOKENS, **{name: weight(3, seed=i) for i, name in enumerate("gbi")}},
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_onnxruntime_fuses_is_read_and_written_back(tmp_path, name):
    nodes, constants = FUSED[name]
    size = {"FusedGemm": 8, "FusedMatMul": 8, "of two values": 6, "FusedConv": 8}.get(name, 8 if "its" in name else 9)
    weights = {"K": weight(2, 1, 2, 2), "k": weight(2), **constants, "V": weight(size, 3)}
    last = [node("Flatten", ["c"], ["v"]), node("MatMul", ["v", "V"], ["y"])]
    used = {key: value for key, value in weights.items() if any(key in n.input for n in [*nodes, *last])}
    path = in_domain(by_hand(tmp_path / "net.onnx", [*nodes, *last], used, inputs=IMAGE), "com.microsoft")
    model, images = load_onnx(path), torch.rand(3, 1, 3, 3)
    assert difference(model(images), OnnxSession(path)(images)) < 1e-4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert write_onnx(model, tmp_path / "out.onnx", images) == "initialisers"
    assert list(onnx.load(tmp_path / "out.onnx").graph.node) == list(onnx.load(path).graph.node)


@pytest.mark.parametrize("kind", ["weights", "activations", "integers"])
def test_quantised_files_are_refused_with_what_to_do(tmp_path, kind):
    scale = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "q": np.ones((4, 3), np.int8)}
    nodes = {
        "weights": [node("DequantizeLinear", ["q", "s", "z"], ["W"]), node("MatMul", ["x", "W"], ["y"])],
        "activations": [
            node("QuantizeLinear", ["x", "s", "z"], ["i"]),
            node("DequantizeLinear", ["i", "s", "z"], ["d"]),
            node("MatMul", ["d", "V"], ["y"]),
        ],
        "integers": [
            node("QuantizeLinear", ["x", "s", "z"], ["i"]),
            node("MatMulInteger", ["i", "q"], ["m"]),
            node("Cast", ["m"], ["y"], to=1),
        ],
    }[kind]
    error = refused(by_hand(tmp_path / "net.onnx", nodes, {**scale, "V": weight(4, 3)}))
    assert isinstance(error, UnsupportedError)
    assert "is quantised" in str(error) and "take the file in floating point" in str(error)


# ---- arguments for shape and type only -----------------------------------------------------------------------------

ONLY_SHAPE = {
    "CastLike": [node("CastLike", ["c", "x"], ["a"]), node("Add", ["x", "a"], ["s"])],
    "CastLike of x": [node("CastLike", ["x", "c"], ["s"])],
    "ConstantOfShape": [
        node("Shape", ["x"], ["n"]),
        node("ConstantOfShape", ["n"], ["a"], value=helper.make_tensor("v", 1, [1], [0.5])),
        node("Add", ["x", "a"], ["s"]),
    ],
    "Expand": [node("Shape", ["x"], ["n"]), node("Expand", ["c", "n"], ["a"]), node("Add", ["x", "a"], ["s"])],
    "Where": [
        node("Equal", ["target", "minus"], ["e"]),
        node("Where", ["e", "ones", "target"], ["n"]),
        node("Expand", ["c", "n"], ["a"]),
        node("Add", ["x", "a"], ["s"]),
    ],
}


@pytest.mark.parametrize("name", ONLY_SHAPE)
def test_arguments_for_shape_and_type_carry_no_dependence(tmp_path, name):
    constants = {"c": np.arange(4, dtype=np.float32)[None], "target": np.array([-1, 4]), "minus": np.array([-1, -1])}
    weights = {"W": weight(4, 3), **constants, "ones": np.array([1, 1])}
    path = by_hand(tmp_path / "net.onnx", [*ONLY_SHAPE[name], node("MatMul", ["s", "W"], ["y"])], weights, opset=19)
    graph = robnet_fx.trace(load_onnx(path), torch.rand(2, 1, 2, 2))
    calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert len(calls) <= 2 and torch.ops.aten.matmul.default in calls
