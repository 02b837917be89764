"""Looking inside: the graphs on the way from a network to its bounds, and how wide the bounds are on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.bounded import BoundedModel
from robnet_fx.domains import Shape
from robnet_fx.errors import UsageError
from robnet_fx.frontend import trace
from robnet_fx.generate import generate, unsupported
from robnet_fx.graphs import MODEL
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbation import Perturbation
from robnet_fx.rules import rule_for

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


@dataclass(frozen=True)
class NodeWidths:
    """The mean width `upper - lower` of a node's bounds by domain, None where the method has none.

    `pre` is what relaxations of this value stand on; `unstable` the share of its units that they have to relax.
    """

    name: str
    operation: str
    units: int
    ibp: float | None
    ssip: float | None
    pre: float | None
    unstable: float | None


def stage_graph(
    model: nn.Module | str | Path,
    stage: str,
    perturbation: Perturbation,
    method: str = "rsip-ssip",
    clip: str | None = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    example: Tensor | None = None,
) -> fx.GraphModule:
    """The graph of a stage: "source" (canonical), "passes" (perturbed) or "bounds" (generated).

    The first two need no bound rules, so they show a network that cannot be bounded, too. Arguments are `bound`'s.
    """
    if stage not in STAGES:
        raise UsageError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    graph = trace(model, example)
    if stage == "source":
        return graph
    graph = perturb(clean(graph, mean, std), perturbation, clip)
    return graph if stage == "passes" else generate(graph, method)


def node_lines(graph: fx.GraphModule, stage: str) -> list[NodeLine]:
    """Every node but the weights, which are named where they are read."""
    problems = dict(unsupported(graph)) if stage == "passes" else {}
    return [_line(node, problems.get(node, "")) for node in graph.graph.nodes if node.op != "get_attr"]


@torch.no_grad()
def node_widths(net: BoundedModel, images: Tensor) -> list[NodeWidths]:
    """How wide the bounds of every node are on average over `images [B, *S]`, in graph order."""
    found = net.probe(images)
    lines = []
    for node in net.perturbed.graph.nodes:
        if node.name not in found:
            continue
        bounds = found[node.name]
        width = {domain: float((upper - lower).mean()) for domain, (lower, upper) in bounds.items()}
        lines.append(
            NodeWidths(
                node.name,
                operation_name(node.target),
                bounds["ibp"].lower[0].numel(),
                width.get("ibp"),
                width.get("ssip"),
                width.get("pre"),
                _unstable(node, bounds["pre"]) if "pre" in bounds else None,
            )
        )
    return lines


def operation_name(target: Any) -> str:
    """`aten.conv2d.default`, `rules.relu.ssip`: the operation as a person would say it."""
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}".removeprefix("robnet_fx.").removeprefix("_operator.")


def _line(node: fx.Node, problem: str) -> NodeLine:
    layer, kind = node.meta.get("layer", ("", ""))
    shape = _shape(node.meta["shape"]) if "shape" in node.meta else ""
    operation = operation_name(node.target) if node.op.startswith("call") else node.op
    inputs = ", ".join([*map(_text, node.args), *(f"{key}={_text(value)}" for key, value in node.kwargs.items())])
    described = f"{layer} ({kind})" if kind else layer
    place = (node.meta.get("source") or "").partition(" ")[0]
    return NodeLine(node.name, operation, inputs, shape, described, place, problem)


def _text(argument: Any) -> str:
    if isinstance(argument, fx.Node):
        return str(argument.target).removeprefix(f"{MODEL}.") if argument.op == "get_attr" else argument.name
    if isinstance(argument, Shape):
        return _shape(argument.dims)
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in argument.items()) + "}"
    if isinstance(argument, (list, tuple)):
        return "[" + ", ".join(map(_text, argument)) + "]"
    return str(argument)


def _shape(sizes: Sequence[int]) -> str:
    return f"[{', '.join(['B', *map(str, sizes)])}]"


def _unstable(node: fx.Node, pre: Any) -> float | None:
    """The share of units that some operation reading this value must relax."""
    marks = []
    for user in node.users:
        rule = rule_for(user.target)
        if rule is not None and not rule.affine and user.args[0] is node:
            marks.append(rule.unstable(pre, *user.args[1:], **user.kwargs))
    return float(torch.stack([mark.double().mean() for mark in marks]).amax()) if marks else None
