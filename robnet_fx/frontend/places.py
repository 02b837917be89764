"""Where in the user's model a traced operation comes from: the layer, and the line of code."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import fx

from robnet_fx.machine.torch_internals import layers_around

_NOT_THE_USERS = re.compile(
    f"^<|/onnx2torch/|^{re.escape(str(Path(os.__file__).parent))}/(?!...?.?-packages)|"
    + "|".join("^" + re.escape(str(Path(home).parent)) for home in (torch.__file__, __file__))
)


def layer_of(node: fx.Node) -> tuple[str, str]:
    """(path, class) of the innermost layer of the user's model that made the node."""
    stack = layers_around(node)
    if not stack:
        return "", ""
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return path, re.sub(r"^torch\.nn\.modules\.\w+\.", "torch.nn.", kind)


def place_of(node: fx.Node) -> str:
    """The lines of an error message that say where a traced node comes from."""
    (layer, kind), source = layer_of(node), source_line(node.meta.get("stack_trace"))
    return f"\n  layer   {layer or '(top)'} ({kind})" * bool(kind) + f"\n  source  {source}" * bool(source)


def source_line(stack_trace: str | None) -> str:
    """`file.py:47    code` of the innermost frame in the user's own code, or nothing for a network read from a file."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)', stack_trace or "")
    for path, line, code in reversed(frames):
        if not _NOT_THE_USERS.search(path):
            return f"{os.path.basename(path)}:{line}    {code.strip()}"
    return ""
