"""What in a traced network needs neither an image nor a parameter: computed once, as the user's code would."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

Number = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)


def known_values(exported: ExportedProgram) -> dict[fx.Node, Any]:
    """Node -> value (a tensor, or several) for every call of a decomposed program that follows from the code alone,
    such as positions and masks made in `forward`. What draws random numbers does not."""
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    known: dict[fx.Node, Any] = {}
    for node in exported.graph.nodes:
        spec = kinds.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind == InputKind.CONSTANT_TENSOR:
            known[node] = exported.constants[spec.target].detach()
        value = node.meta.get("val")
        calculated = node.op == "call_function" and value is not None and not isinstance(value, Number)
        if calculated and not _random(node) and all(source in known for source in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    return known


def _random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
