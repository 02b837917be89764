"""Models as people have them: wrapped for several devices, compiled, averaged, exported or in half precision."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robnet_fx.errors import UnsupportedError, UsageError

_HALF = (torch.float16, torch.bfloat16)


def unwrap(model: Any) -> nn.Module:
    """The module a user means: the one inside DataParallel, a compiled or an averaged model, or an exported program.

    Raises `UnsupportedError` for TorchScript, which has no Python to trace, and `UsageError` for what is no model.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        else:
            break
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
    """Bring a half-precision model to float32, in place: bounds of rounded-off weights need more digits than these."""
    halves = [value.dtype in _HALF for value in [*model.parameters(), *model.buffers()] if value.is_floating_point()]
    return model.float() if any(halves) else model
