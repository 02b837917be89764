"""The front end: any nn.Module to one canonical `torch.fx.GraphModule` over ATen operations.

`torch.export` does the tracing; what is left to do here is to give every operation one spelling, to put the user's
own parameters behind the graph, and to remember for each node the layer and source line it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.attention import attention_in_steps
from robnet_fx.frontend.batch import fixed_at, mixed_at
from robnet_fx.frontend.canonical import canonicalise
from robnet_fx.frontend.decompositions import decompositions
from robnet_fx.frontend.merged import take_apart
from robnet_fx.graphs import MODEL, derive, describe

_PARITY = 1e-4  # of (1 + |b|), as for every comparison of two forms of one network


def trace_module(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The canonical graph of `model`: one placeholder `x [B, *S]`, one output `[B, classes]`, symbolic batch.

    `model` becomes the sub-module `model` of the result, so parameters and buffers are the same objects for ever.
    Tracing happens in eval mode and the mode is put back. `example [B, *S]` fixes S and dtype.
    Raises `UnsupportedError` when torch.export cannot trace the model, when its output is not one `[B, classes]`
    tensor, or when the batch axis does not stay first and free; `UsageError` when the example does not fit.
    """
    if not isinstance(example, Tensor) or example.dim() < 2:
        raise UsageError("tracing needs an example batch of images, a tensor of shape [B, C, ...]")
    example = example.detach()
    if len(example) < 2:
        example = torch.cat([example, example / 2])  # two unlike samples: mixing them must show
    with evaluating(model), attention_in_steps():
        exported = _export(model, example)
        take_apart(exported)
        graph, constants = canonicalise(exported)
        root = nn.Module()
        root.add_module(MODEL, model)
        if constants:
            holder = nn.Module()
            for name, value in constants.items():
                holder.register_buffer(name, value)
            root.add_module("constants", holder)
        traced = derive(root, graph, "Canonical").eval()
        _check(traced, model, example)
    return traced


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every sub-module's own mode put back after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    # torch.export fails in many ways of its own, and a wrong shape fails as itself: ask the model first.
    try:
        with torch.no_grad():
            model(example)
    except Exception as error:
        raise UsageError(
            f"the model does not accept images of shape {list(example.shape[1:])}: {_first_line(error)}"
        ) from error

    def export() -> torch.export.ExportedProgram:
        exported = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
        return exported.run_decompositions(decompositions())

    try:
        return export()
    except Exception as error:
        if "specialized" in str(error):
            source = fixed_at(export)
            raise UnsupportedError(
                f"{type(model).__name__} fixes the batch size to that of the example, and bounds need it free\n"
                + f"  source  {source}\n" * bool(source)
                + "  remedy  write x.shape[0] instead of len(x), without int(); no loop over samples, no tensor of one"
                " batch's size"
            ) from error
        raise UnsupportedError(
            f"torch.export cannot trace {type(model).__name__} with a free batch size: {_first_line(error)}\n"
            "  remedy  avoid data-dependent control flow and sizes fixed to one batch, then try again"
        ) from error


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0])[:200] or type(error).__name__


@torch.no_grad()
def _check(traced: fx.GraphModule, model: nn.Module, example: Tensor) -> None:
    """The canonical graph must equal the model on a batch, and each sample must not depend on its neighbours."""
    expected = model(example)
    if not bool(expected.isfinite().all()):
        bad = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
        raise UsageError(f"the model's output is not finite{': NaN or inf in ' + ', '.join(bad) if bad else ''}")
    try:
        batch = traced(example)
        single = torch.cat([traced(example[i : i + 1]) for i in range(len(example))])
    except Exception as error:
        raise UnsupportedError(
            f"the canonical graph does not run: {_first_line(error)}\n"
            "  remedy  use the batch size in reshapes only, then try again"
        ) from error
    if difference := _difference(batch, expected):
        raise UnsupportedError(
            f"the canonical graph does not reproduce the model: {difference}\n"
            "  remedy  use the batch size in reshapes only, and nothing random, then try again"
        )
    if difference := _difference(single, expected):
        node = mixed_at(traced, example, _PARITY)
        raise UnsupportedError(
            f"a batch of one does not reproduce the model, for it mixes samples: {difference}\n"
            + (describe(node, f"{node.target} of a batch is not that of its samples") + "\n" if node else "")
            + "  remedy  let the logits of an image depend on this image alone"
        )


def _difference(value: Tensor, expected: Tensor) -> str:
    """How one form of the logits differs from the other, empty where it does not."""
    if value.shape != expected.shape:
        return f"its output is {list(value.shape)} for {list(expected.shape)}"
    if torch.allclose(value, expected, rtol=_PARITY, atol=_PARITY):
        return ""
    return f"outputs differ by {float((value - expected).abs().max()):.3g}"
