"""A bounds graph as an ONNX file: the certificate's computation, for any runtime and without Python.

The graph is flattened to ATen first (`make_fx`), since some rules pull forms back by `torch.func.vjp`, which the
exporter does not know; the few backward operations this leaves have their forms below.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robnet_fx.algebra import kernels
from robnet_fx.bounds import method_named
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UnsupportedError, UnsupportedOpError, UsageError
from robnet_fx.frontend.onnx.runtime import TOLERANCE, difference
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.torch_internals import flattened, operations_named

aten = torch.ops.aten

Sizes = tuple[int | None, int | None]  # (batch, rows), None where free

INPUTS, OUTPUTS = ("image", "spec"), ("lower", "upper")
_DOC = (
    "Bounds of spec @ logits over a bias field. image [batch, ...] in [0, 1]; spec [batch, rows, classes], a row with "
    "+1 for a class and -1 for the label bounds that margin. No field of the box fools the network if every upper "
    "margin is below 0. Computed in float32, rounded to nearest."
)


class BoundsFile(NamedTuple):
    """What was written: the sizes that the file fixes (None where any will do), and its largest |a - b| / (1 + |b|)
    between onnxruntime and PyTorch."""

    batch: int | None
    rows: int | None
    difference: float


@torch.no_grad()
def write_bounds(
    net: BoundedModel, out: Path | str, example: Tensor, metadata: Mapping[str, str] | None = None
) -> BoundsFile:
    """Write `net.bounds` with the box it has now: `image`, `spec [batch, rows, classes]` to `lower`, `upper`.

    net: float32 on a CPU. `example [B, *S]` are images to trace and to compare with. The sizes batch and rows stay
    free where the rules leave them so; else the file takes one image at a time, and a row for each class but one.
    `metadata` is added to the file's properties. Written whole or not at all, and only if onnxruntime agrees to 1e-4
    (1 + |b|). Raises `UsageError` for the methods that choose rows as they go, "rsip-anchored" and "rsip", and
    `UnsupportedError` naming the operations that ONNX lacks.
    """
    if method_named(net.method).by_rows:
        raise UsageError(f"method {net.method} picks its rows as it goes and has no fixed graph; export rsip-ssip")
    # Tracing takes equal sizes for one and the same: a size that stays free must not be that of a channel or a class.
    batch, rows = islice((n for n in count(2) if n not in (*example.shape[1:], net.classes)), 2)
    try:
        data, sizes, worst = _attempt(net, *_inputs(net, example, batch, rows), metadata or {}, free=True)
    except UnsupportedOpError:
        raise
    except UnsupportedError:  # a rule ties the sizes: one image at a time is the most useful
        inputs = _inputs(net, example, 1, max(1, net.classes - 1))
        data, sizes, worst = _attempt(net, *inputs, metadata or {}, free=False)
    with write_atomically(out) as file:
        file.write(data)
    return BoundsFile(*sizes, worst)


def _inputs(net: BoundedModel, example: Tensor, batch: int, rows: int) -> tuple[Tensor, Tensor]:
    image = example.detach()[torch.arange(batch) % len(example)]
    return image, torch.randn(batch, rows, net.classes, generator=torch.Generator().manual_seed(0))


def _attempt(
    net: BoundedModel, image: Tensor, spec: Tensor, metadata: Mapping[str, str], free: bool
) -> tuple[bytes, Sizes, float]:
    """The file's bytes, checked; with sizes left free or fixed to those of the example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = _exported(net.get_submodule("bounds"), (image, spec), free)
    _describe(proto, metadata)
    data, sizes = proto.SerializeToString(), _sizes(proto)
    if free and sizes[0] is not None:
        raise UnsupportedError("the number of images is fixed by a rule")
    worst = _compare(net, data, image, spec, sizes)
    if not worst <= TOLERANCE:
        raise UnsupportedError(f"no bounds are written: onnxruntime differs from PyTorch by {worst:.2g} (1 + |bound|)")
    return data, sizes, worst


def _exported(bounds: nn.Module, inputs: tuple[Tensor, Tensor], free: bool) -> onnx.ModelProto:
    mode: Literal["symbolic", "real"] = "symbolic" if free else "real"
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
    try:
        with kernels.plain():
            flat = flattened(bounds, inputs, _TABLE, mode)
        program = torch.onnx.export(
            flat,
            inputs,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: batch}, {0: batch, 1: rows}) if free else None,
        )
    except Exception as error:
        missing = operations_named(error)
        if missing:
            raise UnsupportedOpError(f"the bounds graph has no ONNX form: {', '.join(missing)}") from error
        raise UnsupportedError(f"torch.onnx cannot export the bounds: {str(error).strip().splitlines()[0]}") from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def _describe(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.doc_string = _DOC
    onnx.helper.set_model_props(proto, dict(metadata))


def _sizes(proto: onnx.ModelProto) -> Sizes:
    """(batch, rows) as the file fixes them."""
    batch, rows, _ = proto.graph.input[1].type.tensor_type.shape.dim
    return batch.dim_value or None, rows.dim_value or None


def _compare(net: BoundedModel, data: bytes, image: Tensor, spec: Tensor, sizes: Sizes) -> float:
    """The largest difference on the example and on random images, other sizes of them where these are free."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    batch, rows = sizes
    generator = torch.Generator().manual_seed(1)
    pairs, worst = [(image, spec)], 0.0
    for size in [batch] if batch else [1, 5]:
        other = torch.rand(size, *image.shape[1:], generator=generator)
        pairs.append((other, torch.randn(size, rows or spec.shape[1] + 2, spec.shape[2], generator=generator)))
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for pair in pairs:
            found = session.run(list(OUTPUTS), dict(zip(INPUTS, (value.numpy() for value in pair), strict=True)))
            for ours, theirs in zip(net.get_submodule("bounds")(*pair), found, strict=True):
                worst = max(worst, difference(ours, torch.from_numpy(theirs)))
    except Exception as error:  # onnxruntime has several
        raise UnsupportedError(f"onnxruntime cannot run the bounds graph: {str(error).splitlines()[0]}") from error
    return worst


def _separable(grad: Tensor, sizes: Sequence[int], pool: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The adjoint of a pooling that works axis by axis: `pool(axis, [n, 1, n]) -> [n, 1, m]` is its matrix."""
    dims = len(sizes)
    for axis, size in enumerate(sizes):
        matrix = pool(axis, torch.eye(size, dtype=grad.dtype).unsqueeze(1)).squeeze(1)
        grad = (grad.movedim(axis - dims, -1) @ matrix.T).movedim(-1, axis - dims)
    return grad


def _avg_pool_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    dims = len(kernel)
    strides = list(stride) or list(kernel)

    def pool(axis: int, basis: Tensor) -> Tensor:
        k, s, p = (list(values)[axis % len(values)] for values in (kernel, strides, padding))
        made = F.avg_pool1d(basis, k, s, p, ceil_mode, count_include_pad)
        return made if divisor is None else (made > 0).to(grad.dtype)

    pulled = _separable(grad, x.shape[x.dim() - dims :], pool)
    return pulled if divisor is None else pulled / divisor


def _adaptive_backward(grad: Tensor, x: Tensor) -> Tensor:
    dims = grad.dim() - 2
    outs = grad.shape[2:]
    return _separable(grad, x.shape[-dims:], lambda axis, basis: F.adaptive_avg_pool1d(basis, outs[axis]))


_TABLE: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d_backward.default: _avg_pool_backward,
    aten.avg_pool3d_backward.default: _avg_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_backward,
    aten._adaptive_avg_pool3d_backward.default: _adaptive_backward,
}
