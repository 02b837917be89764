"""Networks to ONNX files: one file, any batch size, input `image`, output `logits`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from robnet_fx.files import write_atomically
from robnet_fx.zoo.data import METADATA_KEY
from robnet_fx.zoo.digits import train_digits
from robnet_fx.zoo.models import architecture

OPSET = 20


def export(name: str, path: str | Path, seed: int = 0) -> None:
    """Write a network of the zoo: digits trained, every other one with the random weights that `seed` gives."""
    entry = architecture(name)
    if name == "digits":
        module: nn.Module = train_digits(seed)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = entry.build()
    metadata = {} if entry.data is None else {METADATA_KEY: entry.data}
    export_onnx(module, entry.input_shape, path, metadata)


def export_onnx(
    module: nn.Module, input_shape: Sequence[int], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write `module`, images `[B, *input_shape]` to logits `[B, classes]`, in eval mode, with a symbolic batch.

    The file appears whole or not at all (`RobnetError` says why). It names no source file, so the same weights give
    the same bytes.
    """
    device = next((parameter.device for parameter in module.parameters()), None)
    example = torch.zeros(2, *input_shape, device=device)
    modes = {part: part.training for part in module.modules()}
    try:
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    finally:
        for part, training in modes.items():
            part.training = training
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces: the paths of this machine
    program.model.metadata_props.update(metadata or {})
    with write_atomically(path) as file:
        file.write(program.model_proto.SerializeToString())
