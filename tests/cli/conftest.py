"""A small real classifier as an ONNX file, the command line run in this process, and two cells of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robnet_fx.cli.main import app
from robnet_fx.cli.options import Effort
from robnet_fx.interchange.network import write_onnx
from robnet_fx.reproduce import judging, training
from robnet_fx.verify.score import Score
from robnet_fx.zoo import tables
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


REPRODUCE = ("reproduce", "table2", "--row", "SC", "--scale", 0.01, "--boxes", 4, "--data", "few.npz")


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """A folder with few.npz, 64 training and 24 test images of 3x32x32 that are dark or bright, which a field changes;
    three of the test images are in the training part too."""
    folder, random = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    shades = np.concatenate([random.integers(0, 256, 64), np.linspace(5, 250, 24, dtype=int)])
    labels = shades // 128
    noise = random.normal(0, 10, (88, 3, 32, 32))
    images = np.clip(shades[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    images[64:67], labels[64:67] = images[:3], labels[:3]
    arrays = {"x_train": images[:64], "y_train": labels[:64], "x_test": images[64:], "y_test": labels[64:]}
    np.savez(folder / "few.npz", **arrays)
    return folder


@pytest.fixture
def table(few, monkeypatch):
    """`table("--cell", "std", "--out", "a")`: two epochs of the small network of table 2, in the directory of `few`."""
    monkeypatch.chdir(few)
    return _run


@pytest.fixture(scope="session")
def reproduced(few):
    """The standard and the RSIP-SSIP cell of such a run, in the folder "whole" of `few`: what the command printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(few)
        return _run("--cell", "std", "--cell", "rs", "--out", "whole", "--json")


def _run(*args):
    """Trained on batches of 4 and judged in parts of 8, with the data set taken for one that has copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "BATCH_SIZE", 4)
        patch.setattr(judging, "ON_CPU", 8)
        patch.setitem(tables.IMAGES, "cifar10", tables.Images(128, 24, augment=True, copies=True))
        return CliRunner(env={"COLUMNS": "120"}).invoke(app, [str(arg) for arg in (*REPRODUCE, *args)])
