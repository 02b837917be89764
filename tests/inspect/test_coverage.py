"""The dry run names every node that cannot be bounded, with its layer and line, and raises nothing."""

from __future__ import annotations

import inspect
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from robnet_fx import BiasField
from robnet_fx.inspect.coverage import Coverage, coverage
from tests import gaps
from tests.gaps import Gappy, forgetful  # noqa: F401  (a fixture)
from tests.onnx_files import exported
from tests.small import plain_net

FIELD = BiasField(1, 0.1)
SIZE = (1, 8, 8)


def lines_of(*snippets: str) -> list[str]:
    """`gaps.py:<line>` of the lines that contain the snippets."""
    text = inspect.getsource(gaps).splitlines()
    return [f"gaps.py:{next(i for i, line in enumerate(text, 1) if snippet in line)}" for snippet in snippets]


def summary(found: Coverage) -> list[tuple[str, str, str]]:
    return [(gap.operation.split(".")[1], gap.shape, gap.layer) for gap in found.gaps]


SOURCES = ("torch.tanh(self.conv", "self.act(self.linear", "self.last(self.linear")


def test_everything_is_covered():
    found = coverage(plain_net(), FIELD, example=torch.rand(2, *SIZE))
    assert (found.nodes, found.bounded, found.share, found.gaps) == (6, 6, 1.0, ())


@pytest.mark.usefixtures("forgetful")
def test_a_module_with_three_gaps():
    found = coverage(Gappy(), FIELD, example=torch.rand(2, *SIZE))
    assert summary(found) == [
        ("tanh", "f32[B, 4, 6, 6]", "(top) (tests.gaps.Gappy)"),
        ("sigmoid", "f32[B, 20]", "block.act (torch.nn.Sigmoid)"),
        ("leaky_relu", "f32[B, 10]", "last (torch.nn.LeakyReLU)"),
    ]
    assert [gap.source.split()[0] for gap in found.gaps] == lines_of(*SOURCES)
    assert all("docs/adding-an-op.md" in gap.remedy and gap.reason for gap in found.gaps)
    assert (found.nodes, found.bounded) == (7, 4)
    assert found.share == pytest.approx(4 / 7)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("dynamo", [True, False])
def test_an_onnx_file_with_three_gaps(tmp_path: Path, dynamo: bool):
    path = exported(Gappy().eval(), tmp_path / "net.onnx", dynamo=dynamo, dynamic=True, opset=18, size=SIZE)
    found = coverage(path, FIELD)
    names = {node.op_type: node.name for node in onnx.load(path).graph.node}
    assert [gap.layer for gap in found.gaps] == [f"{names[op]} (ONNX {op})" for op in ("Tanh", "Sigmoid", "LeakyRelu")]
    sources = [gap.source.partition(" ")[0] for gap in found.gaps]
    assert sources == (lines_of(*SOURCES) if dynamo else [""] * 3)


def test_a_use_that_has_no_rule():
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool2d(x, 2, divisor_override=-1).flatten(1)

    found = coverage(Flat(), FIELD, example=torch.rand(2, *SIZE))
    (gap,) = found.gaps
    assert (gap.node, found.share) == ("avg_pool2d", 0.5)
    assert "extend the rule" in gap.remedy
