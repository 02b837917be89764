"""After training: the network as an ONNX file, and that file as it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.frontend.onnx.load import load_for
from robnet_fx.frontend.onnx.metadata import FLAT, normalisation_metadata
from robnet_fx.interchange.network import Way, write_onnx
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.opening.opened import Opened
from robnet_fx.problem import Problem


def target_of(model: nn.Module | Path | str, out: Path | str | None) -> Path:
    """Where the result goes: never onto the model itself, and not where it could not be written after hours of work.

    By default `<model>.robust.onnx` beside a file, or in the working directory by the name of a module's class.
    Raises `UsageError`.
    """
    if out is not None:
        target = Path(out)
    elif isinstance(model, nn.Module):
        target = Path(f"{type(model).__name__.lower()}.robust.onnx")
    else:
        target = Path(model).with_suffix(".robust.onnx")
    if target.is_dir():
        raise UsageError(f"cannot write the result to {target}: it is a directory")
    if not target.parent.is_dir():
        raise UsageError(f"cannot write the result to {target}: there is no directory {target.parent}")
    if not isinstance(model, nn.Module) and target.resolve() == Path(model).resolve():
        raise UsageError(f"the result would overwrite the model {model}: choose another name")
    return target


def write(opened: Opened, net: BoundedModel, target: Path, metadata: Mapping[str, str] | None = None) -> Way:
    """Write the trained network, whose properties remember the normalisation, the order of a flat input and `metadata`.

    Returns the way that was taken, as `write_onnx` does, and raises what that raises.
    """
    order = opened.layout.order
    remembered = {
        **normalisation_metadata(**net.problem.normalisation),
        **({FLAT: order} if order else {}),
        **(metadata or {}),
    }
    inputs = net.arranged(opened.example)
    return ranks.by_leader(lambda: write_onnx(net.model, target, inputs, metadata=remembered, output=opened.output))


def read_back(opened: Opened, target: Path, problem: Problem, method: str, symbols: Symbols = 0) -> BoundedModel:
    """What was written, compiled with the bounds that judge it."""
    return opened.bound_another(load_for(target, opened.layout.taken, opened.asked), problem, method, symbols)


def publish(written: Path, target: Path) -> None:
    """Copy what was written to where it was asked for, whole or not at all. Raises `RobnetError`."""

    def copy() -> None:
        with write_atomically(target) as file:
            file.write(written.read_bytes())

    ranks.by_leader(copy)
