"""ONNX classifiers as nn.Modules: any batch size, trainable, the same numbers as onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from robnet_fx.algebra.logits import as_logits
from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.onnx.fused import unfuse
from robnet_fx.frontend.onnx.graph import GraphReader
from robnet_fx.frontend.onnx.header import Port, image_inputs, port, read_header, read_proto
from robnet_fx.frontend.onnx.operators.node import Stored
from robnet_fx.frontend.onnx.part import choose_output, part_behind
from robnet_fx.frontend.onnx.runtime import computes_in_halves, difference, judges
from robnet_fx.images.layout import Shape, UnsettledLayout, candidates

_FREE_BATCH = 7  # sample batch size for a file that leaves it open: a prime that shapes seldom contain
_MAY_BE_INFINITE = {"Clip", "Max", "Min", "Pad", "Where"}  # operators to which an infinite constant means something
_INPUTS = ("FLOAT", "DOUBLE", "FLOAT16", "UINT8")
_QUANTISED = re.compile("[Qq]uantize|QLinear|Integer|NBits|Bnb4|^Q[A-Z]")
LEVELS = 255  # the largest of a uint8 image


class OnnxModel(nn.Module):
    """A classifier read from an ONNX file: `images [B, *input_shape] -> output [B, K]` for any B.

    Images are pixels as the file takes them, but for a file of uint8 images: then they are in 0..1, and 255 times them
    is what the network gets, whole levels or not. Weights are parameters (normalisation constants and running
    statistics are buffers) in float32, or float64 where the file's have more digits; batch norm and dropout stay in
    inference form in train mode too. `classes` is K, and 2 for one logit.
    `network` is it as a torch.fx.GraphModule, one sub-module a node, named after it; `proto` is the file as it was
    read, of which `part` is what the logits need, and `stored` says where in it each parameter lives (None: nowhere),
    `uses` which node reads it there (by its first output), as which input. `asked` is the output that was named.
    `remarks` are what a report must say about it, by topic.
    """

    def __init__(self, path: Path, proto: onnx.ModelProto, part: onnx.ModelProto, reader: GraphReader) -> None:
        super().__init__()
        assert reader.output is not None
        self.path, self.proto, self.part, self.dynamic_batch = path, proto, part, reader.dynamic
        self.input_name, self.output_name = image_inputs(part.graph)[0].name, part.graph.output[0].name
        self.input_shape: tuple[int, ...] = reader.input_shape
        self.classes = max(2, as_logits(reader.output.base).shape[1])
        self.levels = reader.levels
        self.asked: str | None = None
        self.remarks: dict[str, str] = {}
        self.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        self.network = reader.module
        self.stored: dict[str, Stored | None] = {f"network.{name}": value for name, value in reader.stored.items()}
        self.uses = {f"network.{name}": value for name, value in reader.uses.items()}

    def forward(self, images: Tensor) -> Tensor:
        """[B, K] of images [B, *input_shape]; `UsageError` for others, which some files would take too."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise UsageError(f"{self.path} takes {list(self.input_shape)}, not {list(images.shape[1:])}")
        return as_logits(self.network(images * LEVELS if self.levels else images))

    def presentable(self, images: Tensor) -> Tensor:
        """The images nearest to these that the file itself can be given."""
        return (images * LEVELS).round() / LEVELS if self.levels else images

    def extra_repr(self) -> str:
        return f"{self.path.name}: {self.input_name} [B, {str(list(self.input_shape))[1:]} -> {self.classes} classes"


def load_onnx(path: Path | str, shape: Sequence[int] | None = None, output: str | None = None) -> OnnxModel:
    """Read a classifier from an ONNX file and check it against onnxruntime on a random batch.

    `shape`, that of its input without the batch, is needed where the file leaves sizes open. `output` names the tensor
    that is judged, one of the file's outputs or one inside; it is needed where several outputs can be logits, and the
    file's metadata may remember it. Only what this tensor needs is read.

    Raises UsageError for a file that cannot be read (missing, damaged, NaN weights), for open sizes, and where an
    output must be named or is not there; UnsupportedError for a network that cannot be taken: more than one input,
    images that are neither floating point nor uint8, an output that is neither [B, classes] nor one number a sample,
    quantised weights, operators without a PyTorch form (all of them are named), or numbers that differ from
    onnxruntime's by more than 1e-4 (1 + |b|), 2e-2 where the file computes in float16.
    """
    return load_proto(Path(path), read_proto(Path(path)), shape, output)


def load_proto(
    path: Path, proto: onnx.ModelProto, shape: Sequence[int] | None = None, output: str | None = None
) -> OnnxModel:
    """`load_onnx` of what was read from a file already."""
    name, chosen = choose_output(path, proto, output)
    part = part_behind(path, proto, name)
    image = _check(path, part)
    sizes = _settled(path, image, shape)
    batch = image.axes[0].size if image.axes else None
    reader = _read(path, part, sizes, batch, levels=image.type == "UINT8")
    model = OnnxModel(path, proto, part, reader)
    model.asked = output or None
    model.remarks = {key: text for key, text in (("output", chosen), ("file", _about_type(model, image))) if text}
    _compare(model, batch or _FREE_BATCH, reader.dtype)
    return model


def load_for(path: Path | str, images: Shape, output: str | None = None, axes: str | None = None) -> OnnxModel:
    """`load_onnx` for images of this shape, which settle the sizes that the file leaves open: as they are where its
    layers take them so. `axes` say how they lie (of `layout.AXES`), None where that is not known.

    Raises `UnsettledLayout` where the open sizes would take several likely images, and what `load_onnx` raises.
    """
    image = read_header(path).image
    if image.axes is not None and not image.open:
        return load_onnx(path, None, output)
    fitting = [layout for layout in candidates(images) if image.takes(layout.taken) and axes in (None, layout.axes)]
    likely = [layout for layout in fitting if layout.likely]
    if len({layout.image for layout in likely}) > 1:
        raise UnsettledLayout(likely)
    fitting.sort(key=lambda layout: (not layout.as_given, not layout.likely))
    refused = None
    for shape in dict.fromkeys(layout.taken for layout in fitting):
        try:
            return load_onnx(path, shape, output)
        except UnsupportedError as error:  # where all sizes are open, only the layers know how many channels they take
            refused = refused or error
    if refused is not None:
        raise refused
    return load_onnx(path, None, output)


def _check(path: Path, part: onnx.ModelProto) -> Port:
    """The one input of a part, if its weights and operators are such as can be read."""
    graph = part.graph
    inputs = image_inputs(graph)
    if not inputs:
        raise UnsupportedError(f"{path}: the output {graph.output[0].name} is a constant: it does not need the image")
    if len(inputs) > 1:
        names = [value.name for value in inputs]
        raise UnsupportedError(f"{path}: a classifier has one input, and this network has {len(names)}: {names}")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{path}: sparse weights are not supported")
    quantised = [node for node in graph.node if _QUANTISED.search(node.op_type)]
    if quantised:
        kinds = ", ".join(sorted({node.op_type for node in quantised}))
        raise UnsupportedError(
            f"{path}: the network is quantised ({len(quantised)} nodes: {kinds}), and rounding has no bounds\n"
            "  remedy  take the file in floating point from which it was quantised; quantise after training"
        )
    _check_weights(path, graph)
    image = port(inputs[0])
    if image.type not in _INPUTS:
        raise UnsupportedError(
            f"{path}: the input {image.name} is {image.type}, and images are floating point or UINT8\n"
            "  remedy  export the model with an input of float32"
        )
    return image


def _settled(path: Path, image: Port, shape: Sequence[int] | None) -> tuple[int, ...]:
    """The input's shape without the batch, open sizes as `shape` has them."""
    if shape is not None:
        if not image.takes(shape):
            raise UsageError(f"{path}: the input {image} does not take {list(shape)}")
        return tuple(int(size) for size in shape)
    if image.axes is None or image.open:
        what = f"leaves {', '.join(image.open)} open" if image.axes else "says nothing of its shape"
        raise UsageError(
            f"{path}: the input {image} {what}; the images it is for settle that\n"
            "  remedy  name them with --data (Python: example=)"
        )
    if len(image.axes) < 2:
        raise UnsupportedError(f"{path}: the input {image} has no axis besides the batch")
    return tuple(axis.size or 0 for axis in image.axes[1:])


def _read(path: Path, part: onnx.ModelProto, sizes: Sequence[int], batch: int | None, *, levels: bool) -> GraphReader:
    """The part as a graph of torch modules: in float32, or float64 where its weights have more digits than that."""
    ours = onnx.ModelProto.FromString(part.SerializeToString())
    unfuse(ours)
    for dtype in (torch.float32, torch.float64):
        base, lifted = (_sample(count, sizes, levels, dtype) for count in _counts(batch or _FREE_BATCH))
        reader = GraphReader(ours, base, lifted, dynamic=batch is None, levels=levels)
        reader.read()
        if not reader.inexact:
            break
    if reader.refused:
        raise UnsupportedError(
            f"{path}: {len(reader.refused)} node(s) cannot be converted to PyTorch\n"
            + "\n".join(reader.refused)
            + "\n  remedy  replace these layers in the original model and export it again"
        )
    output, name = reader.output, part.graph.output[0].name
    if output is None or output.levels:
        raise UnsupportedError(f"{path}: the output {name} is {'a constant' if output is None else 'whole numbers'}")
    shapes = [as_logits(value).shape for value in (output.base, output.lifted)]
    if any(len(shape) != 2 or shape[0] != len(x) for shape, x in zip(shapes, (base, lifted), strict=True)):
        raise UnsupportedError(
            f"{path}: a classifier's output is [batch, classes], and {name} is {list(output.base.shape)} "
            f"for {len(base)} image(s)"
        )
    return reader


def _counts(batch: int) -> tuple[int, int]:
    return batch, batch + 4


def _sample(count: int, sizes: Sequence[int], levels: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images, as the network's own nodes get them."""
    images = torch.rand(count, *sizes, generator=torch.Generator().manual_seed(count), dtype=dtype)
    return (images * LEVELS).round() if levels else images


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
        masks = set() if (array == np.inf).any() else {"Add"}  # of attention, in front of a softmax
        if np.isnan(array).any() or not users.get(tensor.name, set()) <= _MAY_BE_INFINITE | masks:
            bad.append(tensor.name)
    if bad:
        raise UsageError(f"{path}: NaN or infinite weights in {', '.join(bad)}")


def _about_type(model: OnnxModel, image: Port) -> str:
    if model.levels:
        return (
            f"uint8 image {image.name}: field and clip act on pixels in 0..1, and the network gets 255 times these; "
            "rounding to whole levels is not covered"
        )
    if computes_in_halves(model.part):
        return (
            "float16 file: bounds are for its weights as stored in exact arithmetic; what float16 rounds is not covered"
        )
    return ""


@torch.no_grad()
def _compare(model: OnnxModel, batch: int, dtype: torch.dtype) -> None:
    """The PyTorch form must give onnxruntime's numbers, and an image the same ones alone as among others."""
    images = torch.rand(sum(_counts(batch)), *model.input_shape, generator=torch.Generator().manual_seed(0))
    images = model.presentable(images.to(dtype))
    ours, alone = model(images), model(images[:1])
    try:
        for judge, allowed in judges(model.part):
            theirs = judge(images)
            worst = difference(ours, theirs)
            if worst > allowed:
                raise UnsupportedError(
                    f"PyTorch and onnxruntime disagree by {worst:.2g} (1 + |logit|), more than {allowed:g}"
                )
            if difference(alone, theirs[:1]) > allowed:
                raise UnsupportedError("the logits of an image depend on the other images of its batch")
    except RobnetError as error:
        raise UnsupportedError(f"{model.path}: {error}") from error
