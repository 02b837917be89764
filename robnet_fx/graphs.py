"""Small tools over `torch.fx` graphs shared by the front end, the passes and the generator."""

from __future__ import annotations

import copyreg
import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

MODEL = "model"  # the sub-module of every graph module that is the user's own module, the very same object
LAYOUT = "layout"  # in the meta of a canonical graph's input: the `layout.Layout` of its images, or why it is open
OPERATION = type(torch.ops.aten.relu.default)  # what every operation of ATen is an instance of
EXAMPLE = "example"  # there too: an image `[1, *S]` as the network takes it
OUTPUT = "output"  # there too: where the logits are in what the user's module returns, None if they are all of it


class GraphModule(fx.GraphModule):
    """A GraphModule that is pickled node by node, names and meta included. torch.fx pickles the code instead and traces
    it anew, which would call rules on proxies, and lose both."""

    def __reduce__(self) -> tuple[Any, ...]:
        nodes = [
            (node.op, node.name, node.target, *fx.node.map_arg((node.args, node.kwargs), _Reference.to), _lasting(node))
            for node in self.graph.nodes
        ]
        return _restored, (type(self).__name__, dict(self.named_children()), nodes, self.training)


class _Reference(NamedTuple):
    """Stands for a node in the arguments of another one."""

    name: str

    @classmethod
    def to(cls, node: fx.Node) -> _Reference:
        return cls(node.name)


def _lasting(node: fx.Node) -> dict[str, Any]:
    """What can be kept of a node's meta: all, but of the traced value only its shape and dtype."""
    meta = dict(node.meta)
    value = meta.pop("val", None)
    if isinstance(value, Tensor):
        sizes = [size if isinstance(size, int) else _SOME for size in value.shape]
        meta["val"] = torch.empty(sizes, dtype=value.dtype, device="meta")
    return meta


_SOME = 7  # stands for a batch of any size: a prime that shapes seldom contain


def _restored(kind: str, children: dict[str, nn.Module], nodes: list[tuple[Any, ...]], training: bool) -> GraphModule:
    graph = fx.Graph()
    env: dict[str, fx.Node] = {}
    for op, name, target, args, kwargs, meta in nodes:
        env[name] = graph.create_node(op, target, _resolved(args, env), _resolved(kwargs, env), name=name)
        env[name].meta = meta
    made = derive(nn.Module(), graph, kind, **children)
    made.training = training  # of this module alone
    return made


def _resolved(arg: Any, env: dict[str, fx.Node]) -> Any:
    if isinstance(arg, _Reference):
        return env[arg.name]
    if isinstance(arg, (list, tuple)):
        made = [_resolved(a, env) for a in arg]
        return type(arg)(*made) if hasattr(arg, "_fields") else type(arg)(made)
    if isinstance(arg, dict):
        return {key: _resolved(value, env) for key, value in arg.items()}
    if isinstance(arg, slice):
        return slice(*(_resolved(part, env) for part in (arg.start, arg.stop, arg.step)))
    return arg


def operator_named(name: str) -> Any:
    """`aten.conv2d.default` and the like, by `str` of it."""
    return functools.reduce(getattr, name.split("."), torch.ops)


def _reduced(operation: Any) -> tuple[Any, ...]:
    return operator_named, (str(operation),)


copyreg.pickle(OPERATION, _reduced)  # else no graph that calls one could be pickled


def derive(source: nn.Module, graph: fx.Graph, name: str, **more: nn.Module) -> GraphModule:
    """A GraphModule over `graph` whose sub-modules *are* those of `source`, and `more`.

    `GraphModule(root, graph)` shares parameters but copies the shells around them, and buffers part company after
    `.to()`; holding the same sub-modules keeps everything one object for ever.
    """
    root = nn.Module()
    for child, module in [*source.named_children(), *more.items()]:
        root.add_module(child, module)
    made = GraphModule(root, graph, class_name=name)
    for child, module in root.named_children():
        setattr(made, child, module)
    made.graph.lint()
    return made


def copy_graph(module: fx.GraphModule) -> fx.Graph:
    """The module's graph copied node by node, names and meta included, with its output."""
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        env[node] = graph.node_copy(node, lambda n: env[n])
        env[node].meta = dict(node.meta)
    return graph


def prune(graph: fx.Graph) -> None:
    """Remove nodes nobody reads; every call in our graphs is pure."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The value's own shape S, without the batch axis."""
    return tuple(node.meta["shape"])


def numel(node: fx.Node) -> int:
    """How many numbers the value has, without the batch."""
    return math.prod(shape_of(node))


def argument(node: fx.Node, name: str, default: Any) -> Any:
    """An argument of an ATen call by its schema name; the default for one of our own operations, which have none."""
    schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
    for position, entry in enumerate(schema):
        if entry.name == name:
            return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)
    return default


def describe(node: fx.Node, reason: str = "") -> str:
    """The lines of an error message that say where a node comes from: node, layer, source."""
    layer, kind = node.meta.get("layer", ("", ""))
    lines = [f"  node    {node.name:<12} {dtype_name(node)}[{', '.join(['B', *map(str, node.meta.get('shape', ()))])}]"]
    if kind:
        lines.append(f"  layer   {layer or '(top)'} ({kind})")
    if node.meta.get("source"):
        lines.append(f"  source  {node.meta['source']}")
    if reason:
        lines.append(f"  reason  {reason}")
    return "\n".join(lines)


def dtype_name(node: fx.Node) -> str:
    """f32, f64, bf16, i64: the short name of a value's dtype."""
    return str(node.meta.get("dtype", "")).removeprefix("torch.").replace("float", "f").replace("int", "i")
