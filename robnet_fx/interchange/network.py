"""Writing a network as ONNX: the file it came from with new weights, or a fresh export.

The first is preferred: same nodes, names, opset, shapes and metadata, so whatever read the old file reads the new one.
Either way onnxruntime has reproduced the network from the very bytes before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from robnet_fx.errors import RobnetError, UnsupportedError
from robnet_fx.frontend.onnx.header import header_of
from robnet_fx.frontend.onnx.load import LEVELS, OnnxModel
from robnet_fx.frontend.onnx.metadata import OUTPUT
from robnet_fx.frontend.onnx.part import part_behind
from robnet_fx.frontend.onnx.runtime import difference, judges, tolerance
from robnet_fx.frontend.outputs import Name, picking
from robnet_fx.frontend.running import Guest, undisturbed
from robnet_fx.frontend.unwrap import copy_of
from robnet_fx.interchange.export import exported
from robnet_fx.machine.files import write_atomically

Way = Literal["initialisers", "re-export"]
_TYPES = {"FLOAT": torch.float32, "DOUBLE": torch.float64, "FLOAT16": torch.float16, "UINT8": torch.uint8}


def write_onnx(
    model: nn.Module,
    out: Path | str,
    example: Tensor,
    *,
    input_name: str = "image",
    output_name: str = "logits",
    metadata: Mapping[str, str] | None = None,
    output: Name = None,
) -> Way:
    """Write `model` to `out` and say which way was taken.

    "initialisers": the file an `OnnxModel` was read from, nothing changed but the weights' values, which are rounded to
    its types (where training pulls apart what two nodes read from one initialiser, one of them reads a new one).
    "re-export": a new graph by `torch.onnx.export`, with the old file's input and output names, shapes, types, batch
    axis and metadata, but for outputs besides the one that is judged and for sizes left open; or for a model that came
    from no file, a free batch and the two names given. `example` [B, *S] are images to trace and to compare with;
    `metadata` is added to the file's properties, and which output was chosen; `output` names the logits where the
    module returns more than one tensor. The module is left as it was found. The file is written whole or not at all.
    Raises RobnetError when it cannot be written, UnsupportedError when the network cannot be exported or onnxruntime
    does not reproduce it to 1e-4 (1 + |b|), 2e-2 in a file that computes in float16.
    """
    network = _on_cpu(model)
    images = example.detach().cpu().float()
    images = torch.cat([images, images])[: max(2, len(images))]
    problem = ""
    with undisturbed(network, output) as guest, picking(network, output):
        if isinstance(network, OnnxModel):
            input_name, output_name = network.input_name, network.output_name
            chosen = {OUTPUT: network.asked} if network.asked else {}
            metadata = {**network.metadata, **chosen, **(metadata or {})}
            original = with_weights(network)
            if original is not None:
                data = _serialise(original, metadata)
                problem = _compare(network, guest, data, images, output_name)
                if not problem:
                    _write(Path(out), data)
                    return "initialisers"
            metadata = {key: value for key, value in metadata.items() if key != OUTPUT}  # it has no other
        guest(images)  # which dismisses the hooks that only look on
        data = _serialise(_export(network, images, input_name, output_name), metadata)
        problem = _compare(network, guest, data, images, output_name)
    if problem:
        raise UnsupportedError(f"{out} is not written: {problem}")
    _write(Path(out), data)
    return "re-export"


def with_weights(model: OnnxModel) -> onnx.ModelProto | None:
    """The file `model` was read from with the model's present weights; None if one of them has no place in it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    places = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            places.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    trained, state = {name for name, _ in model.named_parameters(remove_duplicate=False)}, model.state_dict()
    written: dict[str, np.ndarray] = {}
    for name, stored in model.stored.items():
        if stored is None or stored.name not in places:
            if name in trained:
                return None
            continue  # a fixed constant computed on the way: what computes it stays in the file
        old = onnx.numpy_helper.to_array(places[stored.name])
        with np.errstate(over="ignore"):  # what float16 cannot hold shows in the comparison
            value = state[name].detach().cpu().numpy().astype(old.dtype)
        if value.size != old.size:
            return None
        new = np.empty(old.size, old.dtype)
        new[... if stored.index is None else stored.index.reshape(-1)] = value.reshape(-1)
        if not np.array_equal(written.setdefault(stored.name, new), new):
            own = _split(proto.graph, stored.name, *model.uses[name])
            if own is None:
                return None
            places[own.name], written[own.name] = own, new
    for place, new in written.items():
        if new.tobytes() != onnx.numpy_helper.to_array(places[place]).tobytes():
            _replace(places[place], new)
    return proto


def _split(graph: onnx.GraphProto, name: str, output: str, index: int) -> onnx.TensorProto | None:
    """A copy of an initialiser for one of the nodes that read it (exporters store equal tensors once, so that a scale
    may share the ones of a variance); None where that node reads it through others."""
    node = next((node for node in graph.node if output in node.output), None)
    shared = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    if node is None or shared is None or node.input[index] != name:
        return None
    own = graph.initializer.add()
    own.CopyFrom(shared)
    own.name = node.input[index] = f"{name}.{output}.{index}"
    for listed in [value for value in graph.input if value.name == name]:  # files before IR version 4
        graph.input.add().CopyFrom(listed)
        graph.input[-1].name = own.name
    return own


def _replace(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    for field in ("float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    tensor.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model itself if it is float32 on the CPU, else a copy that is: verdicts do not depend on TF32. One that was
    read from a file may stay in float64: the file may hold that."""
    tensors = [*model.parameters(), *model.buffers()]
    kept = {torch.float32, torch.int64} | ({torch.float64} if isinstance(model, OnnxModel) else set())
    if all(t.device.type == "cpu" and t.dtype in kept for t in tensors):
        return model
    moved = copy_of(model).cpu()
    return moved if all(t.dtype in kept for t in tensors) else moved.float()


def _export(model: nn.Module, images: Tensor, input_name: str, output_name: str) -> onnx.ModelProto:
    """A new graph by torch.onnx."""
    batch: int | None = None
    if isinstance(model, OnnxModel):
        batch = header_of(model.path, model.part).fixed_batch
        model = _AsInTheFile(model)
        images = model.given(images)
    if batch is not None:
        images = images.repeat(batch, *[1] * (images.dim() - 1))[:batch]
    free = None if batch else ({0: torch.export.Dim("batch")},)
    return exported(model, (images.clone(),), [input_name], output_name, type(model).__name__, free)


class _AsInTheFile(nn.Module):
    """A network in float32 with an input of the type that the file it was read from has."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self.network = copy_of(model).float()
        self.levels = model.levels
        self.taken = _TYPES[header_of(model.path, model.part).image.type]

    def given(self, images: Tensor) -> Tensor:
        """Images as `OnnxModel` takes them, in the file's own type."""
        return (images * LEVELS).round().to(self.taken) if self.levels else images.to(self.taken)

    def forward(self, images: Tensor) -> Tensor:
        """[B, K] of them, in the file's floating-point type."""
        pixels = images.float() / LEVELS if self.levels else images.float()
        output: Tensor = self.network(pixels)
        return output.to(self.taken) if self.taken.is_floating_point else output


def _serialise(proto: onnx.ModelProto, metadata: Mapping[str, str] | None) -> bytes:
    if metadata:
        known = {entry.key: entry.value for entry in proto.metadata_props}
        onnx.helper.set_model_props(proto, {**known, **metadata})
    return proto.SerializeToString()


@torch.no_grad()
def _compare(model: nn.Module, guest: Guest, data: bytes, images: Tensor, output: str) -> str:
    """What is wrong with the bytes as a form of the model; empty if nothing."""
    images = torch.cat([images, torch.rand(images.shape, generator=torch.Generator().manual_seed(0))])
    if isinstance(model, OnnxModel):
        images = model.presentable(images)
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    ours = guest(images.to(floats[0]) if floats else images)
    try:
        part = part_behind(Path(), onnx.load_from_string(data), output)
        allowed = tolerance(part)
        worst = max(difference(ours, session(images)) for session, _ in judges(part))
    except RobnetError as error:
        return str(error)
    return "" if worst <= allowed else f"onnxruntime differs from PyTorch by {worst:.2g} (1 + |logit|)"


def _write(out: Path, data: bytes) -> None:
    with write_atomically(out) as file:
        file.write(data)
