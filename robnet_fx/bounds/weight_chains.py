"""Weights in a row: multiplied out first they leave SSIP less slack, for |W2 W1| <= |W2| |W1|.

Where SSIP keeps error symbols there is no need: they pass through each of the weights.
"""

from __future__ import annotations

from torch import fx

from robnet_fx.bounds.dependence import Dependents
from robnet_fx.graphs import numel
from robnet_fx.rules import rule_for

_MOST = 2**20  # numbers of the widest product: 8 MiB a sample in float64


def chained(dependent: Dependents, relaxed: set[fx.Node]) -> dict[fx.Node, int]:
    """The values that a relaxation reads with two weights or more since the one before, and how many numbers their
    product has at its widest; without those where it is too large. A single layer in between gains nothing."""
    weights: dict[fx.Node, int] = {}
    widest: dict[fx.Node, int] = {}
    for node, sources in dependent.items():
        weights[node], widest[node] = 0, numel(node)
        rule = rule_for(node.target)
        if node not in relaxed and rule is not None:
            weights[node] = max(weights[source] for source in sources) + rule.sums
            widest[node] = max(widest[node], *(widest[source] for source in sources))
    read = (node for node in weights if weights[node] > 1 and relaxed.intersection(node.users))
    sizes = {node: numel(node) * widest[node] for node in read}
    return {node: size for node, size in sizes.items() if size <= _MOST}
