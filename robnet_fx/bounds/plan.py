"""What of a perturbed graph depends on the coefficients, and which of it has no bound rule."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import describe, numel, shape_of
from robnet_fx.passes import FIELD
from robnet_fx.rules import rule_for


def unsupported(perturbed: fx.GraphModule) -> list[tuple[fx.Node, str]]:
    """Every node that cannot be bounded, with the reason."""
    refused = []
    dependent = dependent_nodes(perturbed)
    for node in perturbed.graph.nodes:
        if node not in dependent or node.name == FIELD:
            continue
        rule = rule_for(node.target)
        reason = (
            f"no bound rule for {node.target}" if rule is None else rule.refusal(node, bounded_inputs(node, dependent))
        )
        if reason is None and not _has_batch(node):
            reason = "its result does not have the batch as first axis"
        if reason is not None:
            refused.append((node, reason))
    return refused


def dependent_nodes(perturbed: fx.GraphModule) -> set[fx.Node]:
    """The nodes whose value depends on the coefficients."""
    found: set[fx.Node] = set()
    for node in perturbed.graph.nodes:
        if node.op != "output" and (node.name == FIELD or any(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def widest(dependent: set[fx.Node]) -> int:
    """Numbers of the largest value that depends on the coefficients."""
    return max(map(numel, dependent))


def relaxed_nodes(dependent: set[fx.Node]) -> set[fx.Node]:
    """Those of the nodes whose rule is not affine."""
    rules = {node: rule_for(node.target) for node in dependent if node.name != FIELD}
    return {node for node, rule in rules.items() if rule is not None and not rule.affine}


def bounded_inputs(node: fx.Node, dependent: set[fx.Node]) -> list[fx.Node]:
    """The inputs that depend on the coefficients, in the order of the arguments and as often as they occur."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) if n in dependent else None)
    return found


def _has_batch(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return value is None or (value.dim() > 0 and len(shape_of(node)) == value.dim() - 1)


def report(refused: list[tuple[fx.Node, str]]) -> str:
    """The error message that lists every node without a rule."""
    kinds = sorted({str(node.target) for node, _ in refused})
    what = "cannot bound" if any(rule_for(node.target) for node, _ in refused) else "no bound rule for"
    head = f"{what} {', '.join(kinds)} ({len(refused)} node{'s' if len(refused) > 1 else ''})"
    remedy = "  remedy  replace the layer, or add a rule: docs/adding-an-op.md"
    return "\n".join([head, *(describe(node, reason) for node, reason in refused), remedy])
