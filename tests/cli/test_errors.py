"""Bad input: one headline, the right exit code, nothing half-written, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine import files
from robnet_fx.rules import registry
from tests.onnx_files import by_hand, weight

ROOT = Path(__file__).parents[2]
EPS = ("--eps", "40")


def refused(result, code):
    """The lines of an error report that is as it should be: a headline, and what belongs below it."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return lines[first:]


def only_the_model():
    return [path.name for path in Path().iterdir()] == ["net.onnx"]


@pytest.fixture(params=["robustify", "certify", "attack", "inspect"])
def command(request):
    return (request.param, *(("--image", 0) if request.param == "inspect" else ()))


def test_a_missing_file(run, command):
    (line,) = refused(run(*command, "absent.onnx", *EPS), 2)
    assert line == "error: cannot read absent.onnx: No such file or directory"
    assert only_the_model()


def test_not_an_onnx_file(run, model, command):
    model.write_text("once upon a time")
    (line,) = refused(run(*command, model, *EPS), 2)
    assert line == "error: net.onnx is not an ONNX file"
    assert only_the_model()


def test_a_truncated_file(run, model, content, command):
    model.write_bytes(content[: len(content) // 2])
    (line,) = refused(run(*command, model, *EPS), 2)
    assert line == "error: net.onnx is truncated or damaged"
    assert only_the_model()


@pytest.mark.parametrize("eps", ["-1", "-40/255", "-5%", "lots", "nan", "inf", "40/0", "40/", "%", "", "256", "101%"])
def test_eps_that_is_negative_too_large_or_no_number(run, model, eps):
    (line,) = refused(run("robustify", model, "--eps", eps), 2)
    assert line.startswith("error: --eps ")
    assert only_the_model()


def test_a_negative_order(run, model, command):
    (line,) = refused(run(*command, model, *EPS, "--order", -1), 2)
    assert "order" in line and "-1" in line
    assert only_the_model()


def test_an_order_that_is_no_number(run, model):
    result = run("certify", model, *EPS, "--order", "three")
    assert result.exit_code == 2
    assert "--order" in result.stderr


def test_an_unknown_data_set(run, model, command):
    line, remedy = refused(run(*command, model, *EPS, "--data", "imagenot"), 2)
    assert "unknown data set 'imagenot'" in line
    assert "digits, cifar10, mnist" in remedy
    assert only_the_model()


def test_images_of_another_shape(run, model, command):
    x, y = np.zeros((4, 1, 10, 10), np.uint8), np.arange(4)
    np.savez("small.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (line,) = refused(run(*command, model, *EPS, "--data", "small.npz"), 2)
    assert "1x10x10" in line and "1x8x8" in line


def test_an_input_that_no_data_set_has(run):
    by_hand(Path("net.onnx"), [helper.make_node("Relu", ["x"], ["y"])])
    line, _ = refused(run("certify", "net.onnx", *EPS), 2)
    assert "no data set is known" in line


def test_an_unknown_method(run, model, command):
    if command[0] != "attack":
        (line,) = refused(run(*command, model, *EPS, "--method", "magic"), 2)
        assert "magic" in line and "rsip-ssip" in line


def test_an_unknown_precision(run, model):
    (line,) = refused(run("robustify", model, *EPS, "--precision", "fp8"), 2)
    assert line == "error: unknown precision 'fp8'; known: float32, tf32, bf16"
    assert only_the_model()


def test_compiling_where_it_does_not_work(run, model, monkeypatch):
    def broken(*args):
        raise RuntimeError("No working C++ compiler found\nand a lot more")

    compile_ = BoundedModel.compile
    monkeypatch.setattr(BoundedModel, "compile", lambda net: compile_(net, backend=broken))
    line, remedy = refused(run("robustify", model, *EPS, "--compile", "--limit", 100), 2)
    assert line.startswith("error: torch.compile does not work here: ") and "C++ compiler" in line
    assert remedy == "  remedy   leave out --compile"
    assert only_the_model()


def test_numbers_that_are_none(run, model):
    (line,) = refused(run("certify", model, *EPS, "--mean", "0.4;0.5"), 2)
    assert line.startswith("error: --mean takes numbers")


def test_a_device_that_is_not_there(run, model):
    (line,) = refused(run("certify", model, *EPS, "--device", "warp"), 2)
    assert "warp" in line


def test_an_image_that_is_not_there(run, model):
    (line,) = refused(run("inspect", model, *EPS, "--image", 10**6), 2)
    assert "--image must lie between 0 and" in line
    (line,) = refused(run("inspect", model, "--image", 0), 2)
    assert line == "error: --image needs --eps, the strength of the field"


def test_unsupported_operations_are_all_listed(run, command, monkeypatch):
    for target in (torch.ops.aten.sin.default, torch.ops.aten.erf.default):
        monkeypatch.delitem(registry._TABLE, target, raising=False)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Sin", ["flat"], ["first"], name="first_wave"),
        helper.make_node("Gemm", ["first", "w"], ["hidden"]),
        helper.make_node("Sin", ["hidden"], ["second"], name="second_wave"),
        helper.make_node("Erf", ["second"], ["y"], name="bend"),
    ]
    by_hand(Path("net.onnx"), nodes, {"w": weight(64, 10)}, inputs=(("x", 1, ["N", 1, 8, 8]),))
    headline, *rest = refused(run(*command, "net.onnx", *EPS), 3)
    assert "aten.erf.default" in headline and "aten.sin.default" in headline and "3 nodes" in headline
    for name in ("first_wave", "second_wave", "bend", "remedy"):
        assert any(name in line for line in rest)
    assert only_the_model()


def test_nan_weights(run, model, command):
    proto = onnx.load(model)
    tensor = proto.graph.initializer[0]
    values = np.array(onnx.numpy_helper.to_array(tensor))
    values.flat[0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, model)
    (line,) = refused(run(*command, model, *EPS), 2)
    assert "NaN" in line and tensor.name in line
    assert only_the_model()


@pytest.fixture
def full_disk(monkeypatch):
    """`full_disk(".onnx")`: no byte can be written to files of that ending."""

    def fill(ending):
        write = files._RawFile.write

        def refuse(self, data):
            if ending in str(self.name):
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise self.error
            return write(self, data)

        monkeypatch.setattr(files._RawFile, "write", refuse)

    return fill


SHORT = ("--order", 1, "--epochs", 1, "--limit", 80, "--test-limit", 20)


@pytest.mark.parametrize("ending", [".onnx", "checkpoint", "arguments"])
def test_a_full_disk_at_save(run, model, full_disk, ending):
    full_disk(ending)
    (line,) = refused(run("robustify", model, *EPS, *SHORT), 1)
    assert "cannot write" in line and line.endswith("No space left on device")
    assert not Path("net.robust.onnx").exists()
    left = [path for path in Path().rglob("*") if path != model]
    assert not [path for path in left if path.name.endswith(".tmp") or ending in path.name]


def test_a_full_disk_at_a_certificate_or_a_network(run, model, full_disk):
    full_disk("")
    for arguments in (
        ("certify", model, *EPS, "--limit", 2, "--out", "verdict.json"),
        ("zoo", "export", "dm-small", "a.onnx"),
    ):
        (line,) = refused(run(*arguments), 1)
        assert line.endswith("No space left on device")
        assert only_the_model()


def test_what_nobody_expected_is_one_line_with_a_way_to_see_more(run, monkeypatch):
    def explode(*args, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("robnet_fx.cli.opened.load_onnx", explode)
    line, hint = refused(run("inspect", "net.onnx"), 1)
    assert line == "error: unexpected ZeroDivisionError: a bug"
    assert "ROBNET_FX_DEBUG=1" in hint
    monkeypatch.setenv("ROBNET_FX_DEBUG", "1")
    assert "Traceback" in run("inspect", "net.onnx").stderr


def test_a_certified_image_that_is_fooled_is_an_error(run, model, monkeypatch):
    """Bounds that prove everything are contradicted by points of the box."""
    import torch

    from robnet_fx.bounds.model import BoundedModel

    def lie(net, images, rows, box=None):
        return torch.full(rows.shape[:2], -1.0, dtype=images.dtype)

    monkeypatch.setattr(BoundedModel, "upper_rows", lie)
    (line,) = refused(run("certify", model, "--eps", 250, "--limit", 20), 1)
    assert "certified and yet fooled" in line


@pytest.mark.skipif(os.name == "nt", reason="a signal of its own for every process is a POSIX affair")
def test_ctrl_c_while_training_leaves_a_run_that_resumes(run, model):
    arguments = [
        "robustify",
        str(model),
        *EPS,
        "--order",
        "1",
        "--epochs",
        "30",
        "--limit",
        "100",
        "--test-limit",
        "10",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "robnet_fx", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may have it ignored
    )
    checkpoint = Path("runs/net.robust-1/checkpoint.pt")
    deadline = time.monotonic() + 100
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "error: stopped in epoch" in stderr
    assert "--resume runs/net.robust-1" in stderr
    assert not Path("net.robust.onnx").exists()

    result = run(*arguments, "--resume", checkpoint.parent, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"]["run"] == str(checkpoint.parent)
    assert len(json.loads((checkpoint.parent / "metrics.json").read_text())["epochs"]) == 30
    assert [path.name for path in Path("runs").iterdir()] == ["net.robust-1"]
    assert Path("net.robust.onnx").exists()
