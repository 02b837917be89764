"""A network the package has never seen: made up at random, in a file written at test time, trained and certified."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch

import robnet_fx
from robnet_fx.train.loop import train
from robnet_fx.verify import certify

SHAPE, CLASSES = (2, 10, 10), 3


def made_up(seed: int) -> str:
    """The source of a module of random depth, widths, activations and pooling, with a residual block."""
    draw = random.Random(seed)
    lines, channels, size = [], SHAPE[0], SHAPE[1]
    for i in range(draw.randint(1, 3)):
        width, stride = draw.choice([4, 6, 8]), draw.choice([1, 2])
        lines.append(f"self.conv{i} = nn.Conv2d({channels}, {width}, 3, stride={stride}, padding=1)")
        lines.append(f"self.norm{i} = nn.{draw.choice([f'BatchNorm2d({width})', 'Identity()'])}")
        lines.append(f"self.act{i} = nn.{draw.choice(['ReLU()', 'LeakyReLU(0.1)', 'Tanh()', 'Hardtanh()'])}")
        channels, size = width, (size - 1) // stride + 1
    steps = [line.split(" = ")[0] for line in lines]
    pool = draw.choice(["nn.AvgPool2d(2)", "nn.MaxPool2d(2)", "nn.AdaptiveAvgPool2d(2)"])
    left = channels * (4 if "Adaptive" in pool else (size // 2) ** 2)
    indent = "\n        "
    return f"""
import torch
from torch import nn

class Stranger(nn.Module):
    def __init__(self):
        super().__init__()
        {indent.join(lines)}
        self.side = nn.Conv2d({channels}, {channels}, 1)
        self.pool = {pool}
        self.head = nn.Linear({left}, {CLASSES})

    def forward(self, x):
        {indent.join(f"x = {step}(x)" for step in steps)}
        x = torch.relu(x + self.side(x)) * {draw.uniform(0.5, 1.5):.3f}
        return self.head(self.pool(x).view(x.size(0), -1))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_stranger_is_trained_and_certified(seed: int, tmp_path: Path) -> None:
    file = tmp_path / f"stranger_{seed}.py"
    file.write_text(made_up(seed))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        torch.manual_seed(seed)
        model = module.Stranger()
        # Three classes that a field of this size cannot confuse: which part of the picture is bright.
        labels = torch.arange(120) % CLASSES
        images = torch.randint(20, 60, (120, *SHAPE), dtype=torch.uint8)
        for k in range(CLASSES):
            images[labels == k, :, 3 * k : 3 * k + 4] += 150
        net = robnet_fx.bound(model, robnet_fx.BiasField(2, 0.05), example=images[:2] / 255)
        before = [p.detach().clone() for p in model.parameters()]
        history = train(net, images, labels, robnet_fx.Recipe.short(4, lr=1e-2, batch_size=30))
        certificate = certify(net, images[:30], labels[:30], limits=robnet_fx.Limits(boxes=1))
        assert all((p != q).any() for p, q in zip(model.parameters(), before, strict=True))
        assert history.epochs[-1]["standard"] < history.epochs[0]["standard"]
        assert certificate.certified_accuracy > 0.5
    finally:
        sys.modules.pop(file.stem, None)
