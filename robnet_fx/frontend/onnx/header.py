"""What an ONNX file says before anything is converted: its image input, its outputs, hints at its layout, metadata.

Sizes a file leaves open (height and width of a fully convolutional network) are settled by the images it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.machine.files import read_unpacked

_PIXELWISE = {"Identity", "Cast", "Add", "Sub", "Mul", "Div"}  # a normalisation, which leaves the axes alone


@dataclass(frozen=True)
class Axis:
    """One axis of a value. `size` is None where the file leaves it open; `name` is what the file calls it (`batch`,
    `height`, `DATA_CHANNEL`), empty for one without a name."""

    size: int | None
    name: str = ""

    def __str__(self) -> str:
        return str(self.size) if self.size is not None else self.name or "?"


@dataclass(frozen=True)
class Port:
    """An input or an output: its name, its type (`FLOAT`, `UINT8`, `INT64`; `sequence` for what is no tensor), and its
    axes, the batch first; None where the file does not say how many there are."""

    name: str
    type: str
    axes: tuple[Axis, ...] | None

    def __str__(self) -> str:
        shape = "of unknown shape" if self.axes is None else f"[{', '.join(map(str, self.axes))}]"
        return f"{self.name} ({self.type} {shape})"

    @property
    def open(self) -> tuple[str, ...]:
        """The names of the axes besides the batch whose sizes are open."""
        return tuple(str(axis) for axis in (self.axes or ())[1:] if axis.size is None)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a value of this shape (without the batch) fits: as many axes, and equal where the file has a size."""
        if self.axes is None:
            return True
        sizes = [axis.size for axis in self.axes[1:]]
        return len(sizes) == len(shape) and all(a in (None, b) for a, b in zip(sizes, shape, strict=True))


@dataclass(frozen=True)
class Header:
    """`image` is the one input that is not a weight, `outputs` all that the file declares, `metadata` its properties.

    `transposes` are the orders of axes in which the image is read behind the input, the batch's included, with at most
    casts and arithmetic with constants in between: (0, 3, 1, 2) is that of a network that takes channels last. Empty
    where anything reads it as it is.
    """

    path: Path
    image: Port
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    transposes: tuple[tuple[int, ...], ...]

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the file is for, None where it takes any."""
        return self.image.axes[0].size if self.image.axes else None


def read_header(path: Path | str) -> Header:
    """The header of an ONNX file; weights kept in other files are not read.

    Raises UsageError for a file that cannot be read, UnsupportedError for one without an image input.
    """
    return header_of(Path(path), read_proto(Path(path), weights=False))


def header_of(path: Path, proto: onnx.ModelProto) -> Header:
    """The header of a file that was read."""
    inputs = image_inputs(proto.graph)
    if not inputs:
        raise UnsupportedError(f"{path}: a classifier has one input, and this network has none")
    return Header(
        path,
        port(inputs[0]),
        tuple(port(value) for value in proto.graph.output),
        {entry.key: entry.value for entry in proto.metadata_props},
        _transposes(proto.graph, inputs[0].name),
    )


def read_proto(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """The file, packed by gzip or not, with the weights it keeps in other files unless they are not asked for.
    UsageError if it is no such."""
    data = read_unpacked(path)
    begins_well = data[:1] == b"\x08"  # the first field of every ONNX file is its IR version
    damaged = f"{path} is {'truncated or damaged' if begins_well else 'not an ONNX file'}"
    try:
        proto = onnx.load_from_string(data)
    except Exception as error:  # protobuf has several
        raise UsageError(damaged) from error
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise UsageError(damaged)
    if not weights:
        return proto
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UsageError(f"{path} keeps its weights in another file, which cannot be read: {reason}") from error
    return proto


def with_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a batch of 1 in front of an input that has one axis alone; whether its nodes mean the same then is
    for who runs both to see. Any other model is returned as it is."""
    inputs = image_inputs(proto.graph)
    if len(inputs) != 1 or len(port(inputs[0]).axes or ()) != 1:
        return proto
    made = onnx.ModelProto.FromString(proto.SerializeToString())
    (image,) = image_inputs(made.graph)
    axes = image.type.tensor_type.shape.dim
    axes.add().CopyFrom(axes[0])
    axes[0].Clear()
    axes[0].dim_value = 1
    for value in (*made.graph.output, *made.graph.value_info):
        value.type.tensor_type.ClearField("shape")
    return made


def image_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are not weights: files before IR version 4 list these too."""
    stored = {tensor.name for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer))}
    return [value for value in graph.input if value.name not in stored]


def port(value: onnx.ValueInfoProto) -> Port:
    """What a graph says of one of its values."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Port(value.name, (kind or "unknown").removesuffix("_type"), None)
    tensor = value.type.tensor_type
    axes = tuple(_axis(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return Port(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), axes)


def _axis(dim: onnx.TensorShapeProto.Dimension) -> Axis:
    return Axis(dim.dim_value if dim.dim_value > 0 else None, dim.dim_param or dim.denotation)


def _transposes(graph: onnx.GraphProto, image: str) -> tuple[tuple[int, ...], ...]:
    """The orders in which Transpose nodes read the image; none where anything reads it as it is."""
    same: set[str] = set()
    more = {image}
    while more:  # in whatever order the file has its nodes
        same |= more
        more = {n.output[0] for n in graph.node if n.op_type in _PIXELWISE and not same.isdisjoint(n.input)} - same
    orders = []
    for node in graph.node:
        if same.isdisjoint(node.input) or node.op_type in _PIXELWISE | {"Shape"}:
            continue
        if node.op_type != "Transpose":
            return ()
        orders += [tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
    return tuple(dict.fromkeys(orders))
