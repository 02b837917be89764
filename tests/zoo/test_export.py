"""What the zoo writes: one ONNX file that runs at any batch size, says what data it is for, and is whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.zoo.data import load
from robnet_fx.zoo.digits import train_digits
from robnet_fx.zoo.export import export


def run(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images.numpy()})
    return logits


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export("digits", path)
    return path


def test_the_standard_digits_model_is_at_least_97_percent_clean(digits_file: Path) -> None:
    digits = load("digits")
    predicted = run(digits_file, digits.x_test / 255).argmax(1)
    assert np.mean(predicted == digits.y_test.numpy()) >= 0.97


def test_the_digits_file_is_one_self_contained_file(digits_file: Path) -> None:
    assert [file.name for file in digits_file.parent.iterdir()] == ["digits.onnx"]
    model = onnx.load(digits_file)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"robnet_fx.data": "digits"}
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert run(digits_file, torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parents[2]).encode() not in digits_file.read_bytes()


def test_training_and_export_repeat_bit_for_bit(digits_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    export("digits", tmp_path / "again.onnx")
    assert torch.equal(state, torch.get_rng_state())
    assert (tmp_path / "again.onnx").read_bytes() == digits_file.read_bytes()


def test_another_seed_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robnet_fx.zoo.digits.EPOCHS", 1)
    first, second = (next(train_digits(seed).parameters()) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        export("dm-small", tmp_path / name, seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    model = onnx.load(tmp_path / "a")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"robnet_fx.data": "cifar10"}


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(RobnetError, match="cannot write"):
        export("dm-small", tmp_path / "missing" / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown network"):
        export("resnet", tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
