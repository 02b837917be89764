"""The op table: which ATen operation is bounded by which rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from robnet_fx.algebra.domains import Interval

Refusal = Callable[[fx.Node, "list[fx.Node]"], str | None]


def every_unit(pre: Interval, *args: Any, **kwargs: Any) -> Tensor:
    """The units whose `pre` matters to a rule: by default all that can move."""
    return pre.upper > pre.lower


@dataclass(frozen=True)
class Rule:
    """How one operation is bounded. Each function takes the source node's own arguments, bounded inputs replaced.

    `ibp(*args)` has an `Interval` for each bounded input and returns one; `ssip(*args)` has a `Symbolic`;
    `rsip(form, *args)` has an `InputShape`, takes the `Form` over the op's value and returns that over its input, or a
    tuple of them in the order of the bounded inputs. A rule that is not `affine` relaxes: its `ibp` is given `pre`
    for its input, and `ssip` and `rsip` get it as keyword `pre`.
    `supports(node, bounded)` may refuse a node with a reason. `inputs` are the argument positions that may be bounded,
    `joint` whether more than one may be at once, and `sums` says that a number adds up many inputs by weights of either
    sign. `unstable(pre, *args)` marks units whose `pre` is worth tightening.
    """

    name: str
    ibp: Callable[..., Any]
    ssip: Callable[..., Any]
    rsip: Callable[..., Any]
    affine: bool
    inputs: tuple[int, ...] = (0,)
    joint: bool = False
    sums: bool = False
    supports: Refusal | None = None
    unstable: Callable[..., Tensor] = field(default=every_unit)

    def refusal(self, node: fx.Node, bounded: list[fx.Node]) -> str | None:
        """Why this rule cannot take the node, or None."""
        positions = [i for i, arg in enumerate(node.args) if _mentions(arg, bounded)]
        outside = [i for i in positions if i not in self.inputs]
        if outside or any(_mentions(arg, bounded) for arg in node.kwargs.values()):
            return f"argument {outside[0] if outside else 'given by name'} depends on the perturbation"
        if len(positions) > 1 and not self.joint:
            return f"{self.name} of two values that both depend on the perturbation"
        return self.supports(node, bounded) if self.supports else None


def _mentions(arg: Any, nodes: list[fx.Node]) -> bool:
    if isinstance(arg, (list, tuple)):
        return any(_mentions(a, nodes) for a in arg)
    return any(arg is node for node in nodes)


_TABLE: dict[Any, Rule] = {}
_FAMILY: dict[Any, str] = {}


def register(rule: Rule, *targets: Any) -> Rule:
    """Enter `rule` for each ATen operation; a second rule for one operation is refused."""
    for target in targets:
        if target in _TABLE:
            raise ValueError(f"{target} already has the rule {_TABLE[target].name}")
        _TABLE[target] = rule
        _FAMILY[target] = sys._getframe(1).f_globals.get("__name__", "")  # the module that calls
    return rule


def rule_for(target: Any) -> Rule | None:
    """The rule of an operation, or None."""
    return _TABLE.get(target)


def family(target: Any) -> str:
    """The module that entered the rule of an operation."""
    return _FAMILY[target]


def table() -> dict[Any, Rule]:
    """A copy of the op table."""
    return dict(_TABLE)


def named(function: Callable[..., Any], rule: str, kind: str) -> Callable[..., Any]:
    """Give a rule's function the name that generated code prints: `robnet_fx.rules.<rule>.<kind>`."""
    function.__module__ = f"robnet_fx.rules.{rule}"
    function.__name__ = function.__qualname__ = kind
    return function
