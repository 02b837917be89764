"""The front end: a model of any kind to the canonical graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from robnet_fx.errors import UsageError
from robnet_fx.frontend.module import evaluating, trace_module
from robnet_fx.frontend.unwrap import load_pt2, to_full_precision, unwrap
from robnet_fx.graphs import IMAGE_SHAPE
from robnet_fx.layout import CHANNELS_FIRST, arrange, image_shape, layouts


def trace(model: nn.Module | ExportedProgram | str | Path, example: Tensor | None = None) -> fx.GraphModule:
    """The canonical `torch.fx.GraphModule` of a classifier: an nn.Module with an example batch, or an ONNX path.

    Also a saved `torch.export` program (.pt2). DataParallel, compiled and averaged models are unwrapped; one in half
    precision is brought to float32 in place.

    `example` holds images `[B, C, *spatial]`; a network that does not take them so is given them with the channels
    last, or flat. For an ONNX file without one, `image_shape` guesses what its images are like.

    One placeholder `x [B, *S]`, in the network's layout and with B symbolic, ATen operations in one spelling each,
    parameters and buffers the same objects as the user's, and on each node `meta["shape"]` (S), `meta["layer"]` and
    `meta["source"]`; on the placeholder `meta["image_shape"]`.
    Raises `UsageError` (bad file or example) or `UnsupportedError` (a network that cannot be traced).
    """
    if isinstance(model, (str, Path)) and Path(model).suffix == ".pt2":
        model = load_pt2(Path(model))
    if isinstance(model, (str, Path)):
        from robnet_fx.frontend.onnx import load_for, load_onnx  # they load only where a file is read

        model = load_onnx(Path(model)) if example is None else load_for(Path(model), tuple(example.shape[1:]))
        example = torch.rand(2, *image_shape(model.input_shape)) if example is None else example
    if example is None:
        raise UsageError("tracing an nn.Module needs an example batch of images")
    module = to_full_precision(unwrap(model))
    types = {value.dtype for value in module.parameters() if value.is_floating_point()}
    if len(types) == 1 and isinstance(example, Tensor) and example.is_floating_point():
        example = example.to(types.pop())  # a file's weights may be in float64
    traced = trace_module(module, as_taken(module, example))
    traced.graph.find_nodes(op="placeholder")[0].meta[IMAGE_SHAPE] = tuple(example.shape[1:])
    return traced


def as_taken(model: nn.Module, images: Tensor) -> Tensor:
    """Images `[B, C, *spatial]` as they are where the model takes them so, else channels last or flat where it makes
    `[B, classes]` of those; as they are too where none will do, for the tracer to say what is wrong."""
    if not isinstance(images, Tensor) or images.dim() < 3:
        return images
    for way, taken in layouts(tuple(images.shape[1:])):
        arranged = arrange(images, taken)
        try:
            with torch.no_grad(), evaluating(model):
                logits = model(arranged)
        except Exception:  # a model refuses in its own way
            continue
        if way == CHANNELS_FIRST or (isinstance(logits, Tensor) and logits.shape[:-1] == images.shape[:1]):
            return arranged
    return images
