"""From an exported program to the canonical graph: one spelling for each operation.

What torch.export leaves open is closed here: lifted parameters become `get_attr` nodes on the user's module, shape
arithmetic becomes literal shapes with -1 for the batch, and copies, splits, tuple results and the many names of a
reshape become the one spelling that has a rule. What needs neither image nor parameter is computed once, and stored.

A canonical graph has one dtype, that of the image it was traced with, and can be moved to another: a cast between
float32 and float64 changes nothing but rounding and goes, and one of a mask follows the graph (`ops.cast`).
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.canonical_graph import EXACT, HALF, CanonicalGraph
from robnet_fx.frontend.places import place_of
from robnet_fx.frontend.rewrites import FIRST_RESULTS, REWRITES
from robnet_fx.frontend.spellings import CASTS, IDENTITIES, POOLS_WITH_INDICES, RESHAPES, SPLITS
from robnet_fx.graphs import argument, prune
from robnet_fx.machine.torch_internals import parameters_of

aten = torch.ops.aten

_COMMUTATIVE = {aten.add.Tensor, aten.mul.Tensor}


def canonical(exported: ExportedProgram) -> CanonicalGraph:
    """The canonical graph of a decomposed program whose values have the batch first. Raises `UnsupportedError`, with
    the place in the user's code, for what cannot be written in it."""
    inputs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    graph = CanonicalGraph(exported)
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            _placeholder(graph, node, inputs[node.name])
        elif node.op == "output":
            _output(graph, node, exported)
        elif node.op == "call_function":
            try:
                _call(graph, node)
            except UnsupportedError as error:
                raise UnsupportedError(f"{error}{place_of(node)}") from None
        else:
            raise UnsupportedError(f"{node.op} {node.target} in the traced graph: control flow has no bounds")
    prune(graph.graph)
    return graph


def _placeholder(graph: CanonicalGraph, node: fx.Node, spec: Any) -> None:
    if spec.kind == InputKind.USER_INPUT:
        graph.image(node)
    elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
        graph.own(node, spec.target)
    elif spec.kind != InputKind.CONSTANT_TENSOR:
        raise UnsupportedError(f"the model takes an input of kind {spec.kind} ({node.name}), which has no bounds")


def _output(graph: CanonicalGraph, node: fx.Node, exported: ExportedProgram) -> None:
    results = node.args[0]
    (logits,) = (
        result
        for result, spec in zip(results, exported.graph_signature.output_specs, strict=True)  # type: ignore[arg-type]
        if spec.kind.name == "USER_OUTPUT"  # and no buffer or input that the model writes to
    )
    value = logits.meta["val"]
    if value.dim() < 1 or value.shape[0] != graph.batch or any(size != 1 for size in value.shape[2:]):
        raise UnsupportedError(f"a classifier returns logits [B, classes], and this model returns {list(value.shape)}")
    graph.graph.output(graph.env[logits])


def _call(graph: CanonicalGraph, node: fx.Node) -> None:
    value, target = node.meta.get("val"), node.target
    if isinstance(value, (torch.SymInt, int, torch.SymBool, bool, torch.SymFloat, float)) or value is None:
        return  # shape arithmetic and its assertions: shapes become literal below
    if node in graph.known:
        return  # stored where it is used
    if target is operator.getitem:
        _getitem(graph, node)
        return
    if target in SPLITS or target in POOLS_WITH_INDICES or target in FIRST_RESULTS or target is aten.unbind.int:
        graph.env[node] = graph.literal(node.args[0])  # its getitems take what they need
        return
    if target is aten._native_batch_norm_legit_no_training.default:
        x, weight, bias, mean, var, momentum, eps = (graph.literal(a) for a in node.args)
        inference = (x, weight, bias, mean, var, False, momentum, eps, False)
        graph.env[node] = graph.make(aten.batch_norm.default, inference)
        return
    if target in IDENTITIES or (target in CASTS and graph.same_kind(value, _value(node.args[0]))):
        graph.env[node] = graph.literal(node.args[0])
        return
    if target in CASTS:
        source = graph.literal(node.args[0])
        if graph.varies(source) and value.dtype in HALF:
            raise UnsupportedError(f"{node.name} rounds to {value.dtype}, which has no bounds: run it in float32")
        if value.dtype in EXACT and not graph.varies(source):
            graph.place(node, graph.cast(node, source))
            return
    if isinstance(value, Tensor) and any(isinstance(size, torch.SymInt) for size in value.shape[1:]):
        raise UnsupportedError(f"{node.name} has a size besides the batch that is not fixed: {list(value.shape)}")
    if target in RESHAPES:
        _reshape(graph, node, value)
        return
    if target is aten.slice.Tensor and _is_whole(node):
        graph.env[node] = graph.literal(node.args[0])
        return
    rewritten = REWRITES[target](graph, node) if target in REWRITES else None
    if rewritten is not None:
        graph.place(node, rewritten)
        return
    args, kwargs = _following(graph, node, value)
    if target in _COMMUTATIVE and not isinstance(args[0], fx.Node):
        args = (args[1], args[0])
    made = graph.make(target, args, kwargs)
    if not graph.varies(made) and any(isinstance(n.meta.get("val"), torch.SymInt) for n in node.all_input_nodes):
        raise UnsupportedError(f"{node.name} makes a constant out of the batch size")
    graph.place(node, made)


def _following(graph: CanonicalGraph, node: fx.Node, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call without a device, and without a dtype where that is the graph's own."""
    args, kwargs = list(graph.literal(node.args)), graph.literal(node.kwargs)
    kwargs.pop("device", None)
    followed = isinstance(value, Tensor) and value.dtype in EXACT and node.target not in CASTS
    if followed and argument(node, "dtype", None) is not None:
        kwargs.pop("dtype", None)
        args = args[: [entry.name for entry in parameters_of(node.target)].index("dtype")]
        if not _value(node.args[0]).is_floating_point() and not graph.varies(args[0]):
            args[0] = graph.cast(node, args[0])
    return tuple(args), kwargs


def _reshape(graph: CanonicalGraph, node: fx.Node, value: Tensor) -> None:
    shape = list(value.shape)
    if shape and isinstance(shape[0], torch.SymInt):
        if not (shape[0] == graph.batch):
            raise UnsupportedError(f"{node.name} moves or merges the batch axis: {shape}")
        shape[0] = -1
    graph.place(node, graph.make(aten.reshape.default, (graph.literal(node.args[0]), shape)))


def _getitem(graph: CanonicalGraph, node: fx.Node) -> None:
    producer, index = node.args
    assert isinstance(producer, fx.Node) and isinstance(index, int)
    source, target = graph.env[producer], producer.target
    if target is aten._native_batch_norm_legit_no_training.default and index == 0:
        graph.place(node, source)
    elif target in POOLS_WITH_INDICES and index == 0:
        args = (source, *graph.literal(producer.args[1:]))
        graph.place(node, graph.make(POOLS_WITH_INDICES[target], args))
    elif target in SPLITS:
        axis = argument(producer, "dim", 0)
        sizes = [part.shape[axis] for part in producer.meta["val"]]
        start = sum(int(size) for size in sizes[:index])
        args = (source, axis, start, start + int(sizes[index]))
        graph.place(node, graph.make(aten.slice.Tensor, args))
    elif target is aten.unbind.int:
        axis = argument(producer, "dim", 0)
        graph.place(node, graph.make(aten.select.int, (source, axis, index)))
    elif index == 0 and target in FIRST_RESULTS and (first := FIRST_RESULTS[target](graph, producer)) is not None:
        graph.place(node, first)
    elif source.target is target and not graph.varies(source):
        graph.place(node, graph.make(operator.getitem, (source, index)))
    else:
        raise UnsupportedError(f"result {index} of {target} is used by {node.name}, and only values have bounds")


def _value(node: Any) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def _is_whole(node: fx.Node) -> bool:
    """A slice that keeps everything."""
    return _value(node.args[0]).shape == _value(node).shape and argument(node, "step", 1) == 1
