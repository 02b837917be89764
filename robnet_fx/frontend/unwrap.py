"""Models as people have them: wrapped for several devices, compiled, averaged, exported or in half precision."""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.canonical_graph import HALF
from robnet_fx.machine.torch_internals import is_persistent, uncompiled


def unwrap(model: Any) -> nn.Module:
    """The module a user means: the one inside DataParallel, a compiled or an averaged model, or an exported program.

    Raises `UnsupportedError` for TorchScript, which has no Python to trace, and `UsageError` for what is no model.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while True:
        model = uncompiled(model)
        if not isinstance(model, wrappers):
            break
        model = model.module
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
        for refused in ("train", "eval"):  # an exported graph is the same in both modes, so calling them does no harm
            vars(model).pop(refused, None)
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedError("a TorchScript module cannot be traced\n  remedy  give the nn.Module it was made from")
    if not isinstance(model, nn.Module):
        raise UsageError(f"a model is an nn.Module, an exported program or an ONNX file, not {type(model).__name__}")
    return model


def load_pt2(path: Path) -> nn.Module:
    """The module of a saved `torch.export` program."""
    try:
        return unwrap(torch.export.load(path))
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a saved torch.export program: {str(error).splitlines()[0][:200]}") from error


def to_full_precision(model: nn.Module) -> nn.Module:
    """The model itself, or a float32 copy of one in half precision: bounds of rounded-off weights need more digits."""
    halves = [value.dtype in HALF for value in [*model.parameters(), *model.buffers()] if value.is_floating_point()]
    return copy_of(model).float() if any(halves) else model


@contextmanager
def in_full_precision(model: nn.Module) -> Iterator[nn.Module]:
    """What `to_full_precision` makes of a model; where types then clash inside, the error says why."""
    made = to_full_precision(model)
    try:
        yield made
    except UsageError as error:
        if made is model or not re.search(r"half|bfloat16|dtype", str(error), re.I):
            raise
        raise type(error)(
            f"{error}\n  note    this is the float32 copy of a model in half precision, which is what has bounds\n"
            "  remedy  cast to the type of the weights in forward, x.to(self.weight.dtype), not to a fixed one"
        ) from error


def copy_of(model: nn.Module) -> nn.Module:
    """A copy that runs by itself. What a forward or a hook has left in attributes loses its gradient on the way, for
    Python copies no tensor that has one. Raises `UsageError` where something else cannot be copied."""
    held = [value for module in model.modules() for value in vars(module).values()]
    left = [*held, *(entry for value in held if isinstance(value, (list, tuple)) for entry in value)]
    left += [entry for value in held if isinstance(value, dict) for entry in value.values()]
    made = {id(x): x.detach().clone() for x in left if isinstance(x, Tensor) and not x.is_leaf}
    try:
        return copy.deepcopy(model, made)
    except Exception as error:  # whatever an object of the user's has against it
        raise UsageError(f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}") from error


def bare(model: nn.Module) -> nn.Module:
    """The model's parameters and buffers under their names and nothing else: all that a graph over it reads."""
    made = nn.Module()
    for name, parameter in model.named_parameters(recurse=False, remove_duplicate=False):
        made.register_parameter(name, parameter)
    for name, buffer in model.named_buffers(recurse=False, remove_duplicate=False):
        made.register_buffer(name, buffer, persistent=is_persistent(model, name))
    for name, module in model.named_children():
        made.add_module(name, bare(module))
    return made
