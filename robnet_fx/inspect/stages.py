"""The graphs on the way from a network to its bounds, node by node as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from robnet_fx.algebra.domains import InputShape
from robnet_fx.bounds import generate, unsupported
from robnet_fx.bounds.methods import Symbols
from robnet_fx.errors import UsageError
from robnet_fx.frontend import trace
from robnet_fx.frontend.outputs import Name
from robnet_fx.graphs import MODEL
from robnet_fx.images.layout import Layout
from robnet_fx.machine.torch_internals import Operator
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Problem

STAGES = ("source", "passes", "bounds")


@dataclass(frozen=True)
class NodeLine:
    """One node as text: its operation, what it reads, its shape, the layer and source line it came from, and, if it
    cannot be bounded, why (`problem`)."""

    name: str
    operation: str
    inputs: str
    shape: str
    layer: str
    source: str
    problem: str


def stage_graph(
    model: nn.Module | str | Path,
    stage: str,
    perturbation: Perturbation,
    method: str = "rsip-ssip",
    clip: str | None = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    example: Tensor | None = None,
    output: Name = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
    symbols: Symbols = 0,
) -> fx.GraphModule:
    """The graph of a stage: "source" (canonical), "passes" (perturbed) or "bounds" (generated).

    The first two need no bound rules, so they show a network that cannot be bounded, too. Arguments are `bound`'s.
    """
    canonical = trace(model, example, output, layout, flat)
    return stage_of(canonical, stage, Problem(perturbation, clip, mean, std), method, symbols)


def stage_of(
    canonical: fx.GraphModule,
    stage: str,
    problem: Problem,
    method: str = "rsip-ssip",
    symbols: Symbols = 0,
) -> fx.GraphModule:
    """`stage_graph` of a canonical graph."""
    if stage not in STAGES:
        raise UsageError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    if stage == "source":
        return canonical
    graph = perturb(clean(canonical, problem.mean, problem.std), problem.perturbation, problem.clip)
    return graph if stage == "passes" else generate(graph, method, symbols)


def node_lines(graph: fx.GraphModule, stage: str) -> list[NodeLine]:
    """Every node but the weights, which are named where they are read."""
    problems = dict(unsupported(graph)) if stage == "passes" else {}
    return [_line(node, problems.get(node, "")) for node in graph.graph.nodes if node.op != "get_attr"]


def operation_name(target: Any) -> str:
    """`aten.conv2d.default`, `rules.relu.ssip`: the operation as a person would say it."""
    if isinstance(target, str):
        return target
    if isinstance(target, Operator):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}".removeprefix("robnet_fx.").removeprefix("_operator.")


def _line(node: fx.Node, problem: str) -> NodeLine:
    layer, kind = node.meta.get("layer", ("", ""))
    shape = shape_text(node.meta["shape"]) if "shape" in node.meta else ""
    operation = operation_name(node.target) if node.op.startswith("call") else node.op
    inputs = ", ".join([*map(_text, node.args), *(f"{key}={_text(value)}" for key, value in node.kwargs.items())])
    described = f"{layer} ({kind})" if kind else layer
    place = (node.meta.get("source") or "").partition(" ")[0]
    return NodeLine(node.name, operation, inputs, shape, described, place, problem)


def _text(argument: Any) -> str:
    if isinstance(argument, fx.Node):
        return str(argument.target).removeprefix(f"{MODEL}.") if argument.op == "get_attr" else argument.name
    if isinstance(argument, InputShape):
        return shape_text(argument.dims)
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in argument.items()) + "}"
    if isinstance(argument, (list, tuple)):
        return "[" + ", ".join(map(_text, argument)) + "]"
    return str(argument)


def shape_text(sizes: Sequence[int]) -> str:
    """[B, 16, 8, 8]"""
    return f"[{', '.join(['B', *map(str, sizes)])}]"
