"""The dry run: how much of a network has bound rules, and what to do about the rest. Nothing is bounded here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from robnet_fx.bounds.dependence import dependents
from robnet_fx.bounds.memory import Memory, of_training, of_verdicts
from robnet_fx.bounds.plan import unsupported
from robnet_fx.bounds.remarks import remarks
from robnet_fx.frontend import trace
from robnet_fx.frontend.outputs import Name
from robnet_fx.frontend.places import source_line
from robnet_fx.graphs import MODEL, dtype_name, shape_of
from robnet_fx.images.layout import Layout
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Problem
from robnet_fx.rules import rule_for

_OURS = "robnet_fx"  # the kind of layer that passes give to the nodes they insert
_STACK_TRACE = "pkg.torch.onnx.stack_trace"  # where PyTorch's exporter leaves the source lines
_PACKAGES = re.compile(r'File "[^"\n]*-packages/[^\n]*\n[^\n]*\n?')  # frames of installed code, on any machine


@dataclass(frozen=True)
class Gap:
    """One node that cannot be bounded: where it is, why, and what helps. `layer` is a path in the model with its
    class, or the name of an ONNX node with its operator; `source` is `file:line    code`, empty if unknown."""

    node: str
    operation: str
    shape: str
    layer: str
    source: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Coverage:
    """Of `nodes` operations that depend on the image `bounded` have a rule; `gaps` are the others.

    `verdicts` and `training` estimate the memory of RSIP-SSIP bounds, as if there were no gaps, and `one_margin`
    that of training on one image with one margin at a time. `remarks` are what a report must say of the network, and
    `perturbed` is the graph that is bounded.
    """

    nodes: int
    bounded: int
    gaps: tuple[Gap, ...]
    verdicts: Memory
    training: Memory
    one_margin: Memory
    remarks: dict[str, str]
    perturbed: fx.GraphModule

    @property
    def share(self) -> float:
        """The share of the nodes that can be bounded."""
        return self.bounded / max(1, self.nodes)


def coverage(
    model: nn.Module | str | Path,
    perturbation: Perturbation,
    clip: str | None = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    example: Tensor | None = None,
    output: Name = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
) -> Coverage:
    """What `bound` with the same arguments would find, all of it at once instead of an `UnsupportedOpError`.

    Field and clip are not counted. Raises what `trace` raises for a network that cannot be read or traced.
    """
    return coverage_of(trace(model, example, output, layout, flat), Problem(perturbation, clip, mean, std))


def coverage_of(
    canonical: fx.GraphModule,
    problem: Problem,
) -> Coverage:
    """`coverage` of a canonical graph."""
    perturbed = perturb(clean(canonical, problem.mean, problem.std), problem.perturbation, problem.clip)
    counted = [node for node in dependents(perturbed) if node.meta.get("layer", ("", ""))[1] != _OURS]
    gaps = tuple(_gap(node, reason, perturbed) for node, reason in unsupported(perturbed))
    memory = of_verdicts(perturbed), of_training(perturbed), of_training(perturbed, rows=1)
    return Coverage(len(counted), len(counted) - len(gaps), gaps, *memory, remarks(canonical), perturbed)


def _gap(node: fx.Node, reason: str, perturbed: fx.GraphModule) -> Gap:
    path, kind = node.meta.get("layer", ("", ""))
    layer, source = (f"{path or '(top)'} ({kind})" if kind else path), node.meta.get("source") or ""
    place = _onnx_node(perturbed.get_submodule(MODEL), path)
    if place is not None:
        layer, source = f"{place.name or ', '.join(place.output)} (ONNX {place.op_type})", _onnx_source(place)
    shape = f"{dtype_name(node)}[{', '.join(['B', *map(str, shape_of(node))])}]"
    return Gap(node.name, str(node.target), shape, layer, source, reason, _remedy(node))


def _remedy(node: fx.Node) -> str:
    if rule_for(node.target) is None:
        return "replace the layer, or add a rule: docs/adding-an-op.md"
    return "the operation has a rule, this use of it has none: change the call, or extend the rule"


def _onnx_node(model: nn.Module, path: str) -> Any | None:
    """The node of an ONNX file that a layer was made from, where it was."""
    proto: Any = getattr(model, "proto", None)
    if proto is None or not path:
        return None
    name = getattr(model.get_submodule(path), "onnx_name", None)
    return next((node for node in proto.graph.node if name and node.name == name), None)


def _onnx_source(node: Any) -> str:
    """The line of Python that an ONNX node was exported from, where PyTorch's exporter has noted it."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    return source_line(_PACKAGES.sub("", notes.get(_STACK_TRACE, "")))
