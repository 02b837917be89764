"""`bounds.py` of a folder is a program: run by itself it prints what `net.bounds` gives."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, BoundedModel
from robnet_fx.bounds.methods import METHODS
from robnet_fx.interchange.program import (
    PROGRAM,
    WEIGHTS,
    images_in,
    program,
    rows_of,
    table,
    tensors_in,
    write_program,
)

IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution, a clamp with an infinite limit, numbered layers, and a buffer that no state dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).clamp(-0.1, float("inf"))) + self.shift


def compiled(method: str) -> BoundedModel:
    torch.manual_seed(0)
    net = robnet_fx.bound(Net(), BiasField(1, 0.2), method, mean=0.5, std=0.25, example=IMAGES[:2])
    net.set_eps(0.1)
    return net


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, WEIGHTS, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`printed("image.npy")`: what the program prints, run in this process, which has loaded torch."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [PROGRAM, WEIGHTS, *arguments])
        runpy.run_path(PROGRAM, run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(text: str) -> Tensor:
    """`[rows, 2]`: the bounds of every line but the first."""
    return torch.tensor([[float(word) for word in line.split()[-2:]] for line in text.splitlines()[1:]])


@pytest.mark.parametrize(("method", "alone"), [("rsip-ssip", True), ("rsip", False)])
def test_the_program_prints_the_bounds(method: str, alone: bool, tmp_path: Path, printed: Callable[..., str]):
    net = compiled(method)
    write_program(net, tmp_path)
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    if alone:
        done = run(tmp_path, "images.npy")
        assert done.returncode == 0, done.stderr
    text = done.stdout if alone else printed("images.npy")
    with torch.no_grad():
        lower, upper = net.bounds(IMAGES, torch.eye(3).expand(3, -1, -1))
    assert torch.equal(numbers(text), torch.stack([lower.flatten(), upper.flatten()], 1))
    assert text.splitlines()[-1].startswith("2      logit 2 ")


@pytest.mark.parametrize("method", METHODS)
def test_the_program_of_every_method_is_code(method: str):
    names: dict[str, Any] = {}
    exec(compile(program(compiled(method)), PROGRAM, "exec"), names)
    assert callable(names["forward"]) and callable(names["main"])


def test_margins_of_one_image_in_float64(tmp_path: Path, printed: Callable[..., str]):
    net = compiled("rsip-ssip").double()
    write_program(net, tmp_path)
    np.save(tmp_path / "image.npy", IMAGES[0].numpy())
    text = printed("image.npy", "1")
    with torch.no_grad():
        margins = net.margins(IMAGES[:1].double(), torch.tensor([1]))[0, [0, 2]]
    torch.testing.assert_close(numbers(text)[:, 1], margins.float(), rtol=1e-7, atol=1e-9)
    assert "logit 2 - logit 1" in text


def test_it_says_how_it_is_used_and_what_is_wrong(tmp_path: Path, printed: Callable[..., str]):
    write_program(compiled("ibp"), tmp_path)
    with pytest.raises(SystemExit, match=r"python bounds\.py WEIGHTS\.pt IMAGE\.npy \[LABEL\]"):
        printed()
    np.save(tmp_path / "image.npy", IMAGES[0].numpy())
    done = run(tmp_path, "image.npy", "3")
    for argument in ("3", "-1", "one"):
        with pytest.raises(robnet_fx.UsageError, match="LABEL must be a whole number from 0 to 2"):
            rows_of(argument, 3)
    assert (done.returncode, done.stderr) == (1, "error: LABEL must be a whole number from 0 to 2, not 3\n")


def test_images_that_are_none_are_refused(tmp_path: Path):
    like, file = torch.zeros(1), tmp_path / "image.npy"
    for array, reason in (
        (np.zeros((4, 4, 1)), "holds \\[4, 4, 1\\], and an image is \\[1, 4, 4\\]"),
        (np.full((1, 4, 4), 255, np.uint8), "outside"),
        (np.full((1, 4, 4), np.nan), "outside"),
        (np.array(["a"]), "holds no images"),
    ):
        np.save(file, array)
        with pytest.raises(robnet_fx.UsageError, match=reason):
            images_in(file, (1, 4, 4), like)


def test_tensors_stand_where_their_names_say(tmp_path: Path):
    write_program(compiled("rsip-ssip"), tmp_path)
    self = tensors_in(tmp_path / WEIGHTS)
    assert getattr(self.model.layers, "0").weight.shape == (2, 1, 3, 3)
    assert self.model.shift.tolist() == pytest.approx([0.1, -0.2, 0.3])
    assert self.field.radius[0] == pytest.approx(0.1)


def test_digits_suffice_for_every_bound():
    for dtype in (torch.float32, torch.float64):
        lower, upper = torch.randn(2, 1, 40, dtype=dtype)
        text = table([f"logit {i}" for i in range(40)], lower, upper)
        read = [[float(word) for word in line.split()[-2:]] for line in text.splitlines()[1:]]
        assert torch.equal(torch.tensor(read, dtype=dtype), torch.stack([lower[0], upper[0]], 1))
