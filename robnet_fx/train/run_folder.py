"""The run directory: everything about one run in one place, and none ever written over. The leading rank writes it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically

CHECKPOINT, METRICS, MODEL = "checkpoint.pt", "metrics.json", "model.onnx"


def create(parent: Path, name: str) -> Path:
    """A new, empty directory `parent/name-<n>` with the first free n."""
    return ranks.by_leader(lambda: _create(parent, name))


def reopen(path: Path) -> Path:
    """The run directory that `path` (it, or the checkpoint in it) names; `UsageError` if there is no checkpoint."""
    folder = path if path.is_dir() else path.parent
    if not (folder / CHECKPOINT).is_file():
        raise UsageError(f"nothing to resume: there is no {CHECKPOINT} in {folder}")
    return folder


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write readable JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    ranks.by_leader(lambda: _write(path, text.encode()))


def _create(parent: Path, name: str) -> Path:
    try:
        for number in itertools.count(1):
            folder = parent / f"{name}-{number}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not parent.is_dir():
                    raise
    except OSError as error:
        raise RobnetError(f"cannot make a run directory in {parent}: {error.strerror or error}") from error
    raise AssertionError("unreachable")


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as file:
        file.write(content)
