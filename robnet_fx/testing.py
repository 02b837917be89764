"""A soundness harness for rules, yours or ours: it hunts for a coefficient that leaves a bound.

```python
from robnet_fx import BiasField
from robnet_fx.testing import check_sound

check_sound(MyNetwork().double(), BiasField(1, 0.1), images)  # AssertionError if a bound of a node is left
```

It samples interior and corner coefficients and climbs by gradient ascent, node by node, towards the units nearest to
their bounds, by every method and with several budgets of error symbols. Of SSIP not only the interval is compared but
the form, at the very coefficients and with every error symbol at the value that the relaxation's error has there.
Passing is evidence, not proof; failing is a bug in a rule.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra import symbols
from robnet_fx.algebra.domains import Interval, Symbolic
from robnet_fx.algebra.kernels import flat
from robnet_fx.bounds.methods import METHODS, Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.frontend import trace
from robnet_fx.graphs import MODEL, output_of
from robnet_fx.perturbations.base import Box, Perturbation
from robnet_fx.problem import Problem

__all__ = ["all_corners", "assert_inside", "check_sound", "corners", "node_values"]

_SYMBOLIC = re.compile(r"(\w+?)_(ssip|relaxed|aligned)(?:_\d+)?")  # a generated node with a symbolic value
TOLERANCE = 1e-9  # of 1 + |bound|, in float64


def _is_canonical(network: nn.Module) -> bool:
    return isinstance(network, fx.GraphModule) and MODEL in dict(network.named_children())


def _recorded(module: fx.GraphModule, *inputs: Any) -> dict[Any, Any]:
    """The value of every node of a graph, that of its output last."""
    recorder = fx.Interpreter(module, garbage_collect_values=False)
    recorder.run(*inputs)
    return recorder.env


def node_values(perturbed: fx.GraphModule, coefficients: Tensor, images: Tensor) -> dict[str, Tensor]:
    """The value of every call of a perturbed graph, by the node's name."""
    values = _recorded(perturbed, coefficients, images)
    return {
        node.name: value for node, value in values.items() if node.op == "call_function" and isinstance(value, Tensor)
    }


def corners(dimensions: int, at_most: int = 64) -> Tensor:
    """Corners of the unit box `[N, D]`: all of them, or as many as asked for."""
    if 2**dimensions <= at_most:
        return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dimensions)), dtype=torch.float64)
    return torch.randint(0, 2, (at_most, dimensions)).double() * 2 - 1


def all_corners(dimensions: int) -> Tensor:
    """Every corner of the unit box."""
    return corners(dimensions, 2**dimensions)


def _outside(value: Tensor, bounds: Interval) -> Tensor:
    """By how much each value lies outside its interval, relative to the interval's size; NaN counts as outside."""
    scale = 1 + torch.maximum(bounds.lower.abs(), bounds.upper.abs())
    gap = torch.maximum(bounds.lower - value, value - bounds.upper) / scale
    return torch.where(gap.isnan(), torch.inf, gap)


def check_sound(
    network: nn.Module,
    perturbation: Perturbation,
    images: Tensor,
    *,
    clip: str | None = None,
    methods: Sequence[str] = tuple(METHODS),
    symbols: Sequence[Symbols] = (0, 12),
    mean: Any = None,
    std: Any = None,
    climbs: int = 2,
    box: Box | None = None,
) -> dict[str, BoundedModel]:
    """Look for a coefficient that leaves a bound, at any node, by any method; returns the compiled models by method.

    network: an nn.Module or a canonical graph, in float64. images: `[B, *S]` float64 in [0, 1]; a few are enough.
    symbols: how many error symbols a sample has, one number after the other, by "rsip-ssip" if it is among the methods,
    else by those with SSIP; the models without any are returned. box: another than that of the perturbation's eps,
    `[1 or B, D]`. The network's parameters stop requiring gradients. Raises `AssertionError` naming method, symbols,
    node and by how much it is left.
    """
    if images.dtype != torch.float64:
        raise UsageError("the harness works in float64: give it model.double() and images.double()")
    canonical = network if _is_canonical(network) else trace(network, images)
    assert isinstance(canonical, fx.GraphModule)
    net = BoundedModel(canonical, Problem(perturbation, clip, mean, std), methods[0])
    remembering = ["rsip-ssip"] if "rsip-ssip" in methods else [m for m in methods if METHODS[m].symbolic]
    nets = {(m, n): net.by(m, n) for n in symbols for m in (remembering if n else methods)}
    for parameter in net.parameters():
        parameter.requires_grad_(False)  # only the coefficients are climbed
    spec = _rows(net.classes).expand(len(images), -1, -1)
    claims: list[tuple[str, str, Interval]] = []
    recorded: dict[str, dict[Any, Any]] = {}
    for (method, kept), other in nets.items():
        name = f"{method} with {kept} symbols" if kept else method
        recorded[name] = _recorded(other._probe, images, *box or ())
        for node, kinds in list(recorded[name].values())[-1].items():
            claims += [(node, f"{name}/{kind}", bounds) for kind, bounds in kinds.items()]
        claims.append(("output", f"{name}/bounds", Interval(*other.get_submodule("bounds")(images, spec, *box or ()))))

    box = Box(*(part.expand(len(images), -1) for part in box or (net.center, net.radius)))
    dimensions = len(net.center)
    t = torch.cat([torch.zeros(1, dimensions), corners(dimensions), torch.rand(32, dimensions) * 2 - 1]).double()
    index = torch.arange(len(images)).repeat_interleave(len(t))
    t = t.repeat(len(images), 1)
    values = _values(net, box, t, index, images, spec)
    assert_inside(claims, values, index)

    goals = _goals(claims, values, index, climbs)
    climbed, images_of = _climb(net, box, goals, images, spec)
    assert_inside(claims, _values(net, box, climbed, images_of, images, spec), images_of)

    t, index = torch.cat([t, climbed]), torch.cat([index, images_of])
    values = _values(net, box, t, index, images, spec)
    for name, found in recorded.items():
        assert_on_forms(name, found, t, index, values)
    return {method: net for (method, kept), net in nets.items() if not kept}


def assert_inside(claims: list[tuple[str, str, Interval]], values: dict[str, Tensor], index: Tensor) -> None:
    """Every value of a node `[N, *S]`, each under the image `index [N]`, inside every interval claimed for it."""
    for node, kind, bounds in claims:
        if not values[node].shape[1:] == bounds.lower.shape[1:] == bounds.upper.shape[1:]:
            raise AssertionError(f"shape of {kind} of {node}")
        gap = _outside(values[node], Interval(bounds.lower[index], bounds.upper[index]))
        worst = float(gap.max()) if gap.numel() else 0.0
        if not worst <= TOLERANCE:
            raise AssertionError(f"UNSOUND: {kind} of {node} is left by {worst:.3g}")


def assert_on_forms(name: str, recorded: dict[Any, Any], t: Tensor, index: Tensor, values: dict[str, Tensor]) -> None:
    """Every value of a node `[N, *S]` is what its SSIP form is at `t [N, D]`, up to the slack.

    recorded: the nodes of a graph of `probe` with their values, for the images that `index [N]` counts. An error symbol
    has the value by which its unit was off the form when the symbol was born, over the slack that the unit had then;
    symbols that are born are those columns that a birth changes.
    """
    for image in range(int(index.max()) + 1):
        rows = index == image
        variables, off = t[rows], {}
        for node, value in recorded.items():
            if (match := _SYMBOLIC.fullmatch(node.name)) and match[1] in values and isinstance(value, Symbolic):
                what = f"{name}/{match[2]} of {match[1]}"
                off[node] = _off(what, value, image, variables, values[match[1]][rows])
            if node.target in (symbols.born, symbols.born_or_none):
                old, new = (flat(x.coef, 2)[image] for x in symbols.aligned(recorded[node.args[0]], value.value))
                size, unit = torch.where((old != new).any(1, keepdim=True), new, 0).max(1)
                more = torch.zeros(len(variables), max(0, len(size) - variables.shape[1]), dtype=t.dtype)
                variables = torch.cat([variables, more], 1)
                there = variables[:, : len(size)]
                there.copy_(torch.where(size > 0, off[node.args[0]][:, unit] / size, there))


def _off(name: str, x: Symbolic, image: int, variables: Tensor, values: Tensor) -> Tensor:
    """`[n, numbers of S]`: values `[n, *S]` less what a form is for one image, at variables `[n, D + E]`."""
    coef, const, slack = flat(x.coef, 2)[image], x.const[image].flatten(), x.slack[image].flatten()
    radius = coef.abs().sum(0) + slack
    known = min(len(coef), variables.shape[1])
    off = flat(values, 1) - const - variables[:, :known] @ coef[:known]
    gap = (off.abs() - slack) / (1 + const.abs() + radius)
    if not bool(((gap <= TOLERANCE) | radius.isinf()).all()) or bool(coef[known:].any()):
        raise AssertionError(f"UNSOUND: the form of {name} is left by {float(gap.max()):.3g}")
    return off


def _rows(classes: int) -> Tensor:
    """A spec of margins, single logits and a mixed row: `[1, K, classes]`."""
    eye = torch.eye(classes, dtype=torch.float64)
    mixed = torch.randn(1, classes, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.cat([eye[:1] - eye[1:], eye[-1:], mixed]).unsqueeze(0)


def _values(net: BoundedModel, box: Box, t: Tensor, index: Tensor, images: Tensor, spec: Tensor) -> dict[str, Tensor]:
    """Every node's value at points `t [N, D]` of the unit box, each of the image and box of its `index [N]`."""
    values = node_values(net.perturbed, box.center[index] + box.radius[index] * t, images[index])
    last = output_of(net.perturbed)
    values["output"] = (spec[index] @ values[last.name].unsqueeze(2)).squeeze(2)
    return values


def _goals(claims: Any, values: dict[str, Tensor], index: Tensor, climbs: int) -> list[tuple[str, int, int, float]]:
    """(node, image, unit, sign) to climb: for each node and side the unit nearest to its bound, and random ones."""
    tightest = {node: bounds for node, _, bounds in claims}
    goals = []
    for node, bounds in tightest.items():
        for image in range(len(bounds.lower)):
            seen = flat(values[node][index == image], 1)
            lower, upper = bounds.lower[image].flatten(), bounds.upper[image].flatten()
            width = (upper - lower).clamp(min=1e-12)
            near = int(((upper - seen.amax(0)) / width).argmin()), int(((seen.amin(0) - lower) / width).argmin())
            goals += [(node, image, near[0], 1.0), (node, image, near[1], -1.0)]
            units = torch.randint(0, len(lower), (climbs,)).tolist()
            goals += [(node, image, unit, sign) for unit in units for sign in (1.0, -1.0)]
    return goals


def _climb(net: BoundedModel, box: Box, goals: list[tuple[str, int, int, float]], images: Tensor, spec: Tensor) -> Any:
    """Normalised gradient ascent for all goals at once, one row each; every point on the way is returned."""
    index = torch.tensor([goal[1] for goal in goals])
    by_node: dict[str, list[int]] = {}
    for row, goal in enumerate(goals):
        by_node.setdefault(goal[0], []).append(row)
    units = torch.tensor([goal[2] for goal in goals])
    signs = torch.tensor([goal[3] for goal in goals], dtype=torch.float64)
    t = torch.rand(len(goals), len(net.center), dtype=torch.float64) - 0.5
    path = []
    for step in (2.0, 0.5, 0.25):
        t = t.requires_grad_(True)
        values = _values(net, box, t, index, images, spec)
        reached = [(flat(values[node], 1)[rows, units[rows]] * signs[rows]).sum() for node, rows in by_node.items()]
        (slope,) = torch.autograd.grad(torch.stack(reached).sum(), t)
        t = (t.detach() + step * slope.sign()).clamp(-1, 1)
        path.append(t.clone())
    return torch.cat(path), index.repeat(len(path))
