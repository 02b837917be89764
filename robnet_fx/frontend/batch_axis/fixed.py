"""Where a model needs a certain batch: the line that fixes its size."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

from robnet_fx.frontend.places import source_line

_SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_BETWEEN = (logging.__file__, contextlib.__file__)  # frames that are neither the model's nor torch's


class _Listener(logging.Filter):
    """Notes the user's line under which torch replaces a free size by a number, and keeps back the messages that are
    there only because it listens."""

    def __init__(self, usual: int) -> None:
        super().__init__()
        self.usual, self.source = usual, ""

    def filter(self, record: logging.LogRecord) -> bool:
        if not self.source and re.match(r"set_replacement \w+ = \d+ ", record.getMessage()):
            frames = traceback.extract_stack()
            start = max(i for i, frame in enumerate(frames) if frame.name == fixed_at.__name__)
            model = [frame for frame in frames[start:] if frame.filename not in _BETWEEN]
            self.source = source_line("".join(traceback.format_list(model)))
        return record.levelno >= self.usual


def fixed_at(export: Callable[[], Any]) -> str:
    """Run a failing export again: the `file:line    code` that fixes the batch size, empty where it is not known."""
    level, listener = _SHAPES.level, _Listener(_SHAPES.getEffectiveLevel())
    _SHAPES.addFilter(listener)
    _SHAPES.setLevel(logging.INFO)
    try:
        export()
    except Exception:
        return listener.source
    finally:
        _SHAPES.setLevel(level)
        _SHAPES.removeFilter(listener)
    return ""
