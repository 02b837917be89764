"""Walk the perturbed graph node by node and emit the bounds graph: an ordinary, printable `torch.fx.GraphModule`."""

from __future__ import annotations

from torch import fx

from robnet_fx.algebra import domains
from robnet_fx.bounds.anchors import anchors
from robnet_fx.bounds.emit import Emitter
from robnet_fx.bounds.methods import Method, method_named
from robnet_fx.bounds.plan import dependent_nodes, relaxed_nodes, report, unsupported, widest
from robnet_fx.bounds.weight_chains import chained
from robnet_fx.errors import UnsupportedOpError, UsageError
from robnet_fx.graphs import derive, prune
from robnet_fx.passes import FIELD
from robnet_fx.passes.base import arrived, is_perturbed
from robnet_fx.perturbations.base import Transform
from robnet_fx.rules import Rule, rule_for


def generate(perturbed: fx.GraphModule, method: str = "rsip-ssip") -> fx.GraphModule:
    """The bounds graph of a perturbed graph: `(image [B, *S], spec [B, K, classes]) -> (lower, upper) [B, K]`.

    It bounds `spec @ logits` over every coefficient in the box, by "ibp", "ssip", "rsip-ibp", "rsip-ssip" or "rsip".
    Nodes are named after the source node and the domain (`conv2d_1_ssip`, `relu_1_pre`); weights are the user's own.
    Raises `UnsupportedOpError` with every node that has no rule, and `UsageError` for an unknown method or a
    perturbation with too many coefficients for forward symbolic bounds.
    """
    return Generator(perturbed, method).bounds(two_sided=True)


class Generator:
    """Emits bounds graphs of one perturbed graph. The forward domains come first, then RSIP from the output back."""

    def __init__(self, perturbed: fx.GraphModule, method: str) -> None:
        if not is_perturbed(perturbed):
            raise UsageError("bounds are generated from a perturbed graph (coefficients, image) -> logits")
        self.method: Method = method_named(method)
        self.source = perturbed
        transform = getattr(perturbed, FIELD)
        assert isinstance(transform, Transform)
        self.transform = transform
        self.symbolic = self.method.symbolic and self._ssip_fits(method)
        self.dependent = dependent_nodes(perturbed)
        self.images = arrived(perturbed)
        refused = unsupported(perturbed)
        if refused:
            raise UnsupportedOpError(report(refused))
        self.relaxed = relaxed_nodes(self.dependent)
        self.anchors = anchors(perturbed, self.dependent, self.relaxed) if self.method.anchored else set()
        self.chained = chained(perturbed, self.dependent, self.relaxed)
        self.widest = widest(self.dependent)
        output = next(node for node in perturbed.graph.nodes if node.op == "output").args[0]
        assert isinstance(output, fx.Node)
        self.output = output
        if output not in self.dependent:
            raise UsageError("the logits do not depend on the image: there is nothing to bound")

    def _ssip_fits(self, method: str) -> bool:
        limit = self.transform.max_ssip_dimensions
        if limit is None or self.transform.dimensions <= limit:
            return True
        if self.method.everywhere:
            return False  # RSIP tightens every layer anyway; it then starts from IBP
        raise UsageError(
            f"method {method} carries one coefficient for each of {self.transform.dimensions} perturbed pixels and "
            f"stops at {limit}; use rsip-ibp"
        )

    def bounds(self, two_sided: bool) -> fx.GraphModule:
        """`(image, spec) -> (lower, upper)`, or only the upper bounds at half the cost."""
        emit = Emitter(self, fx.Graph())
        spec = emit.inputs("image", "spec")[1]
        emit.forward()
        rows = emit.call(domains.two_sided, "spec_rows", spec) if two_sided else spec
        upper = emit.backward(self.output, rows, self._stops())
        if two_sided:
            upper = emit.call(domains.split_sides, "bounds", upper)
            emit.graph.output((emit.item(upper, 0, "lower"), emit.item(upper, 1, "upper")))
        else:
            emit.graph.output(upper)
        return self.finish(emit, "Bounds")

    def intermediate(self) -> fx.GraphModule:
        """`image -> {canonical node: (lower, upper)}`: the `pre` used, by the name of the value it bounds."""
        emit = Emitter(self, fx.Graph())
        emit.inputs("image")
        emit.forward()
        emit.graph.output({node.name: pre for node, pre in emit.pre.items()})
        return self.finish(emit, "Intermediate")

    def probe(self) -> fx.GraphModule:
        """`image -> {canonical node: {domain: (lower, upper)}}` for every node, by "ibp", "ssip" and "pre"."""
        emit = Emitter(self, fx.Graph())
        emit.inputs("image")
        emit.forward()
        table: dict[str, dict[str, fx.Node]] = {}
        for node, interval in emit.ibp.items():
            table[node.name] = {"ibp": interval}
            if node in emit.ssip:
                table[node.name]["ssip"] = emit.call(domains.concretise, f"{node.name}_range", emit.ssip[node])
            if node in emit.pre:
                table[node.name]["pre"] = emit.pre[node]
        emit.graph.output(table)
        return self.finish(emit, "Probe")

    def finish(self, emit: Emitter, name: str) -> fx.GraphModule:
        """The emitted graph as a module over the sub-modules of the perturbed one."""
        prune(emit.graph)
        return derive(self.source, emit.graph, name, **emit.children)

    def _stops(self) -> set[fx.Node]:
        """Where the backward pass ends: at the field, or at the first non-affine nodes met on the way back."""
        return set() if self.method.backward else self.relaxed

    def rule(self, node: fx.Node) -> Rule:
        """The rule of a node that `unsupported` let through."""
        rule = rule_for(node.target, self.method.relaxer)
        assert rule is not None
        return rule
