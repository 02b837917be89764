"""From a node to a torch module: onnx2torch's converter, fed with the node and its constants as a graph of their own.

What onnx2torch has no converter for is added to its registry (`missing`); where its converter needs the node said
another way, `restated` says it so; the few that cannot be used on a network with a free batch are replaced (`instead`).
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import defs, helper, numpy_helper
from onnx2torch.node_converters import TConverter, get_converter
from onnx2torch.onnx_graph import OnnxGraph
from torch import nn

from robnet_fx.frontend.onnx.operators import missing  # noqa: F401  (it fills onnx2torch's registry)
from robnet_fx.frontend.onnx.operators.instead import INSTEAD
from robnet_fx.frontend.onnx.operators.node import Data, Known, Node, Refused
from robnet_fx.frontend.onnx.operators.restated import RESTATED

NO_FORM = "no PyTorch form of this operator"
_INPUT, _OUTPUT = "input_", "output_"


@dataclass
class Converted:
    """A torch module, and which of the node's inputs it is called with; other constants are its own parameters."""

    module: nn.Module
    inputs: list[int]


def supported(op: str, domain: str, opset: int) -> bool:
    """Whether there is a converter for an operator at all."""
    return (not domain and (op in RESTATED or op in INSTEAD)) or _find(op, domain, opset) is not None


def convert(node: Node) -> Converted:
    """The torch module that computes a node. Raises Refused, or what onnx2torch raises."""
    if not node.domain and node.op in RESTATED:
        RESTATED[node.op](node)
    if not node.domain and node.op in INSTEAD:
        module = INSTEAD[node.op](node)
        if module is not None:
            return Converted(module, [i for i in range(len(node.inputs)) if i not in node.used and node.has(i)])
    found = _find(node.op, node.domain, node.opset)
    if found is None:
        raise Refused(NO_FORM)
    converter, version = found
    _restate(node, version)
    graph = _graph(node)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # torch's layers begin with random weights
        warnings.simplefilter("ignore")
        module, mapping = converter(next(iter(graph.nodes.values())), graph)
    return Converted(module, [int(name.removeprefix(_INPUT)) for name in mapping.inputs if name])


@functools.cache
def _versions() -> dict[tuple[str, str], list[int]]:
    """The opsets in which each operator was defined anew."""
    found: dict[tuple[str, str], set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        found.setdefault((schema.name, schema.domain), set()).add(schema.since_version)
    return {key: sorted(versions) for key, versions in found.items()}


@functools.cache
def _find(op: str, domain: str, opset: int) -> tuple[TConverter, int] | None:
    """onnx2torch's converter for an operator's version, or else for the nearest older one, or else a newer one."""
    versions = _versions().get((op, domain), [opset])
    older, newer = [v for v in versions if v <= opset], [v for v in versions if v > opset]
    for version in [*reversed(older), *newer]:
        try:
            return get_converter(op, version, domain), version
        except NotImplementedError:
            continue
    return None


def _restate(node: Node, version: int) -> None:
    """Say the node in another version's terms: what that version does not know must not matter."""
    if node.domain:
        return
    theirs = defs.get_schema(node.op, version)
    ours = defs.get_schema(node.op, max(node.opset, version))
    for name in sorted(node.attributes.keys() - theirs.attributes.keys()):
        value = node.attributes.pop(name)
        neutral = name not in ours.attributes or value in (_default(ours.attributes[name]), [1] * np.size(value))
        if not neutral:  # ones are no dilation
            raise Refused(f"{name}={value} has no PyTorch form")
    if len(node.inputs) > theirs.max_input:
        raise Refused(f"{len(node.inputs)} inputs, where {theirs.max_input} have a PyTorch form")


def _default(attribute: defs.OpSchema.Attribute) -> object:
    value = attribute.default_value
    usual = helper.get_attribute_value(value) if value is not None and value.name else None
    return usual.decode() if isinstance(usual, bytes) else usual


def _graph(node: Node) -> OnnxGraph:
    """The node alone: its data as inputs of known shape, its constants as initialisers."""
    while node.inputs and node.inputs[-1] is None:
        node.inputs.pop()
    names = ["" if value is None else f"{_INPUT}{i}" for i, value in enumerate(node.inputs)]
    outputs = [f"{_OUTPUT}{i}" for i in range(node.outputs)]
    attributes = {name: value for name, value in node.attributes.items() if value is not None and value != []}
    graph = onnx.GraphProto(name=node.op)
    graph.node.append(helper.make_node(node.op, names, outputs, domain=node.domain, **attributes))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    for name, value in zip(names, node.inputs, strict=True):
        if isinstance(value, Data) or (isinstance(value, Known) and node.unfolded):
            kind = helper.np_dtype_to_tensor_dtype(np.asarray(value.base).dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, value.base.shape))
        elif value is not None:
            array = value.base if isinstance(value, Known) else np.asarray(value)
            graph.initializer.append(numpy_helper.from_array(array, name))
    return OnnxGraph(graph)
