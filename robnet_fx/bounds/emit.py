"""The emission of one bounds graph: forward domains node by node, then RSIP from a value back to the entry."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

from robnet_fx.algebra import domains, symbols
from robnet_fx.algebra.domains import InputShape
from robnet_fx.bounds.plan import Plan
from robnet_fx.bounds.rows import Rows, Tightened, Unstable
from robnet_fx.graphs import derive, prune, shape_of
from robnet_fx.passes import ENTRY
from robnet_fx.perturbations.base import Box
from robnet_fx.rules import Rule
from robnet_fx.rules.relaxation import every_unit


class Emitter:
    """One graph in the making, with the bounds emitted so far by source node.

    `box` is its center and radius, and `known` the `pre` of boxes around it, where the graph takes them. `used` counts
    the error symbols born so far, and `births` tells of a source node's SSIP how many nodes gave birth to those it has.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = fx.Graph()
        self.constants: dict[fx.Node, fx.Node] = {}
        self.ibp: dict[fx.Node, fx.Node] = {}
        self.ssip: dict[fx.Node, fx.Node] = {}
        self.pre: dict[fx.Node, fx.Node] = {}
        self.children: dict[str, Rows] = {}
        self.parts: list[fx.Node] = []
        self.used: fx.Node | None = None
        self.births: dict[fx.Node, int] = {}
        self.known: fx.Node | None = None
        self.box: list[fx.Node]
        self.image: fx.Node

    def inputs(self, *names: str) -> list[fx.Node]:
        """`image`, what is named, and the box; where none is given the default box is used."""
        self.image, *made = (self.graph.placeholder(name) for name in ("image", *names))
        given = [self.graph.placeholder(name, default_value=None) for name in Box._fields]
        defaults = [self.graph.get_attr(f"{ENTRY}.{name}") for name in Box._fields]
        self.box = [
            self.call(domains.or_default, f"box_{name}", *pair)
            for name, *pair in zip(Box._fields, given, defaults, strict=True)
        ]
        return made

    def finished(self, name: str, result: Any) -> fx.GraphModule:
        """The graph as a module over the sub-modules of the perturbed one."""
        self.graph.output(result)
        prune(self.graph)
        return derive(self.plan.perturbed, self.graph, name, **self.children)

    def call(self, target: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.create_node("call_function", target, args, kwargs, name=name)

    def item(self, value: fx.Node, index: int, name: str) -> fx.Node:
        return self.call(operator.getitem, name, value, index)

    def constant(self, node: fx.Node) -> fx.Node:
        """A node that does not depend on the coefficients, copied with all it reads."""
        if node.op == "placeholder":
            return self.image
        if node not in self.constants:
            self.constants[node] = self.graph.node_copy(node, self.constant)
        return self.constants[node]

    def arguments(self, node: fx.Node, bounded: Callable[[fx.Node], Any]) -> tuple[Any, dict[str, Any]]:
        """The node's arguments with bounded inputs as `bounded` gives them and constants copied."""

        def place(arg: Any) -> Any:
            if isinstance(arg, fx.Node):
                return bounded(arg) if arg in self.plan.dependent else self.constant(arg)
            if isinstance(arg, (list, tuple)):
                return type(arg)(place(a) for a in arg)
            return arg

        return place(node.args), {key: place(value) for key, value in node.kwargs.items()}

    def entry_arguments(self) -> list[fx.Node]:
        """The image and the perturbation's tensors."""
        if not self.parts:
            self.parts = [self.graph.get_attr(f"{ENTRY}.{name}") for name in self.plan.transform.part_names]
        return [self.constant(self.plan.images), *self.parts]

    def forward(self) -> None:
        """IBP and, where the method asks for it, SSIP for every node, and `pre` before every non-affine one."""
        for node in self.plan.dependent:
            if node.name == ENTRY:
                args = [*self.entry_arguments(), *self.box]
                self.ibp[node] = self.call(self.plan.transform.rules.ibp, f"{node.name}_ibp", *args)
                if self.plan.symbolic:
                    self.ssip[node] = self.call(self.plan.transform.rules.ssip, f"{node.name}_ssip", *args)
                    self.births[node] = 0
                continue
            rule = self.plan.rule(node)
            extra = {} if rule.affine else {"pre": self.before(node)}
            bounds = self.ibp if rule.affine else self.pre
            args_, kwargs = self.arguments(node, bounds.__getitem__)
            self.ibp[node] = self.call(rule.ibp, f"{node.name}_ibp", *args_, **kwargs)
            if self.plan.symbolic:
                self.ssip[node] = self.forward_symbolic(node, rule, extra)

    def forward_symbolic(self, node: fx.Node, rule: Rule, extra: dict[str, Any]) -> fx.Node:
        """SSIP of a node, and of one that is relaxed with its errors as symbols."""
        aligned = self.aligned(self.plan.dependent[node])
        args, kwargs = self.arguments(node, aligned.__getitem__)
        born = bool(self.plan.symbols) and not rule.affine
        made = self.call(rule.ssip, f"{node.name}_{'relaxed' if born else 'ssip'}", *args, **kwargs, **extra)
        self.births[node] = max(self.births[source] for source in aligned)
        if not born:
            return made
        if self.used is None:
            self.used = self.call(symbols.unused, "used", made)
        both = self.call(symbols.born, f"{node.name}_born", made, self.used, self.plan.columns(node))
        self.used = self.item(both, 1, f"{node.name}_used")
        self.births[node] = 1 + max(self.births.values())
        return self.item(both, 0, f"{node.name}_ssip")

    def aligned(self, values: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
        """SSIP of values that meet, each with the columns of the one that was made last."""
        last = max(values, key=self.births.__getitem__)
        return {
            value: self.ssip[value]
            if self.births[value] == self.births[last]
            else self.call(symbols.padded, f"{value.name}_padded", self.ssip[value], self.ssip[last])
            for value in values
        }

    def before(self, node: fx.Node) -> Any:
        """`pre` of a non-affine node's input, made where it does not exist yet; a tuple where it has several."""
        sources = self.plan.dependent[node]
        for value in sources:
            if value not in self.pre:
                pre = self.ibp[value]
                if self.plan.symbolic:
                    pre = self.call(domains.intersect, f"{node.name}_pre", pre, self.ssip[value])
                pre = self.narrowed(node, value, pre)
                if self.plan.method.everywhere:
                    pre = self.narrowed(node, value, self.tightened(node, value, pre))
                self.pre[value] = pre
        return self.before_all(sources)

    def narrowed(self, node: fx.Node, value: fx.Node, pre: fx.Node) -> fx.Node:
        """`pre` within what is known of the value already."""
        if self.known is None:
            return pre
        return self.call(domains.narrowed, f"{node.name}_pre", pre, self.known, value.name)

    def before_all(self, sources: list[fx.Node]) -> Any:
        """The `pre` of a node's bounded inputs as its rule takes them."""
        pres = tuple(self.pre[value] for value in sources)
        return pres[0] if len(pres) == 1 else pres

    def tightened(self, node: fx.Node, value: fx.Node, pre: fx.Node) -> fx.Node:
        """`pre` intersected with RSIP from this value back to the entry."""
        inner = Emitter(self.plan)
        inner.image, rows, *inner.box = (inner.graph.placeholder(name) for name in ("image", "rows", *Box._fields))
        inner.pre = {before: inner.graph.placeholder(f"{before.name}_pre") for before in self.pre}
        graph = inner.finished("Rsip", inner.backward(value, rows, set()))
        child = f"rsip_{value.name}"
        self.children[child] = Tightened(graph, self.plan.widest, self.unstable(node))
        args = (self.image, pre, *self.box, *self.pre.values())
        return self.graph.create_node("call_module", child, args, name=f"{node.name}_rsip_pre")

    def unstable(self, node: fx.Node) -> Callable[[domains.Interval], Tensor]:
        """Which units of the node's input are worth tightening."""
        args, kwargs = node.args[1:], dict(node.kwargs)
        if any(isinstance(arg, fx.Node) for arg in (*args, *kwargs.values())):
            return every_unit
        return Unstable(node.target, self.plan.method.relaxer, args, kwargs)

    def margins(self, rows: fx.Node) -> fx.Node:
        """The upper bound `[B, K]` of `rows @ logits`; beside RSIP's the one of SSIP, where that keeps symbols."""
        start = self.plan.output
        upper = self.backward(start, rows, self.plan.stops)
        if not (self.plan.method.backward and self.plan.symbolic and self.plan.symbols):
            return upper
        form = self.call(domains.form_of, "by_ssip", rows)
        own = self.call(domains.upper_by_symbolic, "by_ssip", self.symbolic([(start, form)], "by_ssip"))
        return self.call(domains.tighter, "upper", upper, own)

    def backward(self, start: fx.Node, rows: fx.Node, stops: set[fx.Node]) -> fx.Node:
        """The upper bound `[B, K]` of `rows @ value of start`, rows being `[B, K, *S]`."""
        return self.concluded(self.pulled(start, rows, stops))

    def pulled(self, start: fx.Node, rows: fx.Node, stops: set[fx.Node]) -> list[tuple[fx.Node, fx.Node]]:
        """Where `rows @ value of start` ends, at the stops and the entry, and the form it is there."""
        pending: dict[fx.Node, list[fx.Node]] = {start: [self.call(domains.form_of, f"{start.name}_rsip", rows)]}
        ends: list[tuple[fx.Node, fx.Node]] = []
        for node in reversed(self.plan.dependent):
            if node not in pending:
                continue
            form = self.merged(node, pending.pop(node))
            if node in stops or node.name == ENTRY:
                ends.append((node, form))
                continue
            rule = self.plan.rule(node)
            sources = self.plan.dependent[node]
            args, kwargs = self.arguments(node, lambda n: InputShape(shape_of(n)))
            extra = {} if rule.affine else {"pre": self.before_all(sources)}
            made = self.call(rule.rsip, self._fresh(sources[0], pending), form, *args, **kwargs, **extra)
            if len(sources) > 1:
                parts = [self.item(made, i, self._fresh(source, pending)) for i, source in enumerate(sources)]
            else:
                parts = [made]
            for source, part in zip(sources, parts, strict=True):
                pending.setdefault(source, []).append(part)
        return ends

    def _fresh(self, node: fx.Node, pending: dict[fx.Node, list[fx.Node]]) -> str:
        """`<node>_rsip`, or with a part number where several paths meet."""
        meets = len([user for user in node.users if user in self.plan.dependent]) > 1
        return f"{node.name}_rsip_part" if meets else f"{node.name}_rsip"

    def merged(self, node: fx.Node, forms: list[fx.Node]) -> fx.Node:
        total = forms[0]
        for form in forms[1:]:
            total = self.call(domains.merge, f"{node.name}_rsip", total, form)
        return total

    def concluded(self, ends: list[tuple[fx.Node, fx.Node]]) -> fx.Node:
        """Bound the forms where they ended: over the box, or by the forward domain the method stands on."""
        if self.plan.method.backward:
            return self.call(domains.upper_over_box, "upper", self.over_coefficients(ends), *self.box)
        pieces = [self.call(domains.upper_by_interval, "by_ibp", form, self.ibp[node]) for node, form in ends]
        upper = self.total(operator.add, "by_ibp", pieces)
        if self.plan.symbolic:
            symbolic = self.call(domains.upper_by_symbolic, "by_ssip", self.symbolic(ends, "by_ssip"))
            upper = self.call(domains.tighter, "upper", upper, symbolic)
        return upper

    def over_coefficients(self, ends: list[tuple[fx.Node, fx.Node]]) -> fx.Node:
        """The form where RSIP ended, at the perturbation, as one over the coefficients."""
        ((_, form),) = ends
        return self.call(self.plan.transform.rules.rsip, "coefficients_rsip", form, *self.entry_arguments())

    def symbolic(self, ends: list[tuple[fx.Node, fx.Node]], name: str) -> fx.Node:
        """The forms as one symbolic value, from SSIP where they ended."""
        aligned = self.aligned([node for node, _ in ends])
        values = [self.call(domains.substitute, name, form, aligned[node]) for node, form in ends]
        return self.total(domains.add_symbolic, name, values)

    def total(self, add: Callable[..., Any], name: str, pieces: list[fx.Node]) -> fx.Node:
        sum_ = pieces[0]
        for piece in pieces[1:]:
            sum_ = self.call(add, name, sum_, piece)
        return sum_
