"""Ours beside the paper's: what a folder holds of a table, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robnet_fx.machine.files import read_json
from robnet_fx.zoo.tables import EPOCHS, Cell

_FIGURES = (
    "clean_accuracy",
    "attacked_accuracy",
    "certified_accuracy",
    "one_box_accuracy",
    "unknown",
    "images",
)


def compare(cells: Sequence[tuple[str, Cell]], folder: Path) -> list[dict[str, Any]]:
    """A line for each (row, cell), as the record of `reproduce` has it: figures in [0, 1], the paper's, what is scaled.

    Where a cell is open `file` and `found` are None.
    """
    return [_line(row, cell, folder / f"{cell.name}.json") for row, cell in cells]


def _line(row: str, cell: Cell, path: Path) -> dict[str, Any]:
    document = read_json(path)
    there = document is not None and document.get("command") == "cell"
    return {
        "row": row,
        "column": cell.way.label,
        "name": cell.name,
        "paper": cell.paper.shares,
        "file": str(path) if there else None,
        "found": {name: document[name] for name in _FIGURES} if there and document else None,
        "without_copies": document["without_copies"] if there and document else None,
        "scaled": _scaled(cell, document) if there and document else [],
    }


def _scaled(cell: Cell, document: Mapping[str, Any]) -> list[str]:
    """In what the cell is less than the paper's."""
    training = document["training"]
    counts = {
        "epochs": (training["epochs"], EPOCHS),
        "training images": (sum(training["images"].values()), cell.images.train),
        "test images": (document["images"], cell.images.test),
    }
    return [f"{ours:,} of {papers:,} {what}" for what, (ours, papers) in counts.items() if ours < papers]
