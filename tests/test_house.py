"""What holds of the whole package: how large its files are, what lies at its root, what is public, and what is linted.

The direction of dependencies and that there is no circle is for the linter (`make lint`, pyproject.toml).
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"robnet_fx": ROOT / "robnet_fx", "robnet_fx.cli": ROOT / "cli", "robnet_fx.zoo": ROOT / "zoo"}
AT_THE_ROOT = {"__init__", "__main__", "errors", "graphs", "problem", "testing", "version"}
MOST_LINES = 300
PUBLIC = {
    "robnet_fx",
    "robnet_fx.bounds",
    "robnet_fx.images.layout",
    "robnet_fx.inspect",
    "robnet_fx.passes",
    "robnet_fx.passes.base",
    "robnet_fx.perturbations",
    "robnet_fx.rules",
    "robnet_fx.testing",
    "robnet_fx.train",
    "robnet_fx.train.objectives",
    "robnet_fx.verify",
}
"""What users write against: the names in their `__all__`. Everything else is free to change."""


def files() -> dict[str, Path]:
    """Every module of the package, and where it lies."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = file
    return found


def test_no_file_is_long() -> None:
    long = {name: lines for name, file in files().items() if (lines := len(file.read_text().splitlines())) > MOST_LINES}
    assert not long, "each module is one idea: part those that have two"


def test_few_files_lie_at_the_root() -> None:
    assert {file.stem for file in (ROOT / "robnet_fx").glob("*.py")} == AT_THE_ROOT
    assert len(AT_THE_ROOT) <= 8


def test_the_linter_sees_every_module() -> None:
    """Those behind the links to cli/ and zoo/ too."""
    assert grimp.build_graph("robnet_fx", cache_dir=None).modules == files().keys()


def public() -> Iterator[tuple[str, str]]:
    """What modules say is public: each name in an `__all__`, and its module."""
    for name, file in files().items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                yield from ((name, public_name) for public_name in ast.literal_eval(node.value))


def test_what_is_public_is_written_down() -> None:
    written = {module for module, _ in public()}
    assert written - {"robnet_fx.report.page", "robnet_fx.zoo.data"} == PUBLIC


@pytest.mark.parametrize(("module", "name"), [*public()])
def test_what_is_public_is_there_and_says_what_it_is(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if callable(value) or inspect.ismodule(value):
        assert inspect.getdoc(value)
