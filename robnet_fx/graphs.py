"""Small tools over `torch.fx` graphs shared by the front end, the passes and the generator."""

from __future__ import annotations

import copyreg
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from robnet_fx.machine.torch_internals import Operator, parameters_of, traced_call

MODEL = "model"  # the sub-module of every graph module that is the user's own module, the very same object
ENTRY = "field"  # the sub-module with the box, and the node where the coefficients enter, whatever the perturbation
LAYOUT = "layout"  # in the meta of a canonical graph's input: the `layout.Layout` of its images, or why it is open
EXAMPLE = "example"  # there too: an image `[1, *S]` as the network takes it
OUTPUT = "output"  # there too: where the logits are in what the user's module returns, None if they are all of it
PASSES = "passes"  # in the meta of a graph module: the names of what made it so far, in order
NOWHERE = {"layer": ("", ""), "source": ""}  # the place of a node that nothing of the user's stands behind
_PLACE = ("layer", "source", "nn_module_stack", "stack_trace")  # in the meta of a node: ours, and torch.export's


class GraphModule(fx.GraphModule):
    """A GraphModule that is pickled node by node, names and meta included. torch.fx pickles the code instead and traces
    it anew, which would call rules on proxies, and lose both."""

    def __reduce__(self) -> tuple[Any, ...]:
        nodes = [
            (node.op, node.name, node.target, *fx.node.map_arg((node.args, node.kwargs), _Reference.to), _lasting(node))
            for node in self.graph.nodes
        ]
        return _restored, (type(self).__name__, dict(self.named_children()), nodes, self.training, dict(self.meta))


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


def _restored(
    kind: str, children: dict[str, nn.Module], nodes: list[tuple[Any, ...]], training: bool, meta: dict[str, Any]
) -> GraphModule:
    graph = fx.Graph()
    env: dict[str, fx.Node] = {}
    for op, name, target, args, kwargs, about in nodes:
        env[name] = graph.create_node(op, target, _resolved(args, env), _resolved(kwargs, env), name=name)
        env[name].meta = about
    made = derive(nn.Module(), graph, kind, **children)
    made.meta = meta
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


copyreg.pickle(Operator, _reduced)  # else no graph that calls one could be pickled


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
    made.meta = dict(source.meta) if isinstance(source, fx.GraphModule) else {}
    return made


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """A GraphModule with the same sub-modules and the graph copied node by node, names and meta included. Its code is
    that of an empty graph until `recompile()`: who copies a graph is about to change it."""
    made = derive(module, fx.Graph(), type(module).__name__)
    env: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        env[node] = made.graph.node_copy(node, lambda n: env[n])
        env[node].meta = dict(node.meta)
    return made


def call(
    graph: fx.Graph,
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    place: Mapping[str, Any],
    name: str = "",
    value: Any = None,
) -> fx.Node:
    """The node of a call, where the graph inserts, with all that is asked of a node (`noted`).

    `place` is the meta of the node in whose name it is made. It is called after its operation (conv2d, conv2d_1, ...)
    unless it has a name, and its value, if not given, is worked out on those of its arguments without computing it.
    """
    made = graph.create_node("call_function", target, args, dict(kwargs or {}), name=name or word_of(target))
    if value is None:
        values, named = fx.node.map_arg((args, dict(kwargs or {})), lambda n: n.meta["val"])
        with torch.no_grad():
            value = traced_call(target, values, named, (values, named, place.get("val")))
    return noted(made, value, place)


def word_of(target: Any) -> str:
    """What nodes of an operation are called: conv2d of `aten.conv2d.default`."""
    return str(getattr(target, "__name__", target)).split(".")[0].strip("_")


def noted(node: fx.Node, value: Any, place: Mapping[str, Any], batch: bool | None = None) -> fx.Node:
    """Write into a node's meta what passes and rules ask for, and return it.

    `val`: a value like its own, without numbers. `dtype`. `shape`: S where the batch is its first axis, else all sizes.
    `layer` and `source`: where in the user's model it comes from, taken from the meta `place`. `batch` says whether the
    batch comes first; None: where the first size is free or, in a graph of fixed sizes, that of an argument's batch.
    """
    node.meta = {key: place[key] for key in _PLACE if key in place} | {"val": value}
    if isinstance(value, Tensor):
        sizes = tuple(value.shape)
        if batch is None:
            batch = any(_starts_like(sizes, source) for source in node.all_input_nodes) or _is_free(sizes)
        node.meta |= {"dtype": value.dtype, "shape": sizes[1:] if batch else sizes}
    return node


def has_batch(node: fx.Node) -> bool:
    """Whether the batch is the first axis of a value."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and len(node.meta.get("shape", value.shape)) == value.dim() - 1


def _is_free(sizes: tuple[Any, ...]) -> bool:
    return len(sizes) > 0 and isinstance(sizes[0], torch.SymInt)


def _starts_like(sizes: tuple[Any, ...], source: fx.Node) -> bool:
    """Whether sizes start with the batch of an argument; free ones are not compared, which might fix them."""
    batch = tuple(source.meta["val"].shape[:1]) if has_batch(source) else ()
    return sizes[:1] == batch != () if not _is_free(sizes) and not _is_free(batch) else False


def prune(graph: fx.Graph) -> None:
    """Remove nodes nobody reads; every call in our graphs is pure."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def placeholders(module: fx.GraphModule) -> list[str]:
    """The names of the graph's inputs, in order."""
    return [str(node.target) for node in module.graph.find_nodes(op="placeholder")]


def input_of(module: fx.GraphModule) -> fx.Node:
    """The image placeholder."""
    return [*module.graph.find_nodes(op="placeholder")][-1]


def output_of(module: fx.GraphModule) -> Any:
    """What the graph returns: of the graphs between a network and its bounds one node, the logits."""
    return module.graph.find_nodes(op="output")[0].args[0]


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
