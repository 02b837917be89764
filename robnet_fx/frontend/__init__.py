"""The front end: a model of any kind to the canonical graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from robnet_fx.errors import UsageError
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.unwrap import load_pt2, to_full_precision, unwrap


def trace(model: nn.Module | ExportedProgram | str | Path, example: Tensor | None = None) -> fx.GraphModule:
    """The canonical `torch.fx.GraphModule` of a classifier: an nn.Module with an example batch, or an ONNX path.

    Also a saved `torch.export` program (.pt2). DataParallel, compiled and averaged models are unwrapped; one in half
    precision is brought to float32 in place.

    One placeholder `x [B, *S]` with B symbolic, ATen operations in one spelling each, parameters and buffers the same
    objects as the user's, and on each node `meta["shape"]` (S), `meta["layer"]` and `meta["source"]`.
    Raises `UsageError` (bad file or example) or `UnsupportedError` (a network that cannot be traced).
    """
    if isinstance(model, (str, Path)) and Path(model).suffix == ".pt2":
        model = load_pt2(Path(model))
    if isinstance(model, (str, Path)):
        from robnet_fx.frontend.onnx import load_onnx  # onnx and its runtime load only where a file is read

        loaded = load_onnx(Path(model))
        return trace_module(loaded, torch.rand(2, *loaded.input_shape) if example is None else example)
    if example is None:
        raise UsageError("tracing an nn.Module needs an example batch of images")
    return trace_module(to_full_precision(unwrap(model)), example)
