"""A small network around any function of a feature map, to see an operation as torch.export leaves it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

import robnet_fx

Function = Callable[["Around", Tensor], Tensor]
IMAGE = (1, 4, 4)


class Around(nn.Module):
    """Convolution (and leaky ReLU) to `[B, 4, 4, 4]`, the function, (ReLU,) linear layer. `token`, `matrix`, `index`
    and `mask` are constants for the function to use."""

    def __init__(self, function: Function, *, affine: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.function, self.affine = function, affine
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.matrix = nn.Parameter(torch.randn(5, 4))
        self.register_buffer("index", torch.tensor([2, 0, 2, 1]))
        self.register_buffer("mask", torch.rand(4, 4) > 0.5)
        self.double()
        with torch.no_grad():
            size = self.body(torch.rand(2, *IMAGE).double()).shape[1]
        self.last = nn.Linear(size, 3).double()

    def body(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        h = self.function(self, h if self.affine else nn.functional.leaky_relu(h, 0.2))
        return (h if self.affine else torch.relu(h)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


def traced(function: Function, *, affine: bool = False) -> fx.GraphModule:
    return robnet_fx.trace(Around(function, affine=affine), torch.rand(3, *IMAGE).double())


def names(graph: fx.GraphModule) -> list[str]:
    """The operations called, in order."""
    return [node.target.__name__.split(".")[0] for node in graph.graph.nodes if node.op == "call_function"]
