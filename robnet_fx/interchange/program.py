"""A bounds graph as a Python program beside its tensors: what was generated, to read and to run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.rows import Rows, Tightened, Unstable
from robnet_fx.errors import UsageError
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.torch_internals import Operator

PROGRAM, WEIGHTS = "bounds.py", "weights.pt"

_PROGRAM = '''\
"""Bounds of {model} over {perturbation}, by {method}.

    python {program} WEIGHTS.pt IMAGE.npy [LABEL]

prints for each image the least and the most that every logit can be, or with LABEL that every other logit less that of
the label can be: no perturbation of the box changes the answer LABEL where all of these stay below 0.

WEIGHTS.pt is a dictionary, written by `torch.save`, of the tensors that `forward` reads as attributes of `self`, by
name: the network's own (`model.*`), the box and what spans it (`field.*`), and constants. `{weights}` beside this
file is one, and `robnet_fx.interchange.program.write_program(net, folder)` writes both for any `net`.
IMAGE.npy has numbers in [0, 1]: one image {shape}, or several with the batch as first axis.
"""

import sys
from functools import partial

import torch
{imports}
from robnet_fx.bounds.rows import Tightened, Unstable
from robnet_fx.errors import RobnetError
from robnet_fx.interchange.program import images_in, rows_of, table, tensors_in


{functions}


def main(weights, image, label=None):
    self = tensors_in(weights)
{rows}    images = images_in(image, {shape}, self.field.center)
    spec, names = rows_of(label, {classes})
    with torch.no_grad():
        lower, upper = forward(self, images, spec.to(images).expand(len(images), -1, -1))
    print(table(names, lower, upper))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (RobnetError, OSError) as error:
        sys.exit(f"error: {{error}}")
'''


def write_program(net: BoundedModel, folder: Path) -> None:
    """Write `net.bounds` as the program `bounds.py`, and the tensors it reads as `weights.pt`, into a folder.

    Any method will do; the box is the one that the net has now. Raises `RobnetError` where they cannot be written.
    """
    with write_atomically(folder / PROGRAM) as file:
        file.write(program(net).encode())
    with write_atomically(folder / WEIGHTS) as file:
        torch.save(_tensors(net), file)


def program(net: BoundedModel) -> str:
    """The code of `bounds.py`: the generated functions as they print, what they call, and what runs them."""
    bounds = net.get_submodule("bounds")
    assert isinstance(bounds, fx.GraphModule)
    rows = _rows(bounds)
    codes = {"forward": bounds.graph.python_code("self")}
    codes |= {name: module.graph.graph.python_code("self") for name, module in rows.items()}
    functions = [
        re.sub(r"\n\n+", "\n", code.src).strip().replace("def forward(", f"def {name}(", 1)
        for name, code in codes.items()
    ]
    read = {name: value for code in codes.values() for name, value in code.globals.items()}
    made = "".join(f"    self.{name} = {_made(name, module, read)}\n" for name, module in rows.items())
    return _PROGRAM.format(
        model=type(net.model).__name__,
        perturbation=net.perturbation if net.eps == net.perturbation.eps else f"{net.perturbation} at eps {net.eps!r}",
        method=net.method,
        program=PROGRAM,
        weights=WEIGHTS,
        shape=net.input_shape,
        classes=net.classes,
        imports=_imports(read, "\n".join([*functions, made])),
        functions="\n\n\n".join(functions),
        rows=made,
    )


def _rows(bounds: fx.GraphModule) -> dict[str, Rows]:
    """The sub-modules that bound values row by row."""
    return {name: module for name, module in bounds.named_children() if isinstance(module, Rows)}


def _made(name: str, module: Rows, read: dict[str, Any]) -> str:
    """The code that makes such a sub-module anew."""
    more = ""
    if isinstance(module, Tightened):
        more = f", {_named(module.unstable, read)}"
        if isinstance(module.unstable, Unstable):
            target, relaxer, args, kwargs = vars(module.unstable).values()
            more = f", Unstable({_named(target, read)}, {relaxer!r}, {tuple(args)!r}, {dict(kwargs)!r})"
    return f"{type(module).__name__}(partial({name}, self), {module.widest}{more})"


def _named(function: Any, read: dict[str, Any]) -> str:
    """A function by the name under which it is, or becomes, one of those to import."""
    if isinstance(function, Operator):
        return f"torch.ops.{function}"
    if isinstance(function, Unstable):
        return "Unstable"
    name = f"{function.__module__}.{function.__name__}".replace(".", "_")
    read[name] = function
    return name


def _imports(names: Mapping[str, Any], code: str) -> str:
    """The import of each name that the code has."""
    lines = []
    for name, value in names.items():
        if name == "torch" or not re.search(rf"\b{name}\b", code):
            continue
        if isinstance(value, ModuleType):
            lines.append(f"import {value.__name__} as {name}")
        elif isinstance(value, float):
            lines.append(f"from math import {name}")
        else:
            lines.append(f"from {value.__module__} import {value.__name__} as {name}")
    return "\n".join(sorted(lines))


def _tensors(net: BoundedModel) -> dict[str, Tensor]:
    """What the bounds graph reads as attributes, by name; buffers that no state dict has are among them."""
    bounds = net.get_submodule("bounds")
    assert isinstance(bounds, fx.GraphModule)
    graphs = [bounds.graph, *(module.graph.graph for module in _rows(bounds).values())]
    names = sorted({str(node.target) for graph in graphs for node in graph.find_nodes(op="get_attr")})
    return {name: attrgetter(name)(bounds).detach().cpu() for name in names}


def tensors_in(path: Path | str) -> SimpleNamespace:
    """A file of tensors by dotted names, as objects in each other: `self.model.conv.weight`."""
    root = SimpleNamespace()
    for name, value in torch.load(path, weights_only=True, map_location="cpu").items():
        *parents, last = name.split(".")
        place = root
        for parent in parents:
            place = vars(place).setdefault(parent, SimpleNamespace())
        setattr(place, last, value)
    return root


def images_in(path: Path | str, shape: Sequence[int], like: Tensor) -> Tensor:
    """`[B, *shape]` in the dtype of `like`: the image or images of a .npy file. Raises `UsageError`."""
    try:
        images = torch.from_numpy(np.load(path)).to(like)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} holds no images: {error}") from error
    images = images.unsqueeze(0) if tuple(images.shape) == tuple(shape) else images
    if tuple(images.shape[1:]) != tuple(shape):
        raise UsageError(f"{path} holds {list(images.shape)}, and an image is {list(shape)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise UsageError(f"{path} holds numbers outside [0, 1]")
    return images


def rows_of(label: str | None, classes: int) -> tuple[Tensor, list[str]]:
    """The rows `[1, K, classes]` of a spec and what each of them bounds: every logit, or with a label every other logit
    less that of the label. Raises `UsageError`."""
    logits = torch.eye(classes, dtype=torch.float64).unsqueeze(0)
    if label is None:
        return logits, [f"logit {i}" for i in range(classes)]
    if not label.isdecimal() or int(label) >= classes:
        raise UsageError(f"LABEL must be a whole number from 0 to {classes - 1}, not {label}")
    others = [i for i in range(classes) if i != int(label)]
    return logits[:, others] - logits[:, [int(label)]], [f"logit {i} - logit {label}" for i in others]


def table(names: Sequence[str], lower: Tensor, upper: Tensor) -> str:
    """A line for each image and row: the image's number, what is bounded, and between which numbers."""
    digits = 9 if lower.dtype == torch.float32 else 17
    wide = max(map(len, names)), digits + 8
    lines = [f"image  {'':{wide[0]}} {'lower':>{wide[1]}} {'upper':>{wide[1]}}"]
    for image, (least, most) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        for name, low, high in zip(names, least, most, strict=True):
            lines.append(f"{image:<6} {name:{wide[0]}} {low:>{wide[1]}.{digits}g} {high:>{wide[1]}.{digits}g}")
    return "\n".join(lines)
