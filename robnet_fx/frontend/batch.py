"""Where a model needs a certain batch: the line that fixes its size, and the first operation that mixes its samples."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.frontend.canonical import source_line

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


def mixed_at(traced: fx.GraphModule, example: Tensor, tolerance: float) -> fx.Node | None:
    """The first operation of a canonical graph whose values for a batch are not those of its samples one by one."""
    whole, *lone = (_values(traced, x) for x in (example, *example.split(1)))
    varying = set(traced.graph.find_nodes(op="placeholder"))
    for node in traced.graph.nodes:
        if node.op != "call_function" or varying.isdisjoint(node.all_input_nodes):
            continue
        varying.add(node)
        parts = torch.cat([torch.atleast_1d(values[node]) for values in lone])
        same = parts.shape == whole[node].shape
        if not (same and torch.allclose(whole[node], parts, rtol=tolerance, atol=tolerance)):
            return node
    return None


def _values(traced: fx.GraphModule, x: Tensor) -> dict[fx.Node, Any]:
    interpreter = fx.Interpreter(traced, garbage_collect_values=False)
    interpreter.run(x)
    return interpreter.env
