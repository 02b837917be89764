"""The front end: any nn.Module to one canonical `torch.fx.GraphModule` over ATen operations.

`torch.export` does the tracing; what is left to do here is to give every operation one spelling, to put the user's
own parameters behind the graph, and to remember for each node the layer and source line it came from.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.attention import attention_in_steps
from robnet_fx.frontend.batch_axis.walk import take_apart
from robnet_fx.frontend.canonical import canonical
from robnet_fx.frontend.decompositions import decompositions
from robnet_fx.frontend.faults import refused, untraceable
from robnet_fx.frontend.outputs import picking
from robnet_fx.frontend.parity import check_repeats, check_trace
from robnet_fx.frontend.places import source_line
from robnet_fx.frontend.running import Guest, uncollected
from robnet_fx.graphs import EXAMPLE, MODEL, OUTPUT, PASSES, derive
from robnet_fx.machine.torch_internals import decomposed, fixes_a_size, stack_that_fixes_a_size


def trace_module(guest: Guest, example: Tensor) -> fx.GraphModule:
    """The canonical graph of an undisturbed model: one placeholder `x [B, *S]`, one output `[B, classes]`, B symbolic.

    The model becomes the sub-module `model` of the result, so parameters and buffers are the same objects for ever.
    `example [B, *S]` fixes S and dtype. Raises `UnsupportedError` when torch.export cannot trace the model, when its
    logits are not `[B, classes]`, or when the batch axis does not stay first and free; `UsageError` when the example
    does not fit or the logits need naming.
    """
    if not isinstance(example, Tensor) or example.dim() < 2:
        raise UsageError("tracing needs an example batch of images, a tensor of shape [B, C, ...]")
    model, example = guest.model, example.detach()
    if len(example) < 2:
        example = torch.cat([example, example / 2])  # two unlike samples: mixing them must show
    guest.put_back(tensors_only=True)  # whatever was asked of the model before
    with attention_in_steps():
        expected = _ask(guest, example)
        check_repeats(model, expected, _ask(guest, example))
        guest.put_back(tensors_only=True)
        exported = _export(guest, example)
        guest.put_back(tensors_only=True)
        take_apart(exported)
        made = canonical(exported)
        root = nn.Module()
        root.add_module(MODEL, model)
        if made.constants:
            holder = nn.Module()
            for name, value in made.constants.items():
                holder.register_buffer(name, value)
            root.add_module("constants", holder)
        traced = derive(root, made.graph, "Canonical").eval()
        traced.graph.find_nodes(op="placeholder")[0].meta |= {EXAMPLE: example[:1].clone(), OUTPUT: guest.path or None}
        traced.meta[PASSES] = ("trace",)
        check_trace(traced, exported, made.traced, example, expected)
    return traced


def _ask(guest: Guest, example: Tensor) -> Tensor:
    try:
        return guest(example)
    except Exception as error:
        raise refused(error, guest.model, example) from error


def _export(guest: Guest, example: Tensor) -> torch.export.ExportedProgram:
    model = guest.model

    def export() -> torch.export.ExportedProgram:
        images = example.clone()  # which the model may write to
        with uncollected():
            with picking(model, guest.output):
                exported = torch.export.export(
                    model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
                )
            return decomposed(exported, decompositions())

    try:
        return export()
    except RobnetError:
        raise
    except Exception as error:
        if not fixes_a_size(error):
            raise untraceable(error, model) from error
        source = source_line(stack_that_fixes_a_size(export))
        raise UnsupportedError(
            f"{type(model).__name__} fixes the batch size to that of the example, and bounds need it free\n"
            + f"  source  {source}\n" * bool(source)
            + "  remedy  write x.shape[0] instead of len(x), without int(); no loop over samples, no tensor of one"
            " batch's size"
        ) from error
