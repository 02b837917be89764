"""docs/operations.md says what the tables say now."""

from __future__ import annotations

from pathlib import Path

from robnet_fx.inspect.operations import operations
from robnet_fx.passes.lower import lowerings
from robnet_fx.rules import family, rule_for, table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_operations_is_up_to_date():
    made = "run python -m robnet_fx.inspect.operations docs/operations.md"
    assert (DOCS / "operations.md").read_text() == operations(), made


def test_every_operation_stands_in_it():
    page = operations()
    for target in [*table(), *lowerings()]:
        assert target.__name__.removesuffix(".default") in page
    for target in table():
        assert f"`{family(target).removeprefix('robnet_fx.').replace('.', '/')}.py` |" in page
    assert rule_for(next(iter(table()))) is not None
