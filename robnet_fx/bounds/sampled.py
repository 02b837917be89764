"""The errors that relaxations would have over intervals of values that were seen, in place of proved ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.domains import Interval, Symbolic
from robnet_fx.bounds.dependence import dependents, relaxed_nodes
from robnet_fx.rules import rule_for

_SMALLEST = 1e-12  # of a scale that is divided by


def sampled_errors(perturbed: fx.GraphModule, points: Tensor, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(the logits `[P, B, classes]` at `points [P, B, D]`, coefficients of the same box of every image; for every node
    that is relaxed the errors of its units, summed, `[B]`).

    The `pre` of a unit is the range of its P values, so that no error of an earlier relaxation is in it: this is what
    SSIP would add to slack if its `pre` were as tight as can be. It bounds nothing. Errors are in units of the spread
    of the node's values of that image, which takes no part in gradients; all else is differentiable in the parameters.
    """
    count = len(points)
    walk = _Walk(perturbed, count)
    logits = walk.run(points.flatten(0, 1), images.repeat(count, *[1] * (images.ndim - 1)))
    return logits.unflatten(0, (count, -1)), walk.errors


class _Walk(fx.Interpreter):
    """Runs a perturbed graph on P points of each image, the images one after another within a point."""

    def __init__(self, perturbed: fx.GraphModule, count: int) -> None:
        super().__init__(perturbed)
        self.count = count
        self.dependent = dependents(perturbed)
        self.relaxed = relaxed_nodes(self.dependent)
        self.errors: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.relaxed:
            spread = value.detach().unflatten(0, (self.count, -1)).transpose(0, 1).flatten(1).std(1)
            self.errors.append(self._slack(n).flatten(1).sum(1) / spread.clamp_min(_SMALLEST))
        return value

    def _slack(self, node: fx.Node) -> Tensor:
        """The error of the node's relaxation, `[B, *S]`."""
        rule = rule_for(node.target)
        assert rule is not None  # or it would have no bounds
        ranges = {source: self._range(source) for source in self.dependent[node]}

        def taken(source: fx.Node) -> Any:
            return _along_one(ranges[source]) if source in ranges else self.env[source]

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), taken)
        pres = tuple(ranges[source] for source in self.dependent[node])
        made = rule.ssip(*args, pre=pres[0] if len(pres) == 1 else pres, **kwargs)
        assert isinstance(made, Symbolic)
        return made.slack

    def _range(self, node: fx.Node) -> Interval:
        values = self.env[node].unflatten(0, (self.count, -1))
        return Interval(values.amin(0), values.amax(0))


def _along_one(ends: Interval) -> Symbolic:
    """What moves from one end to the other along a single coefficient, exactly."""
    radius = (ends.upper - ends.lower) / 2
    return Symbolic(radius.unsqueeze(1), ends.lower + radius, torch.zeros_like(radius))
