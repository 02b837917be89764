"""How many error symbols memory holds, found out where bounds are evaluated: graphs live on and are moved to devices.

With `symbols="all"` a bounds graph measures its memory before the first symbol is born, and at every relaxed node asks
how many columns one sample may have from there on. Whoever can work a batch in smaller parts (`divisible`) is told by
`Crowded` that it does not fit, so that what an image gets does not depend on its neighbours; else those that matter
most are kept, and a warning says how many that were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic
from robnet_fx.errors import RobnetWarning, UsageError
from robnet_fx.machine.memory import USABLE, available_memory


class Crowded(Exception):
    """The symbols of a batch do not fit into memory; those of a part of it may."""


@dataclass
class Shortage:
    """Of `wanted` symbols memory held `kept`; `node` was the first that they did not all fit at."""

    wanted: int = 0
    kept: int = 0
    node: str | None = None
    whose: str = "an image"

    def __str__(self) -> str:
        return (
            f'symbols="all": memory held {self.kept} of the {self.wanted} errors of {self.whose}; from {self.node} on '
            "those that matter least were added up as slack, which makes bounds looser"
        )


_divisible: ContextVar[Shortage | None] = ContextVar("divisible", default=None)


@contextmanager
def divisible() -> Iterator[Shortage]:
    """Batches that do not fit raise `Crowded` meanwhile, and of single images that do not it is noted what is left
    out."""
    shortage = Shortage()
    token = _divisible.set(shortage)
    try:
        yield shortage
    finally:
        _divisible.reset(token)


def room(x: Symbolic) -> int:
    """How many numbers memory holds for each sample of a value."""
    if kernels.traced():
        raise UsageError('symbols="all" is settled while bounds are evaluated: to compile or export, give a number')
    return int(USABLE * available_memory(x.const.device)) // (x.const.element_size() * max(1, len(x.const)))


def columns(x: Symbolic, used: Tensor, room: int, fixed: int, each: int, node: str) -> int:
    """The most columns that a sample may have once the errors of a relaxed value have become symbols.

    From there on a sample holds `fixed` numbers and `each` for every column, at the worst place; `used [B]` are the
    columns in use. Raises `Crowded` where samples have too little room together and `divisible` says they need not be.
    """
    most = max([(room - fixed) // each, *used.tolist()])
    errors = kernels.flat(x.slack, 1)
    wanted = ((errors > 0) & errors.isfinite()).sum(1)
    kept = wanted.clamp(max=most - used)
    missing, noted = int((wanted - kept).sum()), _divisible.get()
    if missing and noted is not None and len(used) > 1:
        raise Crowded
    alone = noted or Shortage(whose="a layer")
    alone.wanted += int(wanted.sum())
    alone.kept += int(kept.sum())
    alone.node = alone.node or (node if missing else None)
    if missing and noted is None:
        warnings.warn(str(alone), RobnetWarning, stacklevel=2)
    return most
