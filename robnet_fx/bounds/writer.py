"""The writing of one bounds graph: its inputs, the calls and constants that it is made of, and its result."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from robnet_fx.algebra import domains
from robnet_fx.bounds.plan import Plan
from robnet_fx.graphs import derive, prune
from robnet_fx.passes import ENTRY
from robnet_fx.perturbations.base import Box


class Writer:
    """A graph in the making, over the perturbed graph of a plan. `box` is its center and radius."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = fx.Graph()
        self.constants: dict[fx.Node, fx.Node] = {}
        self.children: dict[str, nn.Module] = {}
        self.parts: list[fx.Node] = []
        self.box: list[fx.Node]
        self.image: fx.Node

    def inputs(self, *names: str) -> list[fx.Node]:
        """`image`, what is named, and the box; where none is given the default box is used."""
        self.image, *made = (self.graph.placeholder(name) for name in ("image", *names))
        given = [self.graph.placeholder(name, default_value=None) for name in Box._fields]
        defaults = [self.graph.get_attr(f"{ENTRY}.{name}") for name in Box._fields]
        self.box = [
            self.call(domains.or_default, f"box_{name}", *pair)
            for name, *pair in zip(Box._fields, given, defaults, strict=True)
        ]
        return made

    def finished(self, name: str, result: Any) -> fx.GraphModule:
        """The graph as a module over the sub-modules of the perturbed one."""
        self.graph.output(result)
        prune(self.graph)
        return derive(self.plan.perturbed, self.graph, name, **self.children)

    def call(self, target: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.create_node("call_function", target, args, kwargs, name=name)

    def item(self, value: fx.Node, index: int, name: str) -> fx.Node:
        return self.call(operator.getitem, name, value, index)

    def constant(self, node: fx.Node) -> fx.Node:
        """A node that does not depend on the coefficients, copied with all it reads."""
        if node.op == "placeholder":
            return self.image
        if node not in self.constants:
            self.constants[node] = self.graph.node_copy(node, self.constant)
        return self.constants[node]

    def arguments(self, node: fx.Node, bounded: Callable[[fx.Node], Any]) -> tuple[Any, dict[str, Any]]:
        """The node's arguments with bounded inputs as `bounded` gives them and constants copied."""

        def place(arg: Any) -> Any:
            if isinstance(arg, fx.Node):
                return bounded(arg) if arg in self.plan.dependent else self.constant(arg)
            if isinstance(arg, (list, tuple)):
                return type(arg)(place(a) for a in arg)
            return arg

        return place(node.args), {key: place(value) for key, value in node.kwargs.items()}

    def entry_arguments(self) -> list[fx.Node]:
        """The image and the perturbation's tensors."""
        if not self.parts:
            self.parts = [self.graph.get_attr(f"{ENTRY}.{name}") for name in self.plan.transform.part_names]
        return [self.constant(self.plan.images), *self.parts]
