"""Tracing a model on images whose layout is not known yet: it is fed in every layout that it takes them in."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx

from robnet_fx.errors import UsageError
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.outputs import OutputError
from robnet_fx.frontend.running import Guest
from robnet_fx.frontend.sliding_axes import evidence
from robnet_fx.graphs import LAYOUT
from robnet_fx.images.layout import (
    NO_EVIDENCE,
    Evidence,
    Layout,
    Shape,
    UnsettledLayout,
    arrange,
    channels_first,
    layouts,
    settle,
    understood,
    ways,
)


def trace_arranged(guest: Guest, example: Tensor, axes: str | Layout | None, flat: str | None) -> fx.GraphModule:
    """The canonical graph of a model on images `[B, *given]`, and in the meta of its input the layout they have.

    The model is given them as they are where it takes them so, else with their channels moved, or flat. Where its
    layers then read them another way than they are, it is asked in the other layouts too. Without a word from the user
    (`axes`, `flat`), a model that takes two likely layouts leaves open which is meant: `with_layout` then leaves an
    `UnsettledLayout` behind. Raises `UsageError` where nothing fits.
    """
    given = tuple(example.shape[1:])
    if isinstance(axes, Layout):
        traced = trace_module(guest, arrange(channels_first(example, axes.axes), axes.way, axes.taken))
        traced.graph.find_nodes(op="placeholder")[0].meta[LAYOUT] = axes
        return traced
    refused: list[tuple[fx.GraphModule, list[Layout], UsageError]] = []
    for inputs in _accepted(guest, example, axes):
        traced = trace_module(guest, inputs)
        seen = evidence(traced)
        found = layouts(given, tuple(inputs.shape[1:]))
        try:
            with_layout(traced, found, seen, axes, flat)
        except UsageError as conflict:  # the network reads what it takes another way: it may take another layout too
            refused.append((traced, found, conflict))
            continue
        if axes is None:
            _doubt(guest, traced, example)
        return traced
    if not refused:
        return trace_module(guest, example)  # which says what is wrong
    traced, found, error = refused[0]
    if axes is None:
        raise error
    with_layout(traced, found, NO_EVIDENCE, axes, flat)  # a network may slide over channels too, of a spectrum say
    return traced


def with_layout(
    traced: fx.GraphModule, found: list[Layout], seen: Evidence, axes: str | None, flat: str | None
) -> None:
    """Settle the layout of a canonical graph in place, or leave why it is open: not everybody needs it."""
    image = traced.graph.find_nodes(op="placeholder")[0]
    try:
        image.meta[LAYOUT] = settle(found, axes, flat, seen)
    except UnsettledLayout as error:
        image.meta[LAYOUT] = error


def _doubt(guest: Guest, traced: fx.GraphModule, example: Tensor) -> None:
    """Unsettle a layout where the model takes the same images, understood in another likely way, as well."""
    image = traced.graph.find_nodes(op="placeholder")[0]
    settled = image.meta[LAYOUT]
    if isinstance(settled, UnsettledLayout):
        return
    for axes, picture in understood(settled.given):
        pictures = channels_first(example, axes)
        for way, shape in ways(picture):
            other = Layout(axes, picture, way, shape)
            differs = other.likely and shape != settled.taken and other.image != settled.image
            if differs and _takes(guest, arrange(pictures, way, shape)):
                image.meta[LAYOUT] = UnsettledLayout([settled, other])
                return


def _accepted(guest: Guest, example: Tensor, axes: str | None) -> Iterator[Tensor]:
    """The example in every layout in which the model makes `[B, classes]` of it, as it is first."""
    if _takes(guest, example, as_given=True):
        yield example
    tried: set[Shape] = {tuple(example.shape)}
    for word, image in understood(tuple(example.shape[1:])):
        if axes not in (None, word):
            continue
        pictures = channels_first(example, word)
        for way, shape in ways(image):
            inputs = arrange(pictures, way, shape)
            if tuple(inputs.shape) not in tried and _takes(guest, inputs):
                yield inputs
            tried.add(tuple(inputs.shape))


def _takes(guest: Guest, inputs: Tensor, as_given: bool = False) -> bool:
    try:
        logits = guest(inputs)
    except OutputError:
        raise
    except Exception:  # a model refuses in its own way
        return False
    return as_given or logits.shape[:-1] == inputs.shape[:1]
