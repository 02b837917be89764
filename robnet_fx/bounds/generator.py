"""A plan to bounds graphs: ordinary, printable `torch.fx.GraphModule`s that bound any batch of images over any box.

Every one takes `(image [B, *S], ..., center=None, radius=None)`; the box is `[1 or B, D]`, or where it is None the
default one in the buffers that `set_eps` moves. Nodes are named after the source node and the domain (`conv2d_1_ssip`,
`relu_1_pre`); weights are the user's own.
"""

from __future__ import annotations

from torch import fx

from robnet_fx.algebra import domains, makeup, symbols
from robnet_fx.bounds.emit import Emitter
from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.plan import Plan, plan


def generate(perturbed: fx.GraphModule, method: str = "rsip-ssip", symbols: Symbols = 0) -> fx.GraphModule:
    """The bounds graph of a perturbed graph: `(image [B, *S], spec [B, K, classes], center=None, radius=None) ->
    (lower, upper) [B, K]`.

    It bounds `spec @ logits` over every coefficient in the box, by "ibp", "ssip", "rsip-ibp", "rsip-ssip"
    or "rsip", and SSIP keeps `symbols` errors of a sample. Raises `UnsupportedOpError` with every node
    that has no rule, and `UsageError` for an unknown method or a perturbation with too many coefficients for forward
    symbolic bounds.
    """
    return bounds(plan(perturbed, method, symbols))


def bounds(plan: Plan) -> fx.GraphModule:
    """`(image, spec, center, radius) -> (lower, upper)`, both `[B, K]`."""
    emit = Emitter(plan)
    (spec,) = emit.inputs("spec")
    emit.forward()
    upper = emit.margins(emit.call(domains.two_sided, "spec_rows", spec))
    sides = emit.call(domains.split_sides, "bounds", upper)
    return emit.finished("Bounds", (emit.item(sides, 0, "lower"), emit.item(sides, 1, "upper")))


def upper(plan: Plan) -> fx.GraphModule:
    """`(image, spec, center, radius) -> upper [B, K]`: the upper bounds alone, at half the cost."""
    emit = Emitter(plan)
    (spec,) = emit.inputs("spec")
    emit.forward()
    return emit.finished("Upper", emit.margins(spec))


def branch(plan: Plan) -> fx.GraphModule:
    """`(image, spec, center, radius, pre) -> (upper [B, K], g [B, K, D], c [B, K], pre)`, of a method with a backward
    pass.

    g and c are a form that lies above each margin, in physical coordinates. `pre` is a dictionary of bounds
    by canonical node name: what is known of a box around this one, or None, and what this one adds to it.
    """
    emit = Emitter(plan)
    (spec,) = emit.inputs("spec")
    emit.known = emit.graph.placeholder("pre", default_value=None)
    emit.forward()
    form, upper = emit.form_and_margins(spec)
    table = {node.name: pre for node, pre in emit.pre.items()}
    return emit.finished("Branch", (upper, emit.item(form, 0, "g"), emit.item(form, 1, "c"), table))


def influence(plan: Plan) -> fx.GraphModule:
    """`(image, center, radius) -> [B, D]`, of a method with SSIP: how much each coefficient moves the first value that
    is relaxed."""
    emit = Emitter(plan)
    emit.inputs()
    emit.forward()
    first = next((sources[0] for node, sources in plan.dependent.items() if node in plan.relaxed), plan.output)
    return emit.finished("Influence", emit.call(domains.influence, f"{first.name}_influence", emit.ssip[first]))


def intermediate(plan: Plan) -> fx.GraphModule:
    """`(image, center, radius) -> {canonical node: (lower, upper)}`: the `pre` used, by the value that it bounds."""
    emit = Emitter(plan)
    emit.inputs()
    emit.forward()
    return emit.finished("Intermediate", {node.name: pre for node, pre in emit.pre.items()})


def probe(plan: Plan) -> fx.GraphModule:
    """`(image, center, radius) -> {canonical node: {domain: (lower, upper)}}`, by "ibp", "ssip" and "pre"."""
    emit = Emitter(plan)
    emit.inputs()
    emit.forward()
    table: dict[str, dict[str, fx.Node]] = {}
    for node, interval in emit.ibp.items():
        table[node.name] = {"ibp": interval}
        if node in emit.ssip:
            with emit.graph.inserting_after(emit.ssip[node]):  # the value need not be kept until the end
                table[node.name]["ssip"] = emit.call(domains.concretise, f"{node.name}_range", emit.ssip[node])
        if node in emit.pre:
            table[node.name]["pre"] = emit.pre[node]
    return emit.finished("Probe", table)


def errors(plan: Plan) -> fx.GraphModule:
    """`(image, spec, center, radius) -> (parts, rows, births)` of a method with SSIP: where its widths come from.

    `parts` has the `Makeup` of every canonical node's SSIP, `rows` is `spec @ logits` as a symbolic value of shape K,
    and `births` says of every relaxed node, in their order, which columns have become symbols of its own errors.
    """
    emit = Emitter(plan)
    (spec,) = emit.inputs("spec")
    emit.forward()
    parts = {}
    for node, value in emit.ssip.items():
        with emit.graph.inserting_after(value):  # as above
            parts[node.name] = emit.call(makeup.makeup, f"{node.name}_parts", value, plan.transform.dimensions)
    logits = [(plan.output, emit.call(domains.form_of, "spec_rows", spec))]
    rows = emit.symbolic(logits, "rows")
    births = {}
    for born in emit.graph.find_nodes(op="call_function", target=symbols.born):
        relaxed, value = born.args[0], next(user for user in born.users if user.args[1] == 0)
        with emit.graph.inserting_after(value):
            births[born.name.removesuffix("_born")] = emit.call(makeup.born, f"{born.name}_columns", relaxed, value)
    return emit.finished("Errors", (parts, rows, births))
