"""docs/operations.md: every operation robnet-fx takes, read off the tables of rules, lowerings and rewrites.

python -m robnet_fx.inspect.operations docs/operations.md
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from robnet_fx.frontend.decompositions import OURS, PYTORCHS
from robnet_fx.frontend.rewrites import FIRST_RESULTS, REWRITES
from robnet_fx.frontend.spellings import SPELLINGS
from robnet_fx.machine.torch_internals import Operator
from robnet_fx.passes import pipeline  # noqa: F401  (enters every lowering)
from robnet_fx.passes.lower import lowerings
from robnet_fx.rules import family, table

_HEAD = """\
# Operations

Made by `python -m robnet_fx.inspect.operations docs/operations.md`, and checked by the tests.

A network is bounded if each of its operations that depend on the image stands here. How tight the relaxations are:
[relaxations.md](relaxations.md). How to add one: [adding-an-op.md](adding-an-op.md).

## With a rule

Each rule gives all of IBP, SSIP and RSIP; affine ones lose nothing in SSIP and RSIP. *inputs* are the arguments that
may depend on the image, by position; *several* may at once.
"""
_WRITTEN = """
## Written out in others

Before bounds are generated: by PyTorch while the model is traced, by the front end, or by a pass where the operands ask
for it (a product of two values that both depend on the image, say).
"""
_SPELLED = """
## Other spellings

Brought to the one spelling that has a rule.
"""


def operations() -> str:
    """The tables as Markdown."""
    written = [("PyTorch", PYTORCHS), *_by_file(OURS), *_by_file(lowerings())]
    spelled = [*((name, targets) for name, targets in SPELLINGS.items()), *_by_file(REWRITES | FIRST_RESULTS)]
    return "".join([
        _HEAD, _rows(("rule", "operations", "kind", "inputs", "file"), _rules()),
        _WRITTEN, _rows(("by", "operations"), ((by, _names(targets)) for by, targets in written)),
        _SPELLED, _rows(("to", "operations"), ((to, _names(targets)) for to, targets in spelled)),
    ])  # fmt: skip


def _rules() -> list[tuple[str, ...]]:
    entered: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for target, rule in table().items():
        entered[family(target), rule.name].append(target)
    rows: list[tuple[str, ...]] = []
    for (module, name), targets in sorted(entered.items()):
        rule = table()[targets[0]]
        inputs = "several" if rule.joint else "one of " * (len(rule.inputs) > 1) + ", ".join(map(str, rule.inputs))
        rows.append((name, _names(targets), rule.kind, inputs, _file(module)))
    return rows


def _by_file(entries: Mapping[Any, Callable[..., Any]]) -> list[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for target, function in entries.items():
        found[_file(function.__module__)].append(target)
    return sorted(found.items())


def _file(module: str) -> str:
    return f"`{module.removeprefix('robnet_fx.').replace('.', '/')}.py`"


def _names(targets: Iterable[Any]) -> str:
    """ATen names without the overload called default; our own operations as `ops.<name>`."""
    names = (str(t) if isinstance(t, Operator) else f"ops.{t.__name__}" for t in targets)
    return ", ".join(sorted(name.removesuffix(".default") for name in names))


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(operations())
