"""`robnet-fx verify`: the four answers, counterexamples that the file itself confirms, and what a property is about:
the file's own inputs and outputs, whatever they look like."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from robnet_fx.opening.instance import Instance
from tests.gaps import forgetful  # noqa: F401  (a fixture)
from tests.onnx_files import by_hand, weight

FLOAT = TensorProto.FLOAT


def layers(path="net.onnx", shape=(1, 2), outputs=2, end=(), seed=0, props=None, **more):
    """A network of one hidden layer over inputs of any shape, with nodes at its `end` that read `z` and give `y`."""
    count = int(np.prod([{"open": 2, "h": 1, "w": 1}.get(size, size) for size in shape[1:]]))
    weights = {
        "flat": np.array([-1, count]),
        "w": 4 * weight(count, 8, seed=seed),
        "b": weight(8, seed=seed + 1),
        "v": 4 * weight(8, outputs, seed=seed + 2),
        "c": weight(outputs, seed=seed + 3),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["z" if end else "y"]),
        *end,
    ]
    made = by_hand(Path(path), nodes, weights, inputs=(("x", FLOAT, list(shape)),), **more)
    if props:
        proto = onnx.load(made)
        helper.set_model_props(proto, props)
        onnx.save(proto, made)
    return made


def stated(text, inputs=2, outputs=2, path="p.vnnlib", box=(0.0, 1.0)):
    """A property file: the box, and a text of asserts."""
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(outputs)]
    lines += [f"(assert (>= X_{i} {box[0]})) (assert (<= X_{i} {box[1]}))" for i in range(inputs)]
    Path(path).write_text("\n".join([*lines, text]))
    return path


def shape_of(session):
    """Of an input of the session's file; a size called `open` is 2."""
    return [size if isinstance(size, int) else {"open": 2}.get(size, 1) for size in session.get_inputs()[0].shape]


def sampled(path="net.onnx", count=2000, box=(0.0, 1.0)):
    """Outputs `[count, m]` of the file at points of a box, half of them corners and middles of its sides."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape = shape_of(session)
    points = np.random.default_rng(0).uniform(*box, (count, *shape)).astype(np.float32)
    points[: count // 2] = np.linspace(*box, 3)[np.random.default_rng(1).integers(0, 3, (count // 2, *shape))]
    return np.stack([session.run(None, {session.get_inputs()[0].name: x})[0].reshape(-1) for x in points])


def found_in(text):
    """X and Y of a counterexample as it is printed."""
    values = re.findall(r"\(([XY])_(\d+) (\S+?)\)", text)
    assert text.count("(") == text.count(")") == len(values) + 1
    return [np.array([float(v) for kind, _, v in values if kind == wanted]) for wanted in "XY"]


def assert_confirmed(text, path="net.onnx", box=(0.0, 1.0)):
    x, y = found_in(text)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape = shape_of(session)
    assert np.array_equal(x, x.astype(np.float32)) and (box[0] <= x).all() and (x <= box[1]).all()
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32).reshape(shape)})
    assert np.array_equal(outputs.reshape(-1), y)
    return y


@pytest.fixture
def verify(run):
    def call(*args, model="net.onnx", path="p.vnnlib"):
        result = run("verify", model, path, "--boxes", 500, *args)
        assert result.exit_code == 0, result.output
        return result

    return call


def test_holds_and_violated(verify):
    """On both sides of what a thousand corners and points reach."""
    layers()
    top = float(sampled()[:, 0].max())
    stated(f"(assert (>= Y_0 {top + 0.01}))")
    held = verify("--results", "r.txt")
    assert held.stdout == "holds\n" and Path("r.txt").read_text() == "unsat\n"
    stated(f"(assert (>= Y_0 {top - 0.05}))")
    violated = verify("--results", "r.txt")
    first, *rest = violated.stdout.splitlines()
    assert first == "violated" and assert_confirmed("\n".join(rest))[0] >= top - 0.05
    assert Path("r.txt").read_text() == "sat\n" + violated.stdout.removeprefix("violated\n")
    assert re.fullmatch(r"\(\(X_0 \S+\)\n \(X_1 \S+\)\n \(Y_0 \S+\)\n \(Y_1 \S+\)\)", "\n".join(rest))


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 2, 1), ("N", 2), (1, "open", 1)])
def test_inputs_of_any_shape(verify, shape):
    layers(shape=shape)
    stated(f"(assert (>= Y_0 {float(sampled()[:, 0].max()) - 0.05}))")
    assert_confirmed(verify().stdout.removeprefix("violated\n"))


def test_unknown_and_timeout(verify, run):
    """Of relu(x) - relu(x) one box does not see that it is 0."""
    weights = {"w": np.ones((1, 2), np.float32), "v": np.array([[1], [-1]], np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    by_hand(Path("net.onnx"), nodes, weights, inputs=(("x", FLOAT, [1, 1]),))
    stated("(assert (>= Y_0 0.001))", inputs=1, outputs=1, box=(-1.0, 1.0))
    limited = verify("--boxes", 1, "--results", "r.txt")
    assert limited.stdout == "unknown\n" and "of the box proved" in limited.stderr
    assert Path("r.txt").read_text() == "unknown\n"
    late = run("verify", "net.onnx", "p.vnnlib", "--timeout", 0, "--results", "r.txt")
    assert (late.exit_code, late.stdout, Path("r.txt").read_text()) == (0, "timeout\n", "timeout\n")
    assert "case 0: not begun" in late.stderr
    assert verify("--boxes", 50).stdout == "holds\n"


END = {
    "Relu": [helper.make_node("Relu", ["z"], ["y"])],
    "Sigmoid": [helper.make_node("Sigmoid", ["z"], ["y"])],
    "HardSigmoid": [helper.make_node("HardSigmoid", ["z"], ["y"])],
    "none": [],
    "probability": [helper.make_node("Sigmoid", ["z"], ["s"]), helper.make_node("Sub", ["one", "s"], ["y"])],
}


@pytest.mark.parametrize("end", END)
def test_one_output_is_that_number(verify, end):
    """And neither the logit of two classes nor a probability; a property is about what the file says."""
    nodes = END[end]
    if end == "probability":
        nodes = [helper.make_node("Constant", [], ["one"], value_float=1.0), *nodes]
    layers(outputs=1, end=nodes, seed=1)
    values = sampled()
    low, high = float(values.min()), float(values.max())
    assert low < high
    reach = 0.02 * (high - low)
    for condition, answer in [
        (f"(or (>= Y_0 {high + reach}) (<= Y_0 {low - reach}))", "holds"),
        (f"(and (>= Y_0 {(low + high) / 2}) (<= Y_0 {high}))", "violated"),
    ]:
        stated(f"(assert {condition})", outputs=1)
        text = verify().stdout
        assert text.split()[0] == answer, condition
        if answer == "violated":
            assert_confirmed(text.removeprefix("violated\n"))


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_a_function_at_the_end_is_part_of_the_property(verify, operator):
    """Where outputs are compared with each other it changes nothing and is left out; where they are compared with
    numbers, or added up, it stays."""
    layers(outputs=3, end=[helper.make_node(operator, ["z"], ["y"])])
    values = sampled()
    high = float(values[:, 0].max())
    sure = int(values.mean(0).argmax())
    conditions = [
        (f"(>= Y_0 {high + 0.03 * abs(high)})", "holds"),
        (f"(>= Y_0 {high - 0.03 * abs(high)})", "violated"),
        (f"(or (>= Y_0 (+ Y_1 {float((values[:, 0] - values[:, 1]).max()) + 0.05})) (>= 2 2.5))", "holds"),
        (f"(and (>= (* 2 Y_{sure}) (* 2 Y_{(sure + 1) % 3})) (<= Y_{(sure + 2) % 3} Y_{sure}))", "violated"),
    ]
    for condition, answer in conditions if operator == "Softmax" else conditions[1::2]:
        stated(f"(assert {condition})", outputs=3)
        result = verify()
        assert result.stdout.split()[0] == answer, condition
        dropped = "left out of the bounds" in result.stderr
        assert dropped is ("2 Y_" in condition)


def test_what_metadata_say_of_images_is_no_part_of_a_property(verify):
    """Neither a normalisation nor an output inside the network."""
    props = {"robnet_fx.mean": "0.5", "robnet_fx.std": "0.1", "robnet_fx.output": "r"}
    layers(props=props)
    stated(f"(assert (>= Y_0 {float(sampled()[:, 0].max()) - 0.05}))")
    assert_confirmed(verify().stdout.removeprefix("violated\n"))


def test_packed_files(verify):
    layers()
    stated(f"(assert (>= Y_0 {float(sampled()[:, 0].max()) + 0.05}))")
    for name in ("net.onnx", "p.vnnlib"):
        Path(f"{name}.gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    assert verify(model="net.onnx.gz", path="p.vnnlib.gz").stdout == "holds\n"


def test_several_boxes_and_fixed_inputs(verify, run):
    """All must hold; inputs may be fixed at another number in each; the time is shared."""
    layers(shape=(1, 3))
    boxes = ["(and (>= X_0 0) (<= X_0 1) (<= X_1 0) (>= X_1 0) (<= X_2 0.1) (>= X_2 0.1))",
             "(and (>= X_0 2) (<= X_0 3) (<= X_1 0.3) (>= X_1 0.3) (<= X_2 0.1) (>= X_2 0.1))"]  # fmt: skip
    head = "\n".join(
        [*(f"(declare-const X_{i} Real)" for i in range(3)), *(f"(declare-const Y_{i} Real)" for i in "01")]
    )
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])

    def top(count):
        starts = ((0, 0.0), (2, 0.3))
        points = [[start + t, second, 0.1] for start, second in starts for t in np.linspace(0, 1, count)]
        return max(float(session.run(None, {"x": np.array([point], np.float32)})[0][0, 0]) for point in points)

    for bar, answer in ((top(101) + 0.01, "holds"), (top(3) - 0.01, "violated")):
        Path("p.vnnlib").write_text(f"{head}\n(assert (or {' '.join(boxes)}))\n(assert (>= Y_0 {bar}))")
        for limit in (("--boxes", 100), ("--timeout", 60)):
            result = run("verify", "net.onnx", "p.vnnlib", *limit)
            assert result.stdout.split()[0] == answer and "2 boxes" in result.stderr
    (x, _) = found_in(result.stdout.removeprefix("violated\n"))
    assert x[2] == np.float32(0.1) and x[1] == (np.float32(0.3) if x[0] >= 2 else 0)


def test_what_only_exact_arithmetic_violates_is_unknown(verify):
    """The file adds and takes away 2^25: between its float32 numbers there is nothing."""
    large = {"k": np.full(1, 2.0**25, np.float32)}
    nodes = [helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Sub", ["a", "k"], ["y"])]
    by_hand(Path("net.onnx"), nodes, large, inputs=(("x", FLOAT, [1, 1]),))
    stated("(assert (>= Y_0 0.25)) (assert (<= Y_0 0.75))", inputs=1, outputs=1)
    result = verify("--results", "r.txt")
    assert result.stdout == "unknown\n" and "onnxruntime does not confirm" in result.stderr
    assert Path("r.txt").read_text() == "unknown\n"


def test_strict_conditions(verify):
    """The greatest output is met at a corner: `>=` it is violated, and `>` it is not, which no bound can tell."""
    weights = {"w": np.array([[1.0]], np.float32)}
    by_hand(Path("net.onnx"), [helper.make_node("MatMul", ["x", "w"], ["y"])], weights,
            inputs=(("x", FLOAT, [1, 1]),))  # fmt: skip
    for condition, answer in [("(>= Y_0 1)", "violated"), ("(> Y_0 1)", "unknown")]:
        stated(f"(assert {condition})", inputs=1, outputs=1)
        assert verify("--boxes", 50).stdout.split()[0] == answer


def test_the_document(verify):
    layers()
    stated(f"(assert (>= Y_0 {float(sampled()[:, 0].max()) - 0.05}))")
    document = json.loads(verify("--json").stdout)
    assert (document["command"], document["answer"]) == ("verify", "violated")
    assert document["limits"] == {"seconds": None, "boxes": 500}
    assert [len(document["counterexample"][key]) for key in ("inputs", "outputs")] == [2, 2]
    assert document["cases"][0]["answer"] == "falsified"


def two_outputs():
    layers(end=[helper.make_node("Identity", ["z"], ["y"])])
    proto = onnx.load("net.onnx")
    proto.graph.output.append(helper.make_tensor_value_info("z", FLOAT, None))
    onnx.save(proto, "net.onnx")


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda: Path("p.vnnlib").write_text("(assert (<= X_0 1))"), 2, "line 1: X_0 is not declared"),
        (lambda: stated("", inputs=3), 2, "has 2 inputs, and the property is about 3"),
        (lambda: stated("", outputs=3), 2, "has 2 outputs, and the property is about 3"),
        (lambda: Path("p.vnnlib").unlink(), 2, "cannot read"),
        (lambda: layers(shape=(5, 2)), 3, "takes 5 inputs at a time"),
        (lambda: layers(shape=(1, "h", "w", 2)), 3, "2 numbers do not settle the sizes"),
        (two_outputs, 3, "a property is about one output"),
        (lambda: Path("net.onnx").write_bytes(b"nothing"), 2, "not an ONNX file"),
    ],
)
def test_what_cannot_be_asked(run, make, code, message):
    layers()
    stated("(assert (>= Y_0 Y_1))")
    make()
    result = run("verify", "net.onnx", "p.vnnlib")
    assert result.exit_code == code and message in result.stderr and not result.stdout


@pytest.mark.usefixtures("forgetful")
def test_a_network_without_rules(run):
    layers(end=[helper.make_node("Tanh", ["z"], ["t"]), helper.make_node("Add", ["t", "t"], ["y"])])
    stated("(assert (>= Y_0 Y_1))")
    result = run("verify", "net.onnx", "p.vnnlib")
    assert result.exit_code == 3 and "tanh" in result.stderr and not result.stdout


def test_a_violation_is_never_said_unconfirmed(verify, monkeypatch):
    layers()
    stated(f"(assert (>= Y_0 {float(sampled()[:, 0].max()) - 0.05}))")
    monkeypatch.setattr(Instance, "confirm", lambda self, number, inputs: None)
    assert verify().stdout == "unknown\n"


def test_no_image_is_asked_for(verify):
    """A box of large negative numbers, and a bound of each output at its extremes."""
    layers(shape=(1, 4))
    box = (-40.0, -38.0)
    values = torch.from_numpy(sampled(box=box))
    width = values.amax(0) - values.amin(0)
    low, high = (values.amin(0) - 0.1 * width).tolist(), (values.amax(0) + 0.1 * width).tolist()
    ends = " ".join(f"(<= Y_{j} {low[j]}) (>= Y_{j} {high[j]})" for j in range(2))
    stated(f"(assert (or {ends}))", inputs=4, box=box)
    assert verify().stdout == "holds\n"


def test_an_input_without_a_batch(verify):
    """As the competition's own small tests have it: `[2]` in and `[3]` out."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    by_hand(Path("net.onnx"), nodes, {"w": 4 * weight(2, 3)}, inputs=(("x", FLOAT, [2]),), outputs=(("y", 1, [3]),))
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    corners = [session.run(None, {"x": np.array(c, np.float32)})[0] for c in np.ndindex(2, 2)]
    top = float(max(y[1] for y in corners))
    stated(f"(assert (>= Y_1 {top + 0.01}))", outputs=3)
    assert verify().stdout == "holds\n"
    stated(f"(assert (>= Y_1 {top - 0.01}))", outputs=3)
    text = verify().stdout
    x, y = found_in(text.removeprefix("violated\n"))
    assert text.startswith("violated\n")
    assert np.array_equal(session.run(None, {"x": x.astype(np.float32)})[0], y)


def test_an_input_without_a_batch_whose_nodes_need_it_so(run):
    """A column is multiplied from the left: with a batch in front it means something else."""
    by_hand(Path("net.onnx"), [helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": weight(2, 2)},
            inputs=(("x", FLOAT, [2]),), outputs=(("y", 1, [2]),))  # fmt: skip
    stated("(assert (>= Y_0 0))")
    result = run("verify", "net.onnx", "p.vnnlib")
    assert result.exit_code == 3 and not result.stdout


def test_a_device_that_is_not_there(run):
    result = run("verify", layers(), stated("(assert (>= Y_0 1000.0))"), "--device", "nowhere")
    assert result.exit_code == 2 and "device 'nowhere' cannot be used" in result.stderr
    assert run("verify", layers(), "p.vnnlib", "--device", "cpu").stdout.split() == ["holds"]
