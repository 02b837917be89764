"""ONNX classifiers as nn.Modules: any batch size, trainable, the same numbers as onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.inliner import inline_local_functions
from torch import Tensor, nn

from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.onnx_graph import GraphReader
from robnet_fx.frontend.onnx_ops.node import Stored
from robnet_fx.frontend.onnx_runtime import TOLERANCE, OnnxSession, as_logits, difference

_FREE_BATCH = 7  # sample batch size for a file that leaves it open: a prime that shapes seldom contain
_MAY_BE_INFINITE = {"Add", "Clip", "Max", "Min", "Pad", "Where"}  # to which an infinite constant means something


class OnnxModel(nn.Module):
    """A classifier read from an ONNX file: `images [B, *input_shape] -> logits [B, classes]` for any B.

    Weights are parameters (normalisation constants and running statistics are buffers), batch norm and dropout stay in
    inference form in train mode too. `network` is it as a torch.fx.GraphModule, one sub-module a node, named
    after it; `proto` is the file as it was read, and `stored` says where in it each parameter lives (None: nowhere),
    `uses` which node reads it there (by its first output), as which input.
    """

    def __init__(self, path: Path, proto: onnx.ModelProto, reader: GraphReader, dynamic_batch: bool) -> None:
        super().__init__()
        assert reader.output is not None
        self.path, self.proto, self.dynamic_batch = path, proto, dynamic_batch
        self.input_name, self.output_name = _image_input(proto.graph).name, proto.graph.output[0].name
        self.input_shape: tuple[int, ...] = reader.input_shape
        self.classes = reader.output.base.shape[1]
        self.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        self.network = reader.module
        self.stored: dict[str, Stored | None] = {f"network.{name}": value for name, value in reader.stored.items()}
        self.uses = {f"network.{name}": value for name, value in reader.uses.items()}

    @property
    def last_operator(self) -> str:
        """The ONNX operator that makes the logits."""
        last = self.network.graph.find_nodes(op="output")[0].args[0]
        return type(self.network.get_submodule(last.target)).__name__ if last.op == "call_module" else last.op

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, *input_shape]; `UsageError` for others, which some files would take too."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise UsageError(f"{self.path} takes {list(self.input_shape)}, not {list(images.shape[1:])}")
        return as_logits(self.network(images))

    def extra_repr(self) -> str:
        return f"{self.path.name}: {self.input_name} [B, {str(list(self.input_shape))[1:]} -> {self.classes} classes"


def load_onnx(path: Path | str) -> OnnxModel:
    """Read a classifier from an ONNX file and check it against onnxruntime on a random batch.

    Raises UsageError for a file that cannot be read (missing, damaged, NaN weights) and UnsupportedError for a network
    that cannot be taken: more than one input or output, sizes left open besides the batch, an input that is not
    float32, an output that is not [B, classes], operators without a PyTorch form (all of them are named), or numbers
    that differ from onnxruntime's by more than 1e-4 (1 + |b|).
    """
    path = Path(path)
    proto = _read(path)
    shape, batch = _check(path, proto)
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(batch or _FREE_BATCH, *shape, generator=generator)
    lifted = torch.rand(len(base) + 4, *shape, generator=generator)
    inlined = inline_local_functions(proto) if proto.functions else proto
    reader = GraphReader(inlined, base, lifted, dynamic=batch is None)
    reader.read()
    if reader.refused:
        raise UnsupportedError(
            f"{path}: {len(reader.refused)} node(s) cannot be converted to PyTorch\n"
            + "\n".join(reader.refused)
            + "\n  remedy  replace these layers in the original model and export it again"
        )
    output = reader.output
    if (
        output is None
        or as_logits(output.base).dim() != 2
        or len(output.base) != len(base)
        or len(output.lifted) != len(lifted)
    ):
        found = "a constant" if output is None else f"{list(output.base.shape)} for {len(base)} image(s)"
        raise UnsupportedError(f"{path}: a classifier's output is [batch, classes], and this one's is {found}")
    model = OnnxModel(path, proto, reader, dynamic_batch=batch is None)
    _compare(model, torch.cat([base, lifted]))
    return model


def _read(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    begins_well = data[:1] == b"\x08"  # the first field of every ONNX file is its IR version
    damaged = f"{path} is {'truncated or damaged' if begins_well else 'not an ONNX file'}"
    try:
        proto = onnx.load_from_string(data)
    except Exception as error:  # protobuf has several
        raise UsageError(damaged) from error
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise UsageError(damaged)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UsageError(f"{path} keeps its weights in another file, which cannot be read: {reason}") from error
    return proto


def _image_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    stored = {tensor.name for tensor in graph.initializer}
    return next(value for value in graph.input if value.name not in stored)


def _check(path: Path, proto: onnx.ModelProto) -> tuple[list[int], int | None]:
    """The image shape and the batch size (None when free) of a network with one image input and one output."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in stored]
    for kind, names in (("input", inputs), ("output", [value.name for value in graph.output])):
        if len(names) != 1:
            raise UnsupportedError(f"{path}: a classifier has one {kind}, and this network has {len(names)}: {names}")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{path}: sparse weights are not supported")
    _check_weights(path, graph)
    tensor = _image_input(graph).type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise UnsupportedError(f"{path}: the input {inputs[0]} is {kind}, and images must be FLOAT (float32)")
    sizes = [d.dim_value if d.WhichOneof("value") == "dim_value" else d.dim_param or "?" for d in tensor.shape.dim]
    open_sizes = [size for size in sizes[1:] if not isinstance(size, int) or size <= 0]
    if len(sizes) < 2 or open_sizes:
        raise UnsupportedError(
            f"{path}: the input {inputs[0]} has shape {sizes}; every size but the first (the batch) must be a number"
        )
    batch = sizes[0] if isinstance(sizes[0], int) and sizes[0] > 0 else None
    return [int(size) for size in sizes[1:]], batch


def _check_weights(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse NaN anywhere, and infinity except where it bounds or masks."""
    users: dict[str, set[str]] = {}
    tensors = list(graph.initializer)
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.op_type)
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    copy = onnx.TensorProto()
                    copy.CopyFrom(attribute.t)
                    copy.name = node.output[0]
                    tensors.append(copy)
    bad = []
    for tensor in tensors:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        if np.isnan(array).any() or not users.get(tensor.name, set()) <= _MAY_BE_INFINITE:
            bad.append(tensor.name)
    if bad:
        raise UsageError(f"{path}: NaN or infinite weights in {', '.join(bad)}")


@torch.no_grad()
def _compare(model: OnnxModel, images: Tensor) -> None:
    """The PyTorch form must give onnxruntime's numbers, and an image the same ones alone as among others."""
    try:
        theirs = OnnxSession(model.proto)(images)
    except RobnetError as error:
        raise UnsupportedError(f"{model.path}: {error}") from error
    worst = difference(model(images), theirs)
    if worst > TOLERANCE:
        raise UnsupportedError(
            f"{model.path}: PyTorch and onnxruntime disagree by {worst:.2g} (1 + |logit|), more than {TOLERANCE:g}"
        )
    if difference(model(images[:1]), theirs[:1]) > TOLERANCE:
        raise UnsupportedError(f"{model.path}: the logits of an image depend on the other images of its batch")
