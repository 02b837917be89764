"""The front end: a model of any kind to the canonical graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from robnet_fx.errors import UsageError
from robnet_fx.frontend.arranging import trace_arranged, with_layout
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.onnx.metadata import FLAT
from robnet_fx.frontend.outputs import Name
from robnet_fx.frontend.running import undisturbed
from robnet_fx.frontend.sliding_axes import evidence
from robnet_fx.frontend.unwrap import in_full_precision, load_pt2, unwrap
from robnet_fx.images.layout import Layout, Shape, assumed, axes_of, layouts


def trace(
    model: nn.Module | ExportedProgram | str | Path,
    example: Tensor | None = None,
    output: Name = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
) -> fx.GraphModule:
    """The canonical `torch.fx.GraphModule` of a classifier: an nn.Module with an example batch, or an ONNX path.

    Also a saved `torch.export` program (.pt2). DataParallel, compiled and averaged models are unwrapped, and of one in
    half precision a float32 copy is taken. The model runs on copies of the example, in eval mode, and is left as it was
    found: parameters, buffers, attributes, modes and hooks.

    `example` holds images `[B, C, *spatial]`, or as `layout` says: "nchw", "nhwc" or, grey without a channel axis,
    "nhw"; where it does not say, the sizes and the network's own layers may. A network that does not take the images so
    is given them with the channels last, or flat, in the order that `flat` says ("planes" or "pixels"). For an ONNX
    file without an example, `layout.assumed` says what its images are like.

    `output` names the logits where a module returns, or a file has, more than one tensor: a key, a field, a position or
    a dotted path of these ("aux.0"); the only tensor in a container needs no name. `meta["output"]` on the placeholder
    is where they are, None where the module returns nothing else.

    One placeholder `x [B, *S]`, in the network's layout and with B symbolic, ATen operations in one spelling each,
    parameters and buffers the same objects as the user's, and on each node `meta["shape"]` (S), `meta["layer"]` and
    `meta["source"]`; on the placeholder `meta["layout"]`, a `layout.Layout`, or the `UnsettledLayout` that is raised
    once it matters. Raises `UsageError` (bad file or example) or `UnsupportedError` (a network that cannot be traced).
    """
    if example is not None and (not isinstance(example, Tensor) or example.dim() < 2):
        raise UsageError("tracing needs an example batch of images, a tensor of shape [B, C, ...]")
    given, word = None if example is None else tuple(example.shape[1:]), axes_of(layout)
    if isinstance(model, (str, Path)) and Path(model).suffix == ".pt2":
        model = load_pt2(Path(model))
    if isinstance(model, (str, Path)):
        from robnet_fx.frontend.onnx.load import load_for, load_onnx  # they load only where a file is read

        asked = None if output is None else str(output)
        model = load_onnx(Path(model), output=asked) if given is None else load_for(Path(model), given, asked, word)
        output = None
    sizes: Shape | None = getattr(model, "input_shape", None)
    flat = flat or getattr(model, "metadata", {}).get(FLAT)
    if given is not None and sizes is not None and not layouts(given, sizes):
        raise UsageError(f"images {list(given)} do not fit a network that takes {list(sizes)}, in no layout")
    with in_full_precision(unwrap(model)) as module:
        types = {value.dtype for value in module.parameters() if value.is_floating_point()}
        dtype = types.pop() if len(types) == 1 else None  # a file's weights may be in float64
        with undisturbed(module, output) as guest:
            if example is not None:
                example = example.to(dtype) if dtype and example.is_floating_point() else example
                return trace_arranged(guest, example, layout, flat)
            if sizes is None:
                raise UsageError("tracing an nn.Module needs an example batch of images")
            traced = trace_module(guest, torch.rand(2, *sizes, dtype=dtype))
            seen = evidence(traced)
            with_layout(traced, assumed(sizes, word, seen), seen, word, flat)
            return traced
