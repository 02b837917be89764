"""The front end: a model of any kind to the canonical graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from robnet_fx.errors import UsageError
from robnet_fx.frontend.canonical import HALF
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.outputs import Name, OutputError
from robnet_fx.frontend.running import undisturbed
from robnet_fx.frontend.unwrap import load_pt2, to_full_precision, unwrap
from robnet_fx.graphs import IMAGE_SHAPE
from robnet_fx.layout import CHANNELS_FIRST, arrange, image_shape, layouts


def trace(
    model: nn.Module | ExportedProgram | str | Path, example: Tensor | None = None, output: Name = None
) -> fx.GraphModule:
    """The canonical `torch.fx.GraphModule` of a classifier: an nn.Module with an example batch, or an ONNX path.

    Also a saved `torch.export` program (.pt2). DataParallel, compiled and averaged models are unwrapped, and of one in
    half precision a float32 copy is taken. The model runs on copies of the example, in eval mode, and is left as it was
    found: parameters, buffers, attributes, modes and hooks.

    `example` holds images `[B, C, *spatial]`; a network that does not take them so is given them with the channels
    last, or flat. For an ONNX file without one, `image_shape` guesses what its images are like.

    `output` names the logits where a module returns, or a file has, more than one tensor: a key, a field, a position or
    a dotted path of these ("aux.0"); the only tensor in a container needs no name. `meta["output"]` on the placeholder
    is where they are, None where the module returns nothing else.

    One placeholder `x [B, *S]`, in the network's layout and with B symbolic, ATen operations in one spelling each,
    parameters and buffers the same objects as the user's, and on each node `meta["shape"]` (S), `meta["layer"]` and
    `meta["source"]`; on the placeholder `meta["image_shape"]`.
    Raises `UsageError` (bad file or example) or `UnsupportedError` (a network that cannot be traced).
    """
    if isinstance(model, (str, Path)) and Path(model).suffix == ".pt2":
        model = load_pt2(Path(model))
    if isinstance(model, (str, Path)):
        from robnet_fx.frontend.onnx import load_onnx  # onnx and its runtime load only where a file is read

        model, output = load_onnx(Path(model), output=None if output is None else str(output)), None
        example = torch.rand(2, *image_shape(model.input_shape)) if example is None else example
    if example is None:
        raise UsageError("tracing an nn.Module needs an example batch of images")
    given = unwrap(model)
    module = to_full_precision(given)
    if module is not given and isinstance(example, Tensor) and example.dtype in HALF:
        example = example.float()
    with undisturbed(module, output) as guest:
        traced = trace_module(guest, as_taken(guest, example))
    traced.graph.find_nodes(op="placeholder")[0].meta[IMAGE_SHAPE] = tuple(example.shape[1:])
    return traced


def as_taken(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Images `[B, C, *spatial]` as they are where the model takes them so, else channels last or flat where it makes
    `[B, classes]` of those; as they are too where none will do, for the tracer to say what is wrong."""
    if not isinstance(images, Tensor) or images.dim() < 3:
        return images
    for way, taken in layouts(tuple(images.shape[1:])):
        arranged = arrange(images, taken)
        try:
            logits = model(arranged)
        except OutputError:
            raise
        except Exception:  # a model refuses in its own way
            continue
        if way == CHANNELS_FIRST or logits.shape[:-1] == images.shape[:1]:
            return arranged
    return images
