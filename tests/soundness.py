"""What the soundness tests share beside `robnet_fx.testing`: random numbers, and canonical graphs drawn by hand.

`Drawing` builds a canonical graph in milliseconds, with any operation of the table and without a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.graphs import MODEL, NOWHERE, derive, noted

Draw = Callable[..., Tensor]

_EXAMPLES = 5  # the batch that shapes are read from: no other size in the tests' networks


def draws(seed: int) -> Draw:
    """A source of normal numbers in float64: `r(3, 4)`."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


class Drawing:
    """A canonical graph drawn by hand: `y = drawing(aten.conv2d.default, drawing.x, weight, bias)`.

    Tensors among the arguments become parameters of the sub-module `model`, as the user's weights are.
    """

    def __init__(self, *shape: int) -> None:
        self.graph = fx.Graph()
        self.model = nn.Module()
        self.values: dict[fx.Node, Tensor] = {}
        self.x = self.graph.placeholder("x")
        self._record(self.x, draws(9)(_EXAMPLES, *shape))

    def _record(self, node: fx.Node, value: Tensor) -> fx.Node:
        self.values[node] = value
        return noted(node, value, NOWHERE, batch=True)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["shape"])

    def _place(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            name = f"p{len(self.values)}"
            if arg.is_floating_point():
                self.model.register_parameter(name, nn.Parameter(arg, requires_grad=False))
            else:  # an index or a mask
                self.model.register_buffer(name, arg)
            node = self.graph.get_attr(f"{MODEL}.{name}")
            self.values[node] = arg
            return noted(node, arg, NOWHERE, batch=False)
        if isinstance(arg, (list, tuple)):
            return [self._place(a) for a in arg]
        return arg

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        args = tuple(self._place(arg) for arg in args)
        kwargs = {key: self._place(arg) for key, arg in kwargs.items()}
        name = target.__name__.split(".")[0].strip("_")
        node = self.graph.create_node("call_function", target, args, kwargs, name=name)
        with torch.no_grad():
            value = target(*fx.node.map_arg(args, self.values.get), **fx.node.map_arg(kwargs, self.values.get))
        assert len(value) == _EXAMPLES, "the batch must stay first"
        return self._record(node, value)

    def flat(self, node: fx.Node) -> fx.Node:
        return self(torch.ops.aten.reshape.default, node, [-1, self.values[node][0].numel()])

    def logits(self, node: fx.Node, r: Draw, classes: int = 3) -> fx.GraphModule:
        """Finish with a linear layer on all there is."""
        flat = self.flat(node)
        (size,) = self.shape(flat)
        return self.finish(self(torch.ops.aten.linear.default, flat, r(classes, size) / size**0.5, r(classes)))

    def finish(self, node: fx.Node) -> fx.GraphModule:
        self.graph.output(node)
        root = nn.Module()
        root.add_module(MODEL, self.model)
        return derive(root, self.graph, "Canonical").eval()
