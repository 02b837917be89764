"""Running an ONNX classifier in onnxruntime: the second opinion on every network read or written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from robnet_fx.algebra.logits import as_logits
from robnet_fx.errors import UnsupportedError

TOLERANCE = 1e-4  # of (1 + |b|), for every comparison of two forms of one network
_TOLERANCE_OF_HALVES = 2e-2  # where one of them computes in float16, by its rounding in a few dozen layers
_HALVES = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
_OTHERS = {*_HALVES, onnx.TensorProto.DOUBLE}
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxSession:
    """An ONNX classifier as a function: images [B, *S] -> its first output [B, K], B free whatever the file says.

    `network` is a model, its bytes or its path; `dtype` the floating-point type it takes, float32 for uint8 images. A
    file with a fixed batch size is fed in pieces of that size, one whose input has one axis alone without a batch, one
    of uint8 images with the nearest levels to images in 0..1.
    Raises UnsupportedError where onnxruntime refuses the file or the images.
    """

    def __init__(self, network: onnx.ModelProto | bytes | Path | str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        source = network.SerializeToString() if isinstance(network, onnx.ModelProto) else network
        source = str(source) if isinstance(source, Path) else source
        try:
            self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UnsupportedError(f"onnxruntime refuses the network: {_first_line(error)}") from error
        shape = self.session.get_inputs()[0].shape
        self.batched = len(shape) != 1
        size = next(iter(shape), None) if self.batched else 1
        self.fixed_batch = size if isinstance(size, int) and size > 0 else None
        kind = _TYPES.get(self.session.get_inputs()[0].type, np.float32)
        self.dtype = torch.from_numpy(np.empty(0, kind)).dtype

    def __call__(self, images: Tensor) -> Tensor:
        array, count = self._as_taken(images.detach().cpu().numpy()), len(images)
        step = self.fixed_batch or max(1, count)
        if missing := -count % step:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        name = self.session.get_inputs()[0].name
        try:
            if self.batched:
                pieces = [self.session.run(None, {name: array[i : i + step]})[0] for i in range(0, len(array), step)]
            else:
                pieces = [self.session.run(None, {name: row})[0][None] for row in array]
        except Exception as error:
            raise UnsupportedError(f"onnxruntime fails on {step} images: {_first_line(error)}") from error
        return as_logits(torch.from_numpy(np.concatenate(pieces)[:count]))

    def _as_taken(self, images: np.ndarray) -> np.ndarray:
        kind = self.session.get_inputs()[0].type
        if kind == "tensor(uint8)":
            return (images * 255).round().clip(0, 255).astype(np.uint8)
        return images.astype(_TYPES.get(kind, np.float32), copy=False)


def tolerance(network: onnx.ModelProto) -> float:
    """What the numbers of a file may differ by from those of another form of it, times (1 + |b|)."""
    return _TOLERANCE_OF_HALVES if _types(network) & _HALVES else TOLERANCE


def computes_in_halves(network: onnx.ModelProto) -> bool:
    """Whether a model computes in float16 or bfloat16 anywhere."""
    return bool(_types(network) & _HALVES)


def judges(network: onnx.ModelProto) -> list[tuple[OnnxSession, float]]:
    """The sessions that judge another form of a network, with what its numbers may differ by from theirs.

    A file that does not compute in float32 is judged in float32 too: what float16 rounds would hide what is wrong, and
    onnxruntime has not all operators in float64; where it lacks one, this is the only judge.
    Raises UnsupportedError where onnxruntime refuses the network.
    """
    if not _types(network) & _OTHERS:
        return [(OnnxSession(network), TOLERANCE)]
    found = [(OnnxSession(in_float32(network)), TOLERANCE)]
    try:
        found.append((OnnxSession(network), tolerance(network)))
    except UnsupportedError:
        if not _types(network) & {onnx.TensorProto.DOUBLE}:
            raise
    return found


def in_float32(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in float32 what this one does in other floating-point types, its weights rounded to it."""
    made = onnx.ModelProto.FromString(network.SerializeToString())
    tensors = [*made.graph.initializer, *(a.t for a in _attributes(made) if a.type == onnx.AttributeProto.TENSOR)]
    for tensor in tensors:
        if tensor.data_type in _OTHERS:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for attribute in _attributes(made):
        if attribute.name == "to" and attribute.i in _OTHERS:
            attribute.i = onnx.TensorProto.FLOAT
    for value in (*made.graph.input, *made.graph.output):
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return made


def _types(network: onnx.ModelProto) -> set[int]:
    """The element types that a model names."""
    types = {value.type.tensor_type.elem_type for value in (*network.graph.input, *network.graph.output)}
    types |= {tensor.data_type for tensor in network.graph.initializer}
    types |= {attribute.i for attribute in _attributes(network) if attribute.name == "to"}
    return types | {a.t.data_type for a in _attributes(network) if a.type == onnx.AttributeProto.TENSOR}


def _attributes(network: onnx.ModelProto) -> list[onnx.AttributeProto]:
    return [attribute for node in network.graph.node for attribute in node.attribute]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest |a - b| / (1 + |b|), to be compared with `TOLERANCE`; infinite for another shape or a NaN."""
    ours = ours.detach().cpu().double()
    if ours.shape != theirs.shape:
        return float("inf")
    worst = ((ours - theirs.double()).abs() / (1 + theirs.double().abs())).max()
    return float("inf") if worst.isnan() else float(worst)


def _first_line(error: Exception) -> str:
    """The reason without onnxruntime's error codes and its own source lines."""
    line = str(error).strip().split("\n")[0] or type(error).__name__
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", line)[:300]
