"""One network in two forms must give the same numbers; where it does not, the first operation that differs is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.faults import summary
from robnet_fx.graphs import describe

PARITY = 1e-4  # of (1 + |b|), as for every comparison of two forms of one network
_IN_FLOAT64 = 1e-7


def check_repeats(model: nn.Module, first: Tensor, second: Tensor) -> None:
    """The logits of two calls in a row must be finite and the same."""
    if not bool(first.isfinite().all()):
        bad = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
        raise UsageError(f"the model's output is not finite{': NaN or inf in ' + ', '.join(bad) if bad else ''}")
    if found := difference(second, first):
        raise UnsupportedError(
            f"{type(model).__name__} is not a function of its images: {found} between two calls in a row\n"
            "  remedy  draw nothing at random in eval mode, and let no call depend on those before it"
        )


@torch.no_grad()
def check_trace(
    traced: fx.GraphModule, exported: ExportedProgram, names: Mapping[str, str], example: Tensor, expected: Tensor
) -> None:
    """The canonical graph must equal the model on a batch, and each sample must not depend on its neighbours.

    `names` are those of the nodes of `exported` by the canonical nodes of the same value.
    """
    try:
        batch = traced(example)
        single = torch.cat([traced(example[i : i + 1]) for i in range(len(example))])
    except Exception as error:
        raise UnsupportedError(
            f"the canonical graph does not run: {summary(error)}\n"
            + _at(_stops_at(traced, example))
            + "  remedy  use the batch size in reshapes only, then try again"
        ) from error
    if found := difference(batch, expected):
        node = _differs_at(_values(traced, example), _named(_exported_values(exported, example)), names, PARITY)
        reason = f"{node.target} differs from the traced operation" if node else ""
        raise UnsupportedError(
            f"the canonical graph does not reproduce the model: {found}\n"
            + _at(node, reason)
            + f"  remedy  {'use the batch size in reshapes only' if node else 'write to no .data'}, then try again"
        )
    if (found := difference(single, expected)) and _mixes(traced, example):
        node = _mixed_at(traced, example)
        reason = f"{node.target} of a batch is not that of its samples" if node else ""
        raise UnsupportedError(
            f"a batch of one does not reproduce the model, for it mixes samples: {found}\n"
            + _at(node, reason)
            + "  remedy  let the logits of an image depend on this image alone"
        )


@torch.no_grad()
def check_lowered(canonical: fx.GraphModule, lowered: fx.GraphModule, example: Tensor) -> None:
    """What passes write out must give the same numbers, in float64 and without touching the user's weights."""
    example = example.double() if example.is_floating_point() else example
    expected, found = (_Run(graph, torch.float64).run(example) for graph in (canonical, lowered))
    if not (problem := difference(found, expected, _IN_FLOAT64)):
        return
    before, after = (_values(graph, example, torch.float64) for graph in (canonical, lowered))
    kept = {node.name for node in lowered.graph.nodes}
    node = _differs_at(after, _named(before), {name: name for name in kept}, _IN_FLOAT64)
    if node is not None:  # what was written out has no name of its own any more: it lies between
        (own,) = (n for n in canonical.graph.nodes if n.name == node.name)
        node = next((source for source in own.all_input_nodes if source.name not in kept), own)
    raise UnsupportedError(
        f"the lowered graph does not reproduce the network: {problem}\n"
        + _at(node, f"{node.target} is written out in operations that give other numbers" if node else "")
        + "  remedy  keep the values there in a smaller range, or replace the layer"
    )


def difference(value: Tensor, expected: Tensor, tolerance: float = PARITY) -> str:
    """How one form of a value differs from the other, empty where it does not."""
    if value.shape != expected.shape:
        return f"its output is {list(value.shape)} for {list(expected.shape)}"
    value, expected = value.double(), expected.double()
    if torch.allclose(value, expected, rtol=tolerance, atol=tolerance):
        return ""
    return f"outputs differ by {float((value - expected).abs().max()):.3g}"


class _Run(fx.Interpreter):
    """Runs a graph, on weights and constants in another dtype if one is given; the modules keep theirs."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype | None = None, keep: bool = False) -> None:
        super().__init__(module, garbage_collect_values=not keep)
        self.dtype = dtype
        self.last: fx.Node | None = None

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return value.to(self.dtype) if self.dtype and value.is_floating_point() else value

    def run_node(self, n: fx.Node) -> Any:
        self.last = n
        return super().run_node(n)


def _values(graph: fx.GraphModule, example: Tensor, dtype: torch.dtype | None = None) -> dict[fx.Node, Any]:
    run = _Run(graph, dtype, keep=True)
    run.run(example)
    return run.env


def _exported_values(exported: ExportedProgram, example: Tensor) -> dict[fx.Node, Any]:
    inputs = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(example.clone())
        else:
            state = exported.state_dict if spec.target in exported.state_dict else exported.constants
            inputs.append(state[spec.target])
    run = fx.Interpreter(exported.graph_module, garbage_collect_values=False)
    run.run(*inputs)
    return run.env


def _named(values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    return {node.name: value for node, value in values.items()}


def _differs_at(
    values: Mapping[fx.Node, Any], expected: Mapping[str, Any], names: Mapping[str, str], tolerance: float
) -> fx.Node | None:
    """The first operation whose value is not the expected one of its name; a constant may stand once for a batch."""
    for node, value in values.items():
        theirs = expected.get(names.get(node.name, ""))
        if node.op != "call_function" or not isinstance(value, Tensor) or not isinstance(theirs, Tensor):
            continue
        try:
            ours = value.expand_as(theirs).to(theirs.dtype)
        except RuntimeError:
            return node
        if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True):
            return node
    return None


def _stops_at(traced: fx.GraphModule, example: Tensor) -> fx.Node | None:
    """The operation at which a graph that does not run stops."""
    for images in (example, example[:1]):
        run = _Run(traced)
        try:
            run.run(images)
        except Exception:
            return run.last
    return None


def _mixes(traced: fx.GraphModule, example: Tensor) -> bool:
    """Whether samples mix in float64 too: a deep network of large numbers may differ by float32's rounding alone."""
    images = example.double()
    whole = _Run(traced, torch.float64).run(images)
    alone = torch.cat([_Run(traced, torch.float64).run(image) for image in images.split(1)])
    return bool(difference(alone, whole, _IN_FLOAT64))


def _mixed_at(traced: fx.GraphModule, example: Tensor) -> fx.Node | None:
    """The first operation of a canonical graph whose values for a batch are not those of its samples one by one."""
    whole, *lone = (_values(traced, x) for x in (example, *example.split(1)))
    varying = set(traced.graph.find_nodes(op="placeholder"))
    for node in traced.graph.nodes:
        if node.op != "call_function" or varying.isdisjoint(node.all_input_nodes):
            continue
        varying.add(node)
        parts = torch.cat([torch.atleast_1d(values[node]) for values in lone])
        if difference(whole[node], parts):
            return node
    return None


def _at(node: fx.Node | None, reason: str = "") -> str:
    return "" if node is None else describe(node, reason) + "\n"
