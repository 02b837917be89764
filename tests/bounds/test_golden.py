"""The generated code of one small network, method by method, as a person reads it.

A change here is a change of what users print and read. To accept it: ROBNET_FX_UPDATE_GOLDEN=1 pytest <this file>.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import fx, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.bounds.methods import METHODS
from robnet_fx.problem import Problem

GOLDEN = Path(__file__).parent.parent / "golden"


class Small(nn.Module):
    """A convolution, a residual sum and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.again = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        x = torch.relu(self.again(x) + x)
        return self.head(x.flatten(1))


def readable(graph: fx.GraphModule) -> str:
    """The code without blank lines and the `; x = None` that free memory; sub-graphs follow under their names."""
    lines = [re.sub(r";  [\w ,=]+ = None$", "", line.rstrip()) for line in graph.code.splitlines()]
    parts = ["\n".join(line for line in lines if line)]
    for node in graph.graph.find_nodes(op="call_module"):
        parts.append(f"# {node.target}\n" + readable(graph.get_submodule(node.target).graph))
    return "\n\n".join(parts)


@pytest.mark.parametrize("method", METHODS)
def test_the_generated_code_reads_as_it_did(method: str):
    images = torch.rand(2, 1, 4, 4)
    net = robnet_fx.bound(Small(), BiasField(1, 0.1), method, clip="clamp", example=images)
    compare(f"bounds-{method}", readable(net.bounds))


def test_the_code_with_error_symbols_reads_as_it_did():
    images = torch.rand(2, 1, 4, 4)
    net = robnet_fx.bound(Small(), BiasField(1, 0.1), clip="clamp", example=images, symbols=8)
    compare("bounds-rsip-ssip-symbols", readable(net.bounds))


def test_the_source_and_the_perturbed_graph_read_as_they_did():
    images = torch.rand(2, 1, 4, 4)
    net = robnet_fx.bound(Small(), BiasField(1, 0.1), "ibp", clip="relu", mean=0.5, std=0.25, example=images)
    compare("clean", readable(net.clean))
    compare("perturbed", readable(net.perturbed))


def compare(name: str, code: str) -> None:
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("ROBNET_FX_UPDATE_GOLDEN"):
        file.write_text(code + "\n")
    assert code + "\n" == file.read_text()


@pytest.mark.parametrize("method", METHODS)
def test_generating_twice_gives_the_same_code(method: str):
    images = torch.rand(2, 1, 4, 4)
    canonical = robnet_fx.trace(Small(), images)
    codes = {robnet_fx.BoundedModel(canonical, Problem(BiasField(1, 0.1)), method).bounds.code for _ in range(2)}
    assert len(codes) == 1
    for graph in (canonical, robnet_fx.BoundedModel(canonical, Problem(BiasField(1, 0.1)), method).bounds):
        assert isinstance(graph, fx.GraphModule)
        graph.graph.lint()
