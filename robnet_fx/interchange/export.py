"""A module as an ONNX file by torch.onnx, without what it notes in one beside the network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from robnet_fx.errors import UnsupportedError


def exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_name: str,
    what: str,
    dynamic_shapes: Any = None,
) -> onnx.ModelProto:
    """The file of a module with one output. Raises `UnsupportedError`, which says `what` cannot be exported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return translated(module, inputs, input_names, [output_name], dynamic_shapes)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(f"torch.onnx cannot export {what}: {lines[0][:300]}") from error


def translated(
    module: nn.Module | torch.export.ExportedProgram,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Any = None,
) -> onnx.ModelProto:
    """What torch.onnx makes of a module, but for the notes on source files that it leaves in a graph. Raises what
    torch.onnx raises."""
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        verbose=False,
        input_names=list(input_names),
        output_names=list(output_names),
        dynamic_shapes=dynamic_shapes,
    )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto
