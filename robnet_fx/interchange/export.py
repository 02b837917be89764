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
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=list(input_names),
                output_names=[output_name],
                dynamic_shapes=dynamic_shapes,
            )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(f"torch.onnx cannot export {what}: {lines[0][:300]}") from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    forget_notes(proto)
    return proto


def forget_notes(proto: onnx.ModelProto) -> None:
    """Take out the notes on source files that torch.onnx leaves in a graph, in place."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
