"""The canonical graph of a traced network while it is made: its nodes, its constants, and what stands for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from robnet_fx.algebra.ops import cast
from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.constants import known_values
from robnet_fx.frontend.places import layer_of, source_line
from robnet_fx.graphs import MODEL, NOWHERE, call, noted, word_of
from robnet_fx.machine.torch_internals import read_off_values

EXACT = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)


class _Env(dict[fx.Node, fx.Node]):
    """Traced node -> canonical node, made at first use where its value is known."""

    def __init__(self, stored: Callable[[fx.Node], fx.Node]) -> None:
        super().__init__()
        self.stored = stored

    def __missing__(self, node: fx.Node) -> fx.Node:
        self[node] = self.stored(node)
        return self[node]


class CanonicalGraph:
    """The canonical graph of a decomposed program, in the making: `env` maps traced nodes to canonical ones, `known`
    those that need neither image nor parameter to their values, and `traced` the name of a canonical node to that of
    the traced one of the same value. `constants` are the tensors that the graph reads as `constants.<name>`."""

    def __init__(self, exported: ExportedProgram) -> None:
        self.graph = fx.Graph()
        self.env = _Env(self._stored)
        self.known = known_values(exported)
        self.constants: dict[str, Tensor] = {}
        self.traced: dict[str, str] = {}
        self.varying: set[fx.Node] = set()
        (image,) = (n for n in exported.graph.nodes if n.name == exported.graph_signature.user_inputs[0])
        self.example: Tensor = image.meta["val"]
        self.batch: Any = self.example.shape[0]
        self.dtype = self.example.dtype if self.example.is_floating_point() else torch.get_default_dtype()

    def image(self, node: fx.Node) -> None:
        """The input of the network."""
        made = self.graph.placeholder("x")
        self.varying.add(made)
        self.place(node, made)

    def own(self, node: fx.Node, target: str) -> None:
        """A parameter or buffer of the user's module."""
        value = node.meta["val"]
        made = noted(self.graph.get_attr(f"{MODEL}.{target}"), value, _place(node), batch=False)
        self.place(node, self.cast(node, made) if value.dtype in EXACT and value.dtype != self.dtype else made)

    def place(self, node: fx.Node, made: fx.Node) -> None:
        """Record `made` as the canonical form of `node`, with shape, dtype, layer and source line."""
        self.env[node] = made
        self.traced.setdefault(made.name, node.name)
        value = node.meta.get("val")
        if isinstance(value, Tensor) and "val" not in made.meta:
            noted(made, self._value(made, value), _place(node))

    def make(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> fx.Node:
        """A call that becomes the canonical form of a traced node, whose value it then has (`place`)."""
        return self._entered(self.graph.create_node("call_function", target, args, kwargs, name=word_of(target)))

    def derived(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:
        """A call on the way to what replaces `node`; its value is worked out on those of the trace."""
        return self._entered(call(self.graph, target, args, place=_place(node)))

    def constant(self, node: fx.Node, value: Tensor) -> fx.Node:
        """A constant tensor made for what replaces `node`, kept in the graph's dtype and where the image is."""
        name = node.name
        while name in self.constants:
            name += "_"
        dtype = self.dtype if value.dtype in EXACT else value.dtype
        self.constants[name] = value = value.to(self.example.device, dtype, copy=True).contiguous()
        like = self.example.new_empty(value.shape, dtype=value.dtype)
        return noted(self.graph.get_attr(f"constants.{name}"), like, _place(node))

    def cast(self, node: fx.Node, own: fx.Node) -> fx.Node:
        """A value that is independent of the image, in the graph's dtype, for what replaces `node`."""
        like = self.graph.find_nodes(op="get_attr", target="constants.like")
        if not like:
            with self.graph.inserting_before(next(iter(self.graph.nodes), None)):
                like = [self.graph.get_attr("constants.like")]
            self.constants["like"] = torch.empty(0, dtype=self.dtype, device=self.example.device)
            noted(like[0], self.example.new_empty(0, dtype=self.dtype), NOWHERE)
        return self.derived(node, cast, own, like[0])

    def literal(self, arg: Any) -> Any:
        """An argument with nodes replaced by their canonical form and sizes by literals, -1 where the batch was."""
        if isinstance(arg, fx.Node):
            value = arg.meta.get("val")
            if isinstance(value, torch.SymInt):
                if value == self.batch:
                    return -1
                raise UnsupportedError(
                    f"{arg.name} is a size computed from the batch ({value}); only B itself is known"
                )
            if isinstance(value, (torch.SymFloat, torch.SymBool)):
                read = "read off the values of an image" if read_off_values(value) else "computed from the batch"
                raise UnsupportedError(f"{arg.name} is a number {read}, which has no bounds")
            return value if arg not in self.env and isinstance(value, (int, float, bool)) else self.env[arg]
        if isinstance(arg, (list, tuple)):
            return type(arg)(self.literal(a) for a in arg)
        if isinstance(arg, dict):
            return {key: self.literal(a) for key, a in arg.items()}
        return arg

    def varies(self, made: fx.Node) -> bool:
        """Whether a canonical node depends on the image."""
        return made in self.varying

    @staticmethod
    def same_kind(value: Tensor, other: Tensor) -> bool:
        """Whether casting one value to the dtype of another changes no more than its rounding."""
        return value.dtype == other.dtype or (value.dtype in EXACT and other.dtype in EXACT)

    def _entered(self, made: fx.Node) -> fx.Node:
        """A node, known for one that depends on the image where one of its inputs does."""
        if any(source in self.varying for source in made.all_input_nodes):
            self.varying.add(made)
        return made

    def _value(self, made: fx.Node, value: Tensor) -> Tensor:
        """A traced value as the canonical graph has it."""
        if value.dim() and isinstance(value.shape[0], torch.SymInt) and not self.varies(made):
            value = value.new_empty((1, *value.shape[1:]))  # a constant stands once for all samples
        return value.to(self.dtype) if value.dtype in EXACT else value

    def _stored(self, node: fx.Node) -> fx.Node:
        """The canonical form of a traced node whose value is known."""
        made = self.constant(node, self.known[node])
        self.place(node, made)
        return made


def _place(node: fx.Node) -> dict[str, Any]:
    """Where in the user's model a traced node comes from, as canonical nodes say it."""
    return {"layer": layer_of(node), "source": source_line(node.meta.get("stack_trace"))}
