"""Which tensor of what a model returns is its logits: the only one, or the one that is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from robnet_fx.algebra.logits import as_logits
from robnet_fx.errors import UsageError

Name = str | int | None
"""A key, a field or a position in what a model returns, or a dotted path of these ("aux.0")."""


class OutputError(UsageError):
    """What a model returns leaves open which tensor is its logits, or has none."""


def logits_in(returned: Any, output: Name = None) -> tuple[Tensor, str]:
    """(logits, their path in what a model returned): the tensor named `output`, or the only one that can be logits.

    These are floating point, `[B, classes]`, `[B, classes, 1, 1]` or `[B]`. Containers are dictionaries, lists, tuples,
    named tuples, dataclasses and plain objects with attributes, in each other. A tensor by itself has an empty path and
    needs no name (a module may return more than that in train mode). `[B, classes, 1, 1]` becomes `[B, classes]`.
    Raises `OutputError`, which lists what there is.
    """
    if isinstance(returned, Tensor):
        return as_logits(returned), "" if output is None else str(output)
    there = list(tensors_of(returned))
    if output is None:
        fitting = [(path, tensor) for path, tensor in there if _may_be_logits(tensor)]
    else:
        fitting = list(tensors_of(_entry(returned, str(output)), str(output)))
    if len({id(tensor) for _, tensor in fitting}) != 1:
        raise OutputError(_choice(returned, output, there, fitting))
    path, logits = fitting[0]
    return as_logits(logits), path


def _may_be_logits(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and 1 <= as_logits(tensor).dim() <= 2


class Pick:
    """Takes the logits out of what a model returns, wherever that is called; `path` is where they were."""

    def __init__(self, output: Name = None) -> None:
        self.output, self.path = output, ""

    def __call__(self, returned: Any) -> Tensor:
        logits, self.path = logits_in(returned, self.output)
        return logits


@contextmanager
def picking(model: nn.Module, output: Name = None) -> Iterator[Pick]:
    """Inside, a call of the model returns its logits alone; names of layers and parameters stay what they are."""
    pick = Pick(output)
    handle = model.register_forward_hook(lambda module, inputs, returned: pick(returned))
    try:
        yield pick
    finally:
        handle.remove()


def _parts(value: Any) -> list[tuple[str, Any]]:
    """(name, entry) of a container, in order; nothing for anything else."""
    if isinstance(value, Mapping):
        return [(str(key), entry) for key, entry in value.items()]
    if isinstance(value, (list, tuple)):
        return list(zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True))
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    plain = hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)) and not callable(value)
    return list(vars(value).items()) if plain and not isinstance(value, Tensor) else []


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of all that a value holds."""
    if isinstance(value, Tensor):
        yield path, value
    for name, entry in _parts(value):
        yield from tensors_of(entry, f"{path}.{name}" if path else name)


def _entry(container: Any, path: str) -> Any:
    """The entry of a path: each step a name, or a position where no entry has that name; None where there is none."""
    parts = _parts(container)
    for name, entry in parts:
        if name == path:
            return entry
        if path.startswith(f"{name}."):
            return _entry(entry, path[len(name) + 1 :])
    step, _, rest = path.partition(".")
    if not step.lstrip("-").isdecimal() or not -len(parts) <= int(step) < len(parts):
        return None
    entry = parts[int(step)][1]
    return _entry(entry, rest) if rest else entry


def _choice(
    returned: Any, output: Name, there: Sequence[tuple[str, Tensor]], fitting: Sequence[tuple[str, Tensor]]
) -> str:
    """What an error says: how many tensors may be meant, and every one with its shape."""
    if not there:
        return f"a classifier returns a tensor of logits, and this model returns {type(returned).__name__} without one"
    if output is None:
        number = f"{len(fitting)} that may be logits" if fitting else "none that can be logits [B, classes]"
        head = f"a classifier returns one tensor of logits, and this model returns {number}"
    else:
        head = f"output={output!r} names {'several tensors' if fitting else 'no tensor'} of what the model returns"
    listed = [f"  output  {path} {_shape(tensor)}" for path, tensor in there]
    example = (fitting or there)[0][0]
    return "\n".join([head, *listed, f"  remedy  say which: output={example!r}, or another one of these"])


def _shape(tensor: Tensor) -> str:
    """Without the batch's size, which may be free: `[B, 10]`."""
    return f"[{', '.join(['B', *map(str, tensor.shape[1:])])}]" if tensor.dim() else "[]"
