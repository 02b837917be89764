"""A small real classifier as an ONNX file, and the command line run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from robnet_fx.cli.main import app
from robnet_fx.cli.options import Effort
from robnet_fx.interchange.network import write_onnx
from robnet_fx.verify.score import Score
from tests.small import bounded, digits


@pytest.fixture(scope="session")
def content(tmp_path_factory):
    """A digits classifier, about 90 % right; nothing in the file names its data set."""
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    write_onnx(bounded(fit=200).model, path, digits()[0][:2] / 255)
    return path.read_bytes()


@pytest.fixture
def model(tmp_path, content, monkeypatch):
    """The classifier as net.onnx, alone in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(content)
    return Path("net.onnx")


@pytest.fixture
def run(model, monkeypatch):
    """`run("certify", model, "--eps", 40)`: exit code, stdout and stderr, in the directory of `model`.

    The width is given, for a test runner may set another one in the environment; and where nothing is said an image may
    cost a few parts instead of ten seconds, so that no answer hangs on the clock. What is trained for a step or two to
    have a result passes for better than what came in; `test_no_better.py` is about one that is not.
    """
    monkeypatch.setattr(Score, "better_than", lambda after, before: True)
    own = Effort.limits
    monkeypatch.setattr(Effort, "limits", lambda self: own(Effort(boxes=8) if self == Effort() else self))
    return lambda *args: CliRunner(env={"COLUMNS": "120"}).invoke(app, [str(arg) for arg in args])
