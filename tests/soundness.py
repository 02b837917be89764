"""The soundness harness: every node of a perturbed graph against every interval that claims to hold it.

`Drawing` builds a canonical graph by hand, in milliseconds and with any operation of the table; `check_sound` compiles
a canonical graph by every method and hunts for a coefficient that leaves a bound: sampled interior and corner
coefficients, and coefficients climbed to by gradient ascent, node by node, towards the units nearest to their bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.bounded import BoundedModel
from robnet_fx.domains import Interval
from robnet_fx.generate.methods import METHODS
from robnet_fx.graphs import MODEL, derive
from robnet_fx.perturbation import Perturbation

Draw = Callable[..., Tensor]

TOLERANCE = 1e-9
_EXAMPLES = 5  # the batch that shapes are read from: no other size in the tests' networks


def draws(seed: int) -> Draw:
    """A source of normal numbers in float64: `r(3, 4)`."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


class Drawing:
    """A canonical graph drawn by hand: `y = drawing(aten.conv2d.default, drawing.x, weight, bias)`.

    Tensors among the arguments become parameters of the sub-module `model`, as the user's weights are.
    """

    def __init__(self, *shape: int) -> None:
        self.graph = fx.Graph()
        self.model = nn.Module()
        self.values: dict[fx.Node, Tensor] = {}
        self.x = self.graph.placeholder("x")
        self._record(self.x, draws(9)(_EXAMPLES, *shape))

    def _record(self, node: fx.Node, value: Tensor) -> fx.Node:
        self.values[node] = value
        node.meta = {"shape": tuple(value.shape[1:]), "dtype": value.dtype}
        return node

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["shape"])

    def _place(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            name = f"p{len(self.values)}"
            if arg.is_floating_point():
                self.model.register_parameter(name, nn.Parameter(arg, requires_grad=False))
            else:  # an index or a mask
                self.model.register_buffer(name, arg)
            node = self.graph.get_attr(f"{MODEL}.{name}")
            self.values[node] = arg
            node.meta = {"shape": tuple(arg.shape), "dtype": arg.dtype}
            return node
        if isinstance(arg, (list, tuple)):
            return [self._place(a) for a in arg]
        return arg

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        args = tuple(self._place(arg) for arg in args)
        kwargs = {key: self._place(arg) for key, arg in kwargs.items()}
        name = target.__name__.split(".")[0].strip("_")
        node = self.graph.create_node("call_function", target, args, kwargs, name=name)
        with torch.no_grad():
            value = target(*fx.node.map_arg(args, self.values.get), **fx.node.map_arg(kwargs, self.values.get))
        assert len(value) == _EXAMPLES, "the batch must stay first"
        return self._record(node, value)

    def flat(self, node: fx.Node) -> fx.Node:
        return self(torch.ops.aten.reshape.default, node, [-1, self.values[node][0].numel()])

    def logits(self, node: fx.Node, r: Draw, classes: int = 3) -> fx.GraphModule:
        """Finish with a linear layer on all there is."""
        flat = self.flat(node)
        (size,) = self.shape(flat)
        return self.finish(self(torch.ops.aten.linear.default, flat, r(classes, size) / size**0.5, r(classes)))

    def finish(self, node: fx.Node) -> fx.GraphModule:
        self.graph.output(node)
        root = nn.Module()
        root.add_module(MODEL, self.model)
        return derive(root, self.graph, "Canonical").eval()


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the value of every call."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor):
            self.values[n.name] = value
        return value


def node_values(perturbed: fx.GraphModule, coefficients: Tensor, images: Tensor) -> dict[str, Tensor]:
    """The value of every call of a perturbed graph, by the node's name."""
    recorder = _Recorder(perturbed)
    recorder.run(coefficients, images)
    return recorder.values


def corners(dimensions: int, at_most: int = 64) -> Tensor:
    """Corners of the unit box `[N, D]`: all of them, or as many as asked for."""
    if 2**dimensions <= at_most:
        return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dimensions)), dtype=torch.float64)
    return torch.randint(0, 2, (at_most, dimensions)).double() * 2 - 1


def all_corners(dimensions: int) -> Tensor:
    return corners(dimensions, 2**dimensions)


def _outside(value: Tensor, bounds: Interval) -> Tensor:
    """By how much each value lies outside its interval, relative to the interval's size; NaN counts as outside."""
    scale = 1 + torch.maximum(bounds.lower.abs(), bounds.upper.abs())
    gap = torch.maximum(bounds.lower - value, value - bounds.upper) / scale
    return torch.where(gap.isnan(), torch.inf, gap)


def check_sound(
    canonical: fx.GraphModule,
    perturbation: Perturbation,
    images: Tensor,
    *,
    clip: str | None = None,
    methods: Sequence[str] = tuple(METHODS),
    mean: Any = None,
    std: Any = None,
    climbs: int = 2,
) -> dict[str, BoundedModel]:
    """Assert that no coefficient found leaves a bound, at any node, by any method; returns the compiled models."""
    assert images.dtype == torch.float64
    nets = {method: BoundedModel(canonical, perturbation, method, clip, mean, std) for method in methods}
    net = next(iter(nets.values()))
    for parameter in net.parameters():
        parameter.requires_grad_(False)  # only the coefficients are climbed
    spec = _rows(net.classes).expand(len(images), -1, -1)
    claims: list[tuple[str, str, Interval]] = []
    for method, other in nets.items():
        claims += [(node, f"{method}/{kind}", bounds) for node, kinds in other.probe(images).items()
                   for kind, bounds in kinds.items()]  # fmt: skip
        claims.append(("output", f"{method}/bounds", Interval(*other.bounds(images, spec))))

    dimensions = len(net.center)
    t = torch.cat([torch.zeros(1, dimensions), corners(dimensions), torch.rand(32, dimensions) * 2 - 1]).double()
    index = torch.arange(len(images)).repeat_interleave(len(t))
    t = t.repeat(len(images), 1)
    values = _values(net, t, images[index], spec[index])
    assert_inside(claims, values, index)

    goals = _goals(claims, values, index, climbs)
    t, index = _climb(net, goals, images, spec)
    assert_inside(claims, _values(net, t, images[index], spec[index]), index)
    return nets


def assert_inside(claims: list[tuple[str, str, Interval]], values: dict[str, Tensor], index: Tensor) -> None:
    """Every value of a node `[N, *S]`, each under the image `index [N]`, inside every interval claimed for it."""
    for node, kind, bounds in claims:
        assert values[node].shape[1:] == bounds.lower.shape[1:] == bounds.upper.shape[1:], f"shape of {kind} of {node}"
        gap = _outside(values[node], Interval(bounds.lower[index], bounds.upper[index]))
        worst = float(gap.max()) if gap.numel() else 0.0
        assert worst <= TOLERANCE, f"UNSOUND: {kind} of {node} is left by {worst:.3g}"


def _rows(classes: int) -> Tensor:
    """A spec of margins, single logits and a mixed row: `[1, K, classes]`."""
    eye = torch.eye(classes, dtype=torch.float64)
    mixed = draws(5)(1, classes)
    return torch.cat([eye[:1] - eye[1:], eye[-1:], mixed]).unsqueeze(0)


def _values(net: BoundedModel, t: Tensor, images: Tensor, spec: Tensor) -> dict[str, Tensor]:
    values = node_values(net.perturbed, net.center + net.radius * t, images)
    last = net.perturbed.graph.find_nodes(op="output")[0].args[0]
    values["output"] = (spec @ values[last.name].unsqueeze(2)).squeeze(2)
    return values


def _goals(claims: Any, values: dict[str, Tensor], index: Tensor, climbs: int) -> list[tuple[str, int, int, float]]:
    """(node, image, unit, sign) to climb: for each node and side the unit nearest to its bound, and random ones."""
    tightest = {node: bounds for node, _, bounds in claims}
    goals = []
    for node, bounds in tightest.items():
        for image in range(len(bounds.lower)):
            seen = values[node][index == image].flatten(1)
            lower, upper = bounds.lower[image].flatten(), bounds.upper[image].flatten()
            width = (upper - lower).clamp(min=1e-12)
            near = int(((upper - seen.amax(0)) / width).argmin()), int(((seen.amin(0) - lower) / width).argmin())
            goals += [(node, image, near[0], 1.0), (node, image, near[1], -1.0)]
            units = torch.randint(0, len(lower), (climbs,)).tolist()
            goals += [(node, image, unit, sign) for unit in units for sign in (1.0, -1.0)]
    return goals


def _climb(net: BoundedModel, goals: list[tuple[str, int, int, float]], images: Tensor, spec: Tensor) -> Any:
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
        values = _values(net, t, images[index], spec[index])
        goal = sum((values[node].flatten(1)[rows, units[rows]] * signs[rows]).sum() for node, rows in by_node.items())
        (slope,) = torch.autograd.grad(goal, t)
        t = (t.detach() + step * slope.sign()).clamp(-1, 1)
        path.append(t.clone())
    return torch.cat(path), index.repeat(len(path))
