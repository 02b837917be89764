"""What of a perturbed graph depends on the coefficients, and how."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import numel, shape_of
from robnet_fx.passes import ENTRY
from robnet_fx.rules import rule_for

Dependents = dict[fx.Node, list[fx.Node]]
"""The nodes whose value depends on the coefficients, in the order of the graph; of each the inputs that do, in the
order of its arguments and as often as they occur."""


def dependents(perturbed: fx.GraphModule) -> Dependents:
    """What depends on the coefficients, from the perturbation on."""
    found: Dependents = {}
    for node in perturbed.graph.nodes:
        inputs: list[fx.Node] = []
        fx.node.map_arg((node.args, node.kwargs), lambda n: inputs.append(n) if n in found else None)  # noqa: B023
        if node.name == ENTRY or (inputs and node.op != "output"):
            found[node] = inputs
    return found


def relaxed_nodes(dependent: Dependents) -> set[fx.Node]:
    """Those of the nodes whose rule is not affine."""
    rules = {node: rule_for(node.target) for node in dependent if node.name != ENTRY}
    return {node for node, rule in rules.items() if rule is not None and not rule.affine}


def straight(dependent: Dependents) -> bool:
    """Whether relaxations have errors at kinks alone, so that they are few over a small enough box."""
    rules = [rule_for(node.target) for node in relaxed_nodes(dependent)]
    return all(rule.straight for rule in rules if rule is not None)


def stands_on(dependent: Dependents) -> dict[str, tuple[int, ...]]:
    """Name and S of the values that relaxations read, in the order in which they are bounded."""
    relaxed = relaxed_nodes(dependent)
    return {source.name: shape_of(source) for node in dependent if node in relaxed for source in dependent[node]}


def widest(dependent: Dependents) -> int:
    """Numbers of the largest value that depends on the coefficients."""
    return max(map(numel, dependent))
