"""What is settled before bounds are emitted: what depends on the perturbation, and where a method does what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import fx

from robnet_fx.bounds.dependence import Dependents, dependents, relaxed_nodes, widest
from robnet_fx.bounds.memory import ahead
from robnet_fx.bounds.methods import Method, Symbols, check_symbols, method_named
from robnet_fx.errors import UnsupportedOpError, UsageError
from robnet_fx.graphs import describe, has_batch, output_of
from robnet_fx.passes import ENTRY
from robnet_fx.passes.base import arrived, is_perturbed
from robnet_fx.passes.insert_perturbation import transform_of
from robnet_fx.perturbations.base import Transform
from robnet_fx.rules import Rule, rule_for


@dataclass(frozen=True, eq=False)
class Plan:
    """A perturbed graph that every rule can bound, and a method.

    `symbolic` says whether there is SSIP, `images` is the node that the perturbation reads, `output` that of the
    logits. `relaxed` are the nodes that are not affine. `symbols` are the error symbols that SSIP may keep of a sample.
    """

    perturbed: fx.GraphModule
    method: Method
    symbolic: bool
    dependent: Dependents
    relaxed: set[fx.Node]
    images: fx.Node
    output: fx.Node
    symbols: Symbols

    @property
    def transform(self) -> Transform:
        """The perturbation of this graph."""
        return transform_of(self.perturbed)

    @cached_property
    def widest(self) -> int:
        """Numbers of the largest value that is bounded."""
        return widest(self.dependent)

    @property
    def stops(self) -> set[fx.Node]:
        """Where the backward pass ends besides the perturbation: at the first relaxed nodes met on the way back."""
        return set() if self.method.backward else self.relaxed

    @cached_property
    def leans(self) -> bool:
        """Whether SSIP keeps symbols, so that it tells RSIP's last pass where lines shall be tight."""
        return self.method.backward and self.symbolic and bool(self.symbols)

    @property
    def columns(self) -> int | None:
        """The most columns that symbolic values may have, or None where memory is the limit."""
        return None if self.symbols == "all" else self.transform.dimensions + self.symbols

    @cached_property
    def ahead(self) -> dict[fx.Node, tuple[int, int]]:
        """What a sample holds from each node on, `memory.ahead`."""
        return ahead(self.dependent)

    def rule(self, node: fx.Node) -> Rule:
        """The rule of a node that `unsupported` let through."""
        rule = rule_for(node.target, self.method.relaxer)
        assert rule is not None
        return rule


def plan(perturbed: fx.GraphModule, method: str, symbols: Symbols = 0) -> Plan:
    """The plan of a perturbed graph `(coefficients, image) -> logits`, the method of that name, and so many error
    symbols.

    Raises `UnsupportedOpError` with every node that has no rule, and `UsageError` for another graph, an unknown method,
    or a perturbation with too many coefficients for forward symbolic bounds.
    """
    if not is_perturbed(perturbed):
        raise UsageError("bounds are generated from a perturbed graph (coefficients, image) -> logits")
    kind = method_named(method)
    check_symbols(symbols, method)
    symbolic = kind.symbolic and _ssip_fits(perturbed, method, kind, symbols)
    if refused := unsupported(perturbed):
        raise UnsupportedOpError(report(refused))
    dependent = dependents(perturbed)
    output = output_of(perturbed)
    if output not in dependent:
        raise UsageError("the logits do not depend on the image: there is nothing to bound")
    relaxed = relaxed_nodes(dependent)
    return Plan(perturbed, kind, symbolic, dependent, relaxed, arrived(perturbed), output, symbols)


def _ssip_fits(perturbed: fx.GraphModule, method: str, kind: Method, symbols: Symbols) -> bool:
    transform = transform_of(perturbed)
    if transform.fits_ssip:
        return True
    if kind.everywhere and not symbols:
        return False  # RSIP tightens every layer anyway; it then starts from IBP
    raise UsageError(
        f"method {method} carries one coefficient for each of {transform.dimensions} perturbed pixels and "
        f"stops at {transform.max_ssip_dimensions}; use {'no symbols' if kind.everywhere else 'rsip-ibp'}"
    )


def unsupported(perturbed: fx.GraphModule) -> list[tuple[fx.Node, str]]:
    """Every node that cannot be bounded, with the reason."""
    refused = []
    for node, inputs in dependents(perturbed).items():
        if node.name == ENTRY:
            continue
        rule = rule_for(node.target)
        reason = f"no bound rule for {node.target}" if rule is None else rule.refusal(node, inputs)
        if reason is None and "val" in node.meta and not has_batch(node):
            reason = "its result does not have the batch as first axis"
        if reason is not None:
            refused.append((node, reason))
    return refused


def report(refused: list[tuple[fx.Node, str]]) -> str:
    """The error message that lists every node without a rule."""
    kinds = sorted({str(node.target) for node, _ in refused})
    what = "cannot bound" if any(rule_for(node.target) for node, _ in refused) else "no bound rule for"
    head = f"{what} {', '.join(kinds)} ({len(refused)} node{'s' if len(refused) > 1 else ''})"
    remedy = "  remedy  replace the layer, or add a rule: docs/adding-an-op.md"
    return "\n".join([head, *(describe(node, reason) for node, reason in refused), remedy])
