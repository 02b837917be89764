"""The op table: which ATen operation is bounded by which rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from robnet_fx.rules.relaxation import Relaxation, every_unit

Refusal = Callable[[fx.Node, "list[fx.Node]"], str | None]

DEFAULT = "default"  # the relaxer that has a rule for every operation


@dataclass(frozen=True)
class Rule:
    """How one operation is bounded. Each function takes the source node's own arguments, bounded inputs replaced.

    `ibp(*args)` has an `Interval` for each bounded input and returns one; `ssip(*args)` has a `Symbolic`;
    `rsip(form, *args)` has an `InputShape`, takes the `Form` over the op's value and returns that over its input, or a
    tuple of them in the order of the bounded inputs. `kind` is "affine", or says what relaxes the operation: its `ibp`
    is then given `pre` for its input, and `ssip` and `rsip` get it as keyword `pre`.
    `supports(node, bounded)` may refuse a node with a reason. `inputs` are the argument positions that may be bounded,
    `joint` whether more than one may be at once, and `sums` says that a number adds up many inputs by weights of either
    sign. An elementwise operation has its `relaxation`, and its `rsip` takes `slopes` from outside. `straight` says of
    what is relaxed that units have errors at its kinks alone.
    """

    name: str
    ibp: Callable[..., Any]
    ssip: Callable[..., Any]
    rsip: Callable[..., Any]
    kind: str
    inputs: tuple[int, ...] = (0,)
    joint: bool = False
    sums: bool = False
    supports: Refusal | None = None
    relaxation: Relaxation | None = None
    straight: bool = False

    @property
    def affine(self) -> bool:
        """Whether SSIP and RSIP lose nothing, and need no `pre`."""
        return self.kind == "affine"

    @property
    def leans(self) -> bool:
        """Whether RSIP's lines can be chosen to be tight at a point: `rsip` takes it as keyword `at`."""
        return self.relaxation is not None and self.relaxation.at is not None

    def unstable(self, pre: Any, *args: Any, **kwargs: Any) -> Tensor:
        """`bool [B, *S]`: the units whose `pre` is worth tightening, by default all that can move."""
        return (self.relaxation.unstable if self.relaxation else every_unit)(pre, *args, **kwargs)

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
_RELAXERS: dict[tuple[str, Any], Rule] = {}  # of the other relaxers
_FAMILY: dict[Any, str] = {}


def register(home: str, rule: Rule, *targets: Any, relaxer: str = DEFAULT) -> Rule:
    """Enter `rule` for each ATen operation; `ValueError` for a second rule of one operation
    and relaxer, and for a name that its module has already.

    `home` is the module that calls, its `__name__`. The rule's functions become attributes of it, under the names that
    generated code prints: `<rule>_ssip`, or `ssip` for the rule that is named like the module. Where there is no such
    module, graphs work and print all the same, and cannot be pickled.
    The rules of another `relaxer` than the default stand in for the default ones where a method asks for it; what an
    operation takes at all is for the default one to say.
    """
    for target in targets:
        if (known := _TABLE.get(target) if relaxer == DEFAULT else _RELAXERS.get((relaxer, target))) is not None:
            raise ValueError(f"{target} already has the rule {known.name}")
    _publish(home, rule)
    for target in targets:
        if relaxer == DEFAULT:
            _TABLE[target], _FAMILY[target] = rule, home
        else:
            _RELAXERS[relaxer, target] = rule
    return rule


def _publish(home: str, rule: Rule) -> None:
    """Make the rule's functions attributes of their module."""
    prefix = "" if home.rpartition(".")[2] == rule.name else f"{rule.name}_"
    module = sys.modules.get(home)
    for kind in ("ibp", "ssip", "rsip"):
        function, name = getattr(rule, kind), prefix + kind
        if getattr(module, name, function) is not function:
            raise ValueError(f"{home}.{name} is another function already")
        function.__module__, function.__name__, function.__qualname__ = home, name, name
        if module is not None:
            setattr(module, name, function)


def rule_for(target: Any, relaxer: str = DEFAULT) -> Rule | None:
    """The rule of an operation, the default one where the relaxer has none of its own, or None."""
    return _RELAXERS.get((relaxer, target)) or _TABLE.get(target)


def relaxers() -> set[str]:
    """The names of all relaxers."""
    return {DEFAULT, *(relaxer for relaxer, _ in _RELAXERS)}


def family(target: Any) -> str:
    """The module that entered the rule of an operation."""
    return _FAMILY[target]


def table() -> dict[Any, Rule]:
    """A copy of the op table, of the default rules."""
    return dict(_TABLE)
