"""The part of an ONNX file that its logits need: which tensor they are, and the nodes behind it in working order.

What nobody needs for them (other outputs, labels, dead branches) may be anything; the file keeps it all the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
from onnx.inliner import inline_local_functions

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.onnx.header import Port, port
from robnet_fx.frontend.onnx.metadata import OUTPUT

_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_REMEDY = "\n  remedy  name one with --output NAME (Python: output=), which may also be a tensor inside the network"


def choose_output(path: Path, proto: onnx.ModelProto, asked: str | None) -> tuple[str, str]:
    """The tensor that is judged, and a word on the choice for reports (empty where there was none).

    `asked` is a name the user gave, else the file's metadata may remember one, else it is the only output that can be
    logits: floating point, `[B, K]`, `[B, K, 1, 1]` or one number a sample. The map of probabilities that converters
    of scikit-learn put behind a classifier stands for the tensor it is made of.
    Raises UsageError for a name that is not there, and for several outputs that can be logits; UnsupportedError where
    none can.
    """
    several = len(proto.graph.output) > 1
    outputs = [_declared(path, proto, value) if several else port(value) for value in proto.graph.output]
    graph = inlined(proto).graph
    makers = {name: node for node in graph.node for name in node.output if name}
    listed = "".join(f"\n  output  {output}" for output in outputs)
    asked = asked or {entry.key: entry.value for entry in proto.metadata_props}.get(OUTPUT)
    if asked is not None:
        if asked not in makers:
            near = difflib.get_close_matches(asked, makers, n=3, cutoff=0.5)
            hint = f"\n  inside  {', '.join(near)}" if near else ""
            raise UsageError(f"{path}: the network has no output or tensor {asked!r}{listed}{hint}")
        for output in (output for output in outputs if output.name == asked):
            if not _is_floating(output, makers):
                raise UsageError(f"{path}: {output} is no logits, which are floating point{listed}{_REMEDY}")
            return _tensor(asked, makers), f"{asked}, chosen of {len(outputs)} outputs" if several else ""
        return asked, f"{asked}, a tensor inside the network, as chosen"
    fitting = [output for output in outputs if _may_be_logits(output, makers)] if several else outputs
    if len(fitting) > 1:
        raise UsageError(f"{path}: the network has {len(fitting)} outputs that may be logits{listed}{_REMEDY}")
    if not fitting or not _is_floating(fitting[0], makers):
        sources = [makers[o.name] for o in outputs if o.name in makers] + list(graph.node)
        inner = next((f", such as {n.input[0]!r}" for n in sources if n.op_type in ("ArgMax", "TopK")), "")
        raise UnsupportedError(f"{path}: no output can be logits, which are floating point{listed}{_REMEDY}{inner}")
    name = _tensor(fitting[0].name, makers)
    others = [str(output) for output in outputs if output is not fitting[0]]
    if name != fitting[0].name:
        return name, f"{name}, of which {fitting[0].name} is made"
    return name, f"{name}, the only output that can be logits: not {', '.join(others)}" if others else ""


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own."""
    return inline_local_functions(proto) if proto.functions else proto


def part_behind(path: Path, proto: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """What `output` is computed from, as a model of this one output, its nodes sorted (in the file's order where that
    is one). The file's own messages are copied, not shared. Raises UsageError where the nodes form a cycle."""
    graph = inlined(proto).graph
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = [sorted({makers[name] for name in _reads(node) if name in makers}) for node in graph.node]
    needed, stack = set(), [makers[output]] if output in makers else []
    while stack:
        index = stack.pop()
        if index not in needed:
            needed.add(index)
            stack += reads[index]
    made = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    part, names = made.graph, {output}
    part.name = graph.name
    for index in _sorted(path, sorted(needed), reads):
        part.node.add().CopyFrom(graph.node[index])
        names.update(_reads(graph.node[index]))
    part.input.extend(value for value in graph.input if value.name in names)
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in names)
    part.sparse_initializer.extend(tensor for tensor in graph.sparse_initializer if tensor.values.name in names)
    declared = [value for value in graph.output if value.name == output]
    part.output.extend(declared[:1] or [onnx.ValueInfoProto(name=output)])
    return made


def _sorted(path: Path, needed: list[int], reads: list[list[int]]) -> Iterator[int]:
    """The nodes in the file's order, but each behind those it reads."""
    done: set[int] = set()
    for first in needed:
        stack, open_nodes = [first], set()
        while stack:
            index = stack[-1]
            waiting = [source for source in reads[index] if source not in done]
            if index in done or not waiting:
                stack.pop()
                if index not in done:
                    done.add(index)
                    yield index
            elif index in open_nodes:
                raise UsageError(f"{path} is damaged: its nodes read each other in a circle")
            else:
                open_nodes.add(index)
                stack += waiting


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names a node reads, those that its branches read from outside included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)  # a branch may give an outer value as it is
            for inner in graph.node:
                yield from _reads(inner)


def _declared(path: Path, proto: onnx.ModelProto, value: onnx.ValueInfoProto) -> Port:
    """What the file says of an output, or else what follows for its shape from the nodes behind it."""
    said = port(value)
    if said.axes is not None or said.type not in _FLOATS:
        return said
    try:
        inferred = onnx.shape_inference.infer_shapes(part_behind(path, proto, said.name))
    except Exception:  # of unknown operators nothing follows
        return said
    return replace(said, axes=port(inferred.graph.output[0]).axes)


def _tensor(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    """The tensor that an output is, or a map of probabilities is made of."""
    maker = makers.get(name)
    return maker.input[0] if maker is not None and maker.op_type == "ZipMap" else name


def _is_floating(output: Port, makers: dict[str, onnx.NodeProto]) -> bool:
    return output.type in _FLOATS or _tensor(output.name, makers) != output.name


def _may_be_logits(output: Port, makers: dict[str, onnx.NodeProto]) -> bool:
    if not _is_floating(output, makers) or output.axes is None:
        return _is_floating(output, makers)
    return len(output.axes) > 0 and all(axis.size == 1 for axis in output.axes[2:])
