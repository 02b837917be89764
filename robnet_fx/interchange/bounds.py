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
from robnet_fx.bounds.methods import check_fixed
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UnsupportedError, UnsupportedOpError, UsageError
from robnet_fx.frontend.onnx.runtime import TOLERANCE, difference
from robnet_fx.frontend.running import uncollected
from robnet_fx.interchange.export import translated
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.torch_internals import flattened, operations_named
from robnet_fx.perturbations.base import Box

aten = torch.ops.aten

Sizes = tuple[int | None, int | None]  # (batch, rows), None where free

INPUTS, OUTPUTS = ("image", "spec", "center", "radius"), ("lower", "upper")
_DOC = (
    "Bounds of spec @ logits over a box of coefficients of a perturbation. image [batch, ...] in [0, 1]; spec [batch, "
    "rows, classes], a row with +1 for a class and -1 for the label bounds that margin. The box is center +- radius, "
    "[1 or batch, coefficients] each; both have a default and may be left out. No coefficients of the box fool the "
    "network if every upper margin is below 0. Computed in float32, rounded to nearest."
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
    """Write `net.bounds`: `image`, `spec [batch, rows, classes]`, `center` and `radius` to `lower`, `upper`.

    The box, `[1 or batch, D]`, may be left out: its default is the box that `net` has now, in initializers that are
    inputs too, which a runtime may override. net: float32 on a CPU. `example [B, *S]` are images to trace and to
    compare with. The sizes batch and rows stay free where the rules leave them so; else the file takes one image at a
    time, and a row for each class but one.
    `metadata` is added to the file's properties. Written whole or not at all, and only if onnxruntime agrees to 1e-4
    (1 + |b|). Raises `UsageError` for the method that chooses rows as it goes, "rsip", and for
    "all" symbols, and `UnsupportedError` naming the operations that ONNX lacks.
    """
    check_fixed(net.symbols)
    if method_named(net.method).by_rows:
        raise UsageError(f"method {net.method} picks its rows as it goes and has no fixed graph; export rsip-ssip")
    # Tracing takes equal sizes for one and the same: a size that stays free must be no channel's, class' or box's.
    taken = *example.shape[1:], net.classes, len(net.center)
    batch, rows = islice((n for n in count(2) if n not in taken), 2)
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
    with warnings.catch_warnings(), uncollected():
        warnings.simplefilter("ignore")
        proto = _exported(net.get_submodule("bounds"), (image, spec, *_default(net)), free)
    _describe(proto, metadata)
    _with_default(proto, _default(net))
    data, sizes = proto.SerializeToString(), _sizes(proto)
    if free and sizes[0] is not None:
        raise UnsupportedError("the number of images is fixed by a rule")
    worst = _compare(net, data, image, spec, sizes)
    if not worst <= TOLERANCE:
        raise UnsupportedError(f"no bounds are written: onnxruntime differs from PyTorch by {worst:.2g} (1 + |bound|)")
    return data, sizes, worst


class _OneBoxEach(nn.Module):
    """Bounds with the box repeated for every sample, which works in a file for one box and for as many as images."""

    def __init__(self, bounds: nn.Module) -> None:
        super().__init__()
        self.bounds = bounds

    def forward(self, image: Tensor, spec: Tensor, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.bounds(image, spec, *(part.expand(image.shape[0], -1) for part in (center, radius)))
        return lower, upper


def _default(net: BoundedModel) -> Box:
    return Box(net.center.unsqueeze(0), net.radius.unsqueeze(0))


def _exported(bounds: nn.Module, inputs: tuple[Tensor, ...], free: bool) -> onnx.ModelProto:
    mode: Literal["symbolic", "real"] = "symbolic" if free else "real"
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
    try:
        with kernels.plain():
            flat = flattened(_OneBoxEach(bounds), inputs, _TABLE, mode)
        sizes = ({0: batch}, {0: batch, 1: rows}, None, None) if free else None
        return translated(flat, inputs, INPUTS, OUTPUTS, sizes)
    except Exception as error:
        missing = operations_named(error)
        if missing:
            raise UnsupportedOpError(f"the bounds graph has no ONNX form: {', '.join(missing)}") from error
        raise UnsupportedError(f"torch.onnx cannot export the bounds: {str(error).strip().splitlines()[0]}") from error


def _describe(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    proto.doc_string = _DOC
    onnx.helper.set_model_props(proto, dict(metadata))


def _with_default(proto: onnx.ModelProto, box: Box) -> None:
    """The box as initializers that are inputs too, of one row or of as many as there are images."""
    for value in proto.graph.input:
        if value.name in Box._fields:
            value.type.tensor_type.shape.dim[0].dim_param = "boxes"
    for name, part in zip(Box._fields, box, strict=True):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(part.numpy(force=True), name))


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
    asked: list[tuple[Tensor, ...]] = [(image, spec)]
    worst = 0.0
    for size in [batch] if batch else [1, 5]:
        pair = (
            torch.rand(size, *image.shape[1:], generator=generator),
            torch.randn(size, rows or spec.shape[1] + 2, spec.shape[2], generator=generator),
        )
        t = torch.rand(size, len(net.center), generator=generator)
        asked += [pair, (*pair, net.center + net.radius * (1 - t), net.radius * t)]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for values in asked:
            found = session.run(list(OUTPUTS), dict(zip(INPUTS, (value.numpy() for value in values), strict=False)))
            for ours, theirs in zip(net.get_submodule("bounds")(*values), found, strict=True):
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
