"""Where SSIP may start anew from RSIP: values that every path from the entry to the logits passes."""

from __future__ import annotations

from torch import fx

from robnet_fx.bounds.dependence import Dependents
from robnet_fx.graphs import numel
from robnet_fx.rules import rule_for

_APART = 3  # weights from one anchor to the next: what a residual block has, and little for slack to grow through
_MOST = 2**13  # units of an anchor, each of them two rows of RSIP through everything in front of it


def anchors(dependent: Dependents, relaxed: set[fx.Node]) -> set[fx.Node]:
    """The anchors of a perturbed graph: all paths pass them, weights and relaxations lie between one and the next, a
    relaxation still follows, and of the values in a row between two relaxations they have the fewest units.
    """
    place = {node: i for i, node in enumerate(dependent)}
    found: set[fx.Node] = set()
    best: fx.Node | None = None
    weights = weights_then = read = 0  # since the last anchor, up to the best value, and how far all before are read
    started = False
    for node, i in place.items():
        if node in relaxed:
            if best is not None:
                found.add(best)
                best, weights = None, weights - weights_then
            started = True
        rule = rule_for(node.target)
        weights += rule is not None and rule.sums
        fits = started and read <= i and weights >= _APART and numel(node) <= _MOST
        if fits and (best is None or numel(node) < numel(best)):
            best, weights_then = node, weights
        read = max([read, *(place[user] for user in node.users if user in place)])
    return found
