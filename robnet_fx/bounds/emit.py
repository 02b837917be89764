"""The emission of one bounds graph: forward domains node by node, then RSIP from a value back to the entry."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

from robnet_fx.algebra import corners, domains, mixture, room, symbols
from robnet_fx.algebra.domains import InputShape
from robnet_fx.bounds.methods import OrNone
from robnet_fx.bounds.plan import Plan
from robnet_fx.bounds.rows import Tightened, Unstable
from robnet_fx.bounds.writer import Writer
from robnet_fx.graphs import shape_of
from robnet_fx.passes import ENTRY
from robnet_fx.perturbations.base import Box
from robnet_fx.rules import Rule
from robnet_fx.rules.relaxation import every_unit

_FURTHER = 2  # runs of RSIP for the margins where all layers have had rows; a third moves nothing


class Emitter(Writer):
    """A graph in the making, with the bounds emitted so far by source node.

    `known` is the `pre` of boxes around the box, where the graph takes them. `used` counts the columns that hold
    coefficients and error symbols by now, `room` is what memory holds of them, and `courses` has SSIP of what is
    relaxed without its errors.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.ibp: dict[fx.Node, fx.Node] = {}
        self.ssip: dict[fx.Node, fx.Node] = {}
        self.pre: dict[fx.Node, fx.Node] = {}
        self.courses: dict[fx.Node, fx.Node] = {}
        self.room: fx.Node | None = None
        self.known: fx.Node | None = None
        self.used: fx.Node

    def forward(self) -> None:
        """IBP and, where the method asks for it, SSIP for every node, and `pre` before every non-affine one."""
        for node in self.plan.dependent:
            if node.name == ENTRY:
                args = [*self.entry_arguments(), *self.box]
                self.ibp[node] = self.call(self.plan.transform.rules.ibp, f"{node.name}_ibp", *args)
                if self.plan.symbolic:
                    self.ssip[node] = self.call(self.plan.transform.rules.ssip, f"{node.name}_ssip", *args)
                    if self.plan.symbols:
                        self.used = self.call(symbols.in_use, f"{node.name}_used", self.ssip[node])
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
        if not born:
            return made
        live = self.live(node)
        others = tuple(self.ssip[value] for value in live)
        columns = (self.columns(node, made), self.plan.transform.dimensions)
        birth = symbols.born_or_none if isinstance(self.plan.symbols, OrNone) else symbols.born
        both = self.call(birth, f"{node.name}_born", made, self.used, *columns, others)
        value = self.item(both, 0, f"{node.name}_ssip")
        self.used = self.item(both, 1, f"{node.name}_used")
        if live:
            kept = self.item(both, 2, f"{node.name}_live")
            for index, other in enumerate(live):
                self.ssip[other] = self.item(kept, index, f"{other.name}_ssip")
        return value

    def columns(self, node: fx.Node, made: fx.Node) -> Any:
        """The most columns of a sample once the errors of a relaxed value `made` are symbols, all that memory holds."""
        if (most := self.plan.columns) is not None:
            return most
        if self.room is None:
            self.room = self.call(room.room, "room", made)
        fixed, each = self.plan.ahead[node]
        return self.call(room.columns, f"{node.name}_columns", made, self.used, self.room, fixed, each, node.name)

    def live(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose SSIP is still read once that of a node is made."""
        read = self.read_last()
        for later, sources in self.plan.dependent.items():
            if later not in self.ssip and later is not node:
                read.update(sources)
        return [value for value in self.ssip if value in read]

    def read_last(self) -> set[fx.Node]:
        """The nodes whose SSIP the rows of the spec meet: the logits, or where a method's way back ends."""
        read = {self.plan.output}
        if not self.plan.method.backward:
            for node, sources in reversed(self.plan.dependent.items()):
                if node in read - self.plan.stops and sources:
                    read.remove(node)
                    read.update(sources)
        return read

    def aligned(self, values: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
        """SSIP of values that meet, with symbols in columns of the same number."""
        meeting = list(dict.fromkeys(values))
        if not self.plan.symbols or len(meeting) == 1:
            return {value: self.ssip[value] for value in meeting}
        both = self.call(symbols.aligned, "aligned", *(self.ssip[value] for value in meeting))
        return {value: self.item(both, index, f"{value.name}_aligned") for index, value in enumerate(meeting)}

    def before(self, node: fx.Node) -> Any:
        """`pre` of a non-affine node's input, made where it does not exist yet; a tuple where it has several."""
        sources = self.plan.dependent[node]
        for value in sources:
            if value not in self.pre:
                pre = self.ibp[value]
                if self.plan.symbolic:
                    if value in self.plan.chained:
                        self.ssip[value] = self.composed(value)
                    pre = self.call(domains.intersect, f"{node.name}_pre", pre, self.ssip[value])
                pre = self.narrowed(node, value, pre)
                if self.plan.method.everywhere:
                    pre = self.narrowed(node, value, self.tightened(node, value, pre))
                self.pre[value] = pre
                if self.plan.leans:
                    d = self.plan.transform.dimensions
                    self.courses[value] = self.call(corners.course, f"{value.name}_course", self.ssip[value], d)
        return self.before_all(sources)

    def narrowed(self, node: fx.Node, value: fx.Node, pre: fx.Node) -> fx.Node:
        """`pre` within what is known of the value already."""
        if self.known is None:
            return pre
        return self.call(domains.narrowed, f"{node.name}_pre", pre, self.known, value.name)

    def composed(self, value: fx.Node) -> fx.Node:
        """SSIP of a value behind several weights in a row, these multiplied out first."""
        rows = self.call(domains.units_of, f"{value.name}_ssip", self.ssip[value])
        total = self.symbolic(self.pulled(value, rows, self.plan.relaxed), f"{value.name}_ssip")
        return self.call(domains.as_value, f"{value.name}_ssip", total, list(shape_of(value)))

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
        args = (self.image, pre, self.ssip.get(value), *self.box, *self.pre.values())
        return self.graph.create_node("call_module", child, args, name=f"{node.name}_rsip_pre")

    def unstable(self, node: fx.Node) -> Callable[[domains.Interval], Tensor]:
        """Which units of the node's input are worth tightening."""
        args, kwargs = node.args[1:], dict(node.kwargs)
        if any(isinstance(arg, fx.Node) for arg in (*args, *kwargs.values())):
            return every_unit
        return Unstable(node.target, self.plan.method.relaxer, args, kwargs)

    def margins(self, rows: fx.Node) -> fx.Node:
        """The upper bound `[B, K]` of `rows @ logits`."""
        if not self.plan.method.backward:
            return self.backward(self.plan.output, rows, self.plan.stops)
        _, upper = self.form_and_margins(rows)
        return upper

    def form_and_margins(self, rows: fx.Node) -> tuple[fx.Node, fx.Node]:
        """The form of `rows @ logits` over the coefficients, and its upper bound `[B, K]`, of a method with a backward
        pass. Where SSIP keeps symbols RSIP is run once more, its lines tight where the symbolic value of a row is
        highest: of the two forms the best mixture is kept, and beside its bound the symbolic value's own. Where every
        layer has had its rows, further runs cost next to nothing, and lean where the mixture so far is highest.
        """
        start = self.plan.output
        form = self.over_coefficients(self.pulled(start, rows, set()))
        if not self.plan.leans:
            return form, self.call(domains.upper_over_box, "upper", form, *self.box)
        own = self.symbolic([(start, self.call(domains.form_of, "spec_form", rows))], "spec_ssip")
        corner = self.call(corners.corner, "corner", own, self.plan.transform.dimensions)
        form = self.mixed(form, rows, corner)
        for _ in range(_FURTHER if self.plan.method.everywhere else 0):
            form = self.mixed(form, rows, self.call(mixture.corner, "highest", form))
        upper = self.call(domains.upper_over_box, "by_rsip", form, *self.box)
        return form, self.call(domains.tighter, "upper", upper, self.call(domains.upper_by_symbolic, "by_ssip", own))

    def mixed(self, form: fx.Node, rows: fx.Node, corner: fx.Node) -> fx.Node:
        """The best mixture of a form of `rows @ logits` and of RSIP's with lines that are tight at a corner."""
        leaning = self.over_coefficients(self.pulled(self.plan.output, rows, set(), corner))
        return self.call(mixture.mixed, "mixed", form, leaning, *self.box)

    def backward(self, start: fx.Node, rows: fx.Node, stops: set[fx.Node]) -> fx.Node:
        """The upper bound `[B, K]` of `rows @ value of start`, rows being `[B, K, *S]`."""
        return self.concluded(self.pulled(start, rows, stops))

    def pulled(
        self, start: fx.Node, rows: fx.Node, stops: set[fx.Node], corner: fx.Node | None = None
    ) -> list[tuple[fx.Node, fx.Node]]:
        """Where `rows @ value of start` ends, at the stops and the entry, and the form it is there; where a corner of
        each row is given, by lines that are tight there."""
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
            if corner is not None and rule.leans:
                extra["at"] = self.call(corners.at, f"{sources[0].name}_at", self.courses[sources[0]], corner)
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
