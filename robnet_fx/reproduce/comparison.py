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
    there = document if document is not None and document.get("command") == "cell" else None
    return {
        "row": row,
        "column": cell.way.label,
        "name": cell.name,
        "paper": cell.paper.shares,
        "file": there and str(path),
        "found": there and {name: there[name] for name in _FIGURES},
        "without_copies": there and there["without_copies"],
        "scaled": [] if there is None else _scaled(cell, there),
    }


def _scaled(cell: Cell, document: Mapping[str, Any]) -> list[str]:
    """In what the cell is less than the paper's."""
    training = document["training"]
    before = (training["start"] or training)["epochs"]
    counts = {
        "epochs": (training["epochs"], EPOCHS),
        **({} if before == training["epochs"] else {"standard epochs": (before, EPOCHS)}),
        "training images": (sum(training["images"].values()), cell.images.train),
        "test images": (document["images"], cell.images.test),
    }
    return [f"{ours:,} of {papers:,} {what}" for what, (ours, papers) in counts.items() if ours < papers]
