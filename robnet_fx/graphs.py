"""Small tools over `torch.fx` graphs shared by the front end, the passes and the generator."""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn

from robnet_fx.machine.torch_internals import parameters_of

MODEL = "model"  # the sub-module of every graph module that is the user's own module, the very same object
LAYOUT = "layout"  # in the meta of a canonical graph's input: the `layout.Layout` of its images, or why it is open
EXAMPLE = "example"  # there too: an image `[1, *S]` as the network takes it
OUTPUT = "output"  # there too: where the logits are in what the user's module returns, None if they are all of it


def derive(source: nn.Module, graph: fx.Graph, name: str, **more: nn.Module) -> fx.GraphModule:
    """A GraphModule over `graph` whose sub-modules *are* those of `source`, and `more`.

    `GraphModule(root, graph)` shares parameters but copies the shells around them, and buffers part company after
    `.to()`; holding the same sub-modules keeps everything one object for ever.
    """
    root = nn.Module()
    for child, module in [*source.named_children(), *more.items()]:
        root.add_module(child, module)
    made = fx.GraphModule(root, graph, class_name=name)
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
    for position, entry in enumerate(parameters_of(node.target)):
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
