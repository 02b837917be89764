"""How wide the bounds of every node are on images, by each method, and where they lose most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.domains import Interval
from robnet_fx.bounds import METHODS, generate, generator
from robnet_fx.bounds.dependence import dependents
from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.plan import plan
from robnet_fx.errors import UsageError
from robnet_fx.graphs import numel, shape_of
from robnet_fx.inspect.errors import NodeErrors, Shares, errors
from robnet_fx.inspect.origin import generated_nodes
from robnet_fx.inspect.stages import operation_name, shape_text
from robnet_fx.rules import rule_for

BLOW_UP, MOST = 2.0, 5
"""A node blows up when its bounds, as a multiple of the range seen on sampled fields, are at least this many times as
wide as those of its inputs: there the bounds lose, not the network grow. No more nodes than `MOST` are marked."""

_SAMPLES, _CHUNK = 128, 32  # fields, half of them corners of the box; how many at once
_CHEAP = 3e8  # rows times numbers that full RSIP may cost before it has to be asked for


@dataclass(frozen=True)
class NodeWidths:
    """The mean width `upper - lower` of a node's bounds by domain, None where there is none.

    `ibp` is plain interval arithmetic, `ssip` the forward symbolic bounds, `pre` what the chosen method's relaxations
    of this value stand on; `rsip_ibp`, `rsip_ssip` and `rsip` are the same for these methods. Where there is SSIP it
    keeps as many error symbols as the net does, and `errors` says what they are and what its width is made of.
    `sampled` is the mean range over sampled fields, a lower limit of any width; `growth` how much (best width /
    sampled) grew over the node's inputs, and `blow_up` whether that is remarkable (`BLOW_UP`). `unstable` is the share
    of units that a relaxation of this value has to relax. `rule` is the rule that bounds the node, `generated` the
    nodes of the bounds graph that belong to it, `inputs` the source nodes it reads that depend on the coefficients.
    """

    name: str
    operation: str
    rule: str
    shape: str
    layer: str
    units: int
    inputs: tuple[str, ...]
    generated: tuple[str, ...]
    ibp: float | None
    ssip: float | None
    pre: float | None
    rsip_ibp: float | None
    rsip_ssip: float | None
    rsip: float | None
    sampled: float
    unstable: float | None
    growth: float | None
    blow_up: bool
    errors: NodeErrors | None


@dataclass(frozen=True)
class Survey:
    """The nodes in graph order; `logits` has for each method that was computed the mean width of its logits' bounds,
    and `margins` what the width of the margins by SSIP is made of, None without SSIP (`errors.py`)."""

    method: str
    symbols: Symbols
    nodes: list[NodeWidths]
    logits: dict[str, float]
    margins: Shares | None


@torch.no_grad()
def survey(net: BoundedModel, images: Tensor, full: bool | None = None) -> Survey:
    """Measure every bound of `net` on `images [B, *S]`: by IBP, SSIP, the method of `net`, and full RSIP.

    `full` says whether full RSIP is computed; by default where it is cheap, or is the method of `net`.
    """
    if full is None:
        full = net.method == "rsip" or full_cost(net) <= _CHEAP
    tables = dict(_probes(net, images, full))
    sampled = _sampled(net, images)
    chosen = tables[net.method]
    generated = generated_nodes(net.get_submodule("bounds"), set(chosen))  # type: ignore[arg-type]
    known = errors(net, images)
    nodes: list[NodeWidths] = []
    looseness: dict[str, float] = {}
    for node, sources in dependents(net.perturbed).items():
        width = _widths(node.name, tables, chosen)
        inputs = tuple(dict.fromkeys(source.name for source in sources))
        best = min(float((upper - lower).mean()) for lower, upper in chosen[node.name].values())
        looseness[node.name] = best / sampled[node.name] if sampled[node.name] > 0 else math.nan
        before = max((looseness[name] for name in inputs), default=math.nan)
        growth = looseness[node.name] / before if before > 0 else math.nan
        nodes.append(
            NodeWidths(
                node.name,
                operation_name(node.target),
                _rule(node),
                shape_text(shape_of(node)),
                _layer(node),
                numel(node),
                inputs,
                tuple(generated.get(node.name, ())),
                **width,
                sampled=sampled[node.name],
                unstable=_unstable(node, chosen[node.name]["pre"]) if "pre" in chosen[node.name] else None,
                growth=None if math.isnan(growth) else growth,
                blow_up=False,
                errors=None if known is None else known.nodes[node.name],
            )
        )
    margins = None if known is None else known.margins
    return Survey(net.method, net.symbols, _marked(nodes), _logits(net, images, full), margins)


def _marked(nodes: list[NodeWidths]) -> list[NodeWidths]:
    """The nodes with those marked that lose most."""
    growths = sorted((node.growth for node in nodes if node.growth is not None), reverse=True)
    least = max([BLOW_UP, *growths[MOST - 1 : MOST]])
    return [replace(node, blow_up=node.growth is not None and node.growth >= least) for node in nodes]


def full_cost(net: BoundedModel) -> float:
    """What full RSIP costs: for each value it bounds, rows times the numbers between it and the field."""
    cost, before = 0.0, 0
    for node in net.perturbed.graph.nodes:
        if node.op != "call_function" or "shape" not in node.meta:
            continue
        before += numel(node)
        rules = [rule_for(user.target) for user in node.users]
        if any(rule is not None and not rule.affine for rule in rules):
            cost += 2.0 * numel(node) * before
    return cost


def _probes(net: BoundedModel, images: Tensor, full: bool) -> Iterator[tuple[str, dict[str, dict[str, Interval]]]]:
    """Method -> its probe, for the methods whose forward bounds differ."""
    for method in dict.fromkeys(("ibp", "rsip-ssip", net.method, *(["rsip"] if full else []))):
        try:
            yield method, generator.probe(plan(net.perturbed, method, _symbols(net, method)))(images)
        except UsageError:  # too many coefficients for SSIP
            if method == net.method:
                raise


def _symbols(net: BoundedModel, method: str) -> Symbols:
    """As many as the net keeps, where the method can."""
    return net.symbols if METHODS[method].symbolic else 0


def _widths(
    name: str, tables: dict[str, dict[str, dict[str, Interval]]], chosen: dict[str, dict[str, Interval]]
) -> dict[str, float | None]:
    def mean(table: dict[str, dict[str, Interval]] | None, domain: str) -> float | None:
        bounds = (table or {}).get(name, {}).get(domain)
        return None if bounds is None else float((bounds.upper - bounds.lower).mean())

    return {
        "ibp": mean(tables["ibp"], "ibp"),
        "ssip": mean(tables.get("rsip-ssip"), "ssip"),
        "pre": mean(chosen, "pre"),
        "rsip_ibp": mean(tables["ibp"], "pre"),  # what RSIP-IBP stands on is what IBP stands on
        "rsip_ssip": mean(tables.get("rsip-ssip"), "pre"),
        "rsip": mean(tables.get("rsip"), "pre"),
    }


def _logits(net: BoundedModel, images: Tensor, full: bool) -> dict[str, float]:
    """The mean width of the logits themselves, by every method."""
    spec = torch.eye(net.classes, dtype=images.dtype, device=images.device).expand(len(images), -1, -1)
    found = {}
    for method, kind in METHODS.items():
        if kind.by_rows and not full and method != net.method:
            continue
        try:
            lower, upper = generate(net.perturbed, method, _symbols(net, method))(images, spec)
        except UsageError:
            continue
        found[method] = float((upper - lower).mean())
    return found


class _Ranges(fx.Interpreter):
    """Runs the perturbed graph and notes the ends of every value over each image's samples."""

    def __init__(self, graph: fx.GraphModule, images: int) -> None:
        super().__init__(graph)
        self.images, self.ranges = images, {}  # type: ignore[var-annotated]

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.shape[:1] == (self.images * _CHUNK,):
            parts = value.unflatten(0, (self.images, _CHUNK))
            ends = parts.amin(1), parts.amax(1)
            if n.name in self.ranges:
                old = self.ranges[n.name]
                ends = torch.minimum(old[0], ends[0]), torch.maximum(old[1], ends[1])
            self.ranges[n.name] = ends
        return value


def _sampled(net: BoundedModel, images: Tensor) -> dict[str, float]:
    """The mean range of every value over fields drawn from the box, half of them from its corners; 0 for rounding."""
    runner = _Ranges(net.perturbed, len(images))
    generator = torch.Generator().manual_seed(0)
    many = images.repeat_interleave(_CHUNK, 0)
    for chunk in range(_SAMPLES // _CHUNK):
        t = torch.rand(len(many), len(net.center), generator=generator) * 2 - 1
        t = t.sign() if chunk % 2 else t
        runner.run(net.center + net.radius * t.to(net.center), many)
    found = {}
    for name, (lower, upper) in runner.ranges.items():
        width, size = float((upper - lower).mean()), float(torch.maximum(lower.abs(), upper.abs()).mean())
        noise = 16 * torch.finfo(lower.dtype).eps * size  # below it rounding moves the value, not the field
        found[name] = width if width > noise else 0.0
    return found


def _rule(node: fx.Node) -> str:
    rule = rule_for(node.target)
    return rule.name if rule is not None else node.name


def _layer(node: fx.Node) -> str:
    layer, kind = node.meta.get("layer", ("", ""))
    return f"{layer} ({kind})" if kind else str(layer)


def _unstable(node: fx.Node, pre: Any) -> float | None:
    """The share of units that some operation reading this value must relax."""
    marks = []
    for user in node.users:
        rule = rule_for(user.target)
        if rule is not None and not rule.affine and user.args[0] is node:
            marks.append(rule.unstable(pre, *user.args[1:], **user.kwargs))
    return float(torch.stack([mark.double().mean() for mark in marks]).amax()) if marks else None
