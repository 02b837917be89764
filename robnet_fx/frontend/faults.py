"""What to say of an exception that running or tracing the user's code ends in: what it is, and in which line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from torch import Tensor, nn

from robnet_fx.errors import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.places import source_line
from robnet_fx.machine.torch_internals import depends_on_values

_OF_SHAPES = re.compile(r"\b(shapes?|sizes?|dim|dims|dimensions?|dimensional|channels|broadcast\w*|[1-6]D)\b", re.I)
_KINDS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


def refused(error: Exception, model: nn.Module, example: Tensor) -> RobnetError:
    """The error for an exception that the model ends in on an example."""
    if isinstance(error, RobnetError):
        return error
    shape = list(example.shape[1:])
    of_shapes = isinstance(error, _KINDS) and _OF_SHAPES.search(str(error))
    head = f"the model does not accept images of shape {shape}" if of_shapes else f"{type(model).__name__} fails"
    return UsageError(f"{head}: {summary(error)}{_place(error, model)}")


def untraceable(error: Exception, model: nn.Module) -> UnsupportedError:
    """The error for an exception of torch.export, which the model itself does not end in."""
    remedy = ""
    if depends_on_values(error):
        remedy = "\n  remedy  let no branch, size or Python number depend on the values of an image"
    head = f"torch.export cannot trace {type(model).__name__} with a free batch size: {summary(error)}"
    return UnsupportedError(f"{head}{_place(error, model)}{remedy}")


def summary(error: BaseException) -> str:
    """`ValueError: what it says`, in one line."""
    text = re.sub(r"\s+", " ", str(error).strip().split("\n")[0])[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException, model: nn.Module) -> str:
    """The lines that say in which layer and line of the user's it was raised, as far as that is known."""
    layer = source = ""
    names = {id(module): name for name, module in model.named_modules()}
    for cause in _causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) in names:
                kind = re.sub(r"^torch\.nn\.modules\.\w+", "torch.nn", type(module).__module__)
                layer = f"\n  layer   {names[id(module)] or '(top)'} ({kind}.{type(module).__name__})"
        lines = "".join(traceback.format_tb(cause.__traceback__))
        source = source_line(lines) or source_line(str(cause))
        if source:
            break
    return layer + f"\n  source  {source}" * bool(source)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
