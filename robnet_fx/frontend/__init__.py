"""The front end: a model of any kind to the canonical graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from robnet_fx.errors import UsageError
from robnet_fx.frontend.axes import evidence
from robnet_fx.frontend.module import evaluating, trace_module
from robnet_fx.frontend.unwrap import load_pt2, to_full_precision, unwrap
from robnet_fx.graphs import LAYOUT
from robnet_fx.layout import Layout, UnsettledLayout, arrange, assumed, channels_first, layouts, settle, understood, ways


def trace(
    model: nn.Module | ExportedProgram | str | Path,
    example: Tensor | None = None,
    layout: str | None = None,
    flat: str | None = None,
) -> fx.GraphModule:
    """The canonical `torch.fx.GraphModule` of a classifier: an nn.Module with an example batch, or an ONNX path.

    Also a saved `torch.export` program (.pt2). DataParallel, compiled and averaged models are unwrapped; one in half
    precision is brought to float32 in place.

    `example` holds images `[B, C, *spatial]`, or as `layout` says: "nchw", "nhwc" or, grey without a channel axis,
    "nhw"; where it does not say, the sizes and the network's own layers may. A network that does not take the images so
    is given them with the channels last, or flat, in the order that `flat` says ("planes" or "pixels"). For an ONNX
    file without an example, `layout.assumed` says what its images are like.

    One placeholder `x [B, *S]`, in the network's layout and with B symbolic, ATen operations in one spelling each,
    parameters and buffers the same objects as the user's, and on each node `meta["shape"]` (S), `meta["layer"]` and
    `meta["source"]`; on the placeholder `meta["layout"]`, a `layout.Layout`, or the `UnsettledLayout` that is raised
    once it matters. Raises `UsageError` (bad file or example) or `UnsupportedError` (a network that cannot be traced).
    """
    if isinstance(model, (str, Path)) and Path(model).suffix == ".pt2":
        model = load_pt2(Path(model))
    if isinstance(model, (str, Path)):
        from robnet_fx.frontend.onnx import load_onnx  # onnx and its runtime load only where a file is read

        model = load_onnx(Path(model))
    module = to_full_precision(unwrap(model))
    sizes = getattr(model, "input_shape", None)
    if example is None and sizes is None:
        raise UsageError("tracing an nn.Module needs an example batch of images")
    if example is not None and (not isinstance(example, Tensor) or example.dim() < 2):
        raise UsageError("tracing needs an example batch of images, a tensor of shape [B, C, ...]")
    if example is None:
        inputs = torch.rand(2, *sizes)
        traced = trace_module(module, inputs)
        return _understood(traced, assumed(sizes, layout, evidence(traced)), layout, flat)
    given = tuple(example.shape[1:])
    if sizes is not None and not layouts(given, sizes):
        raise UsageError(f"images {list(given)} do not fit a network that takes {list(sizes)}, in no layout")
    refusal: UsageError | None = None
    for inputs in _taken(module, example, layout):
        traced = trace_module(module, inputs)
        found = layouts(given, tuple(inputs.shape[1:]))
        try:
            return _understood(traced, found, layout, flat)
        except UsageError as error:  # the network reads what it takes another way: it may take it in another layout
            refusal = refusal or error
    raise refusal or AssertionError("a module is traced on the example as it is, or says why not")


def _understood(
    traced: fx.GraphModule, found: list[Layout], layout: str | None, flat: str | None
) -> fx.GraphModule:
    """The graph with what is known of its images in the meta of its placeholder."""
    image = traced.graph.find_nodes(op="placeholder")[0]
    try:
        image.meta[LAYOUT] = settle(found, layout, flat, evidence(traced))
    except UnsettledLayout as error:
        image.meta[LAYOUT] = error
    return traced


def _taken(model: nn.Module, example: Tensor, layout: str | None) -> Iterator[Tensor]:
    """The example in every layout in which the model makes `[B, classes]` of it: as it is first, then with its channels
    moved, then flat. As it is, too, where none will do, for the tracer to say what is wrong."""
    given, accepted = tuple(example.shape[1:]), False
    arranged = [example]
    for axes, image in understood(given):
        if layout in (None, axes):
            pictures = channels_first(example, axes)
            arranged += [arrange(pictures, way, shape) for way, shape in dict(reversed(ways(image))).items()]
    tried: set[tuple[int, ...]] = set()
    for position, inputs in enumerate(arranged):
        if position and tuple(inputs.shape) in tried:
            continue
        tried.add(tuple(inputs.shape))
        try:
            with torch.no_grad(), evaluating(model):
                logits = model(inputs.clone())
        except Exception:  # a model refuses in its own way
            continue
        if not position or (isinstance(logits, Tensor) and logits.shape[:-1] == example.shape[:1]):
            accepted = True
            yield inputs
    if not accepted:
        yield example
