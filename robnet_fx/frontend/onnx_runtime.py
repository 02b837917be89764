"""Running an ONNX classifier in onnxruntime: the second opinion on every network read or written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.outputs import as_logits as as_logits

TOLERANCE = 1e-4  # of (1 + |b|), for every comparison of two forms of one network


class OnnxSession:
    """An ONNX classifier as a function: images [B, *S] -> logits [B, classes], B free whatever the file says.

    `network` is a model, its bytes or its path. A file with a fixed batch size is fed in pieces of that size.
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
        size = self.session.get_inputs()[0].shape[0]
        self.fixed_batch = size if isinstance(size, int) and size > 0 else None

    def __call__(self, images: Tensor) -> Tensor:
        array, count = images.detach().cpu().numpy().astype(np.float32, copy=False), len(images)
        step = self.fixed_batch or max(1, count)
        if missing := -count % step:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        name = self.session.get_inputs()[0].name
        try:
            pieces = [self.session.run(None, {name: array[i : i + step]})[0] for i in range(0, len(array), step)]
        except Exception as error:
            raise UnsupportedError(f"onnxruntime fails on {step} images: {_first_line(error)}") from error
        return as_logits(torch.from_numpy(np.concatenate(pieces)[:count]))


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
