"""What a report must say of a network that is bounded."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import MODEL, OUTPUT, input_of
from robnet_fx.passes.head import head_of


def remarks(canonical: fx.GraphModule) -> dict[str, str]:
    """What a report must say of a network beside its name, by topic: its output, and what its file is like."""
    own: dict[str, str] = dict(getattr(canonical.get_submodule(MODEL), "remarks", {}))
    path = input_of(canonical).meta.get(OUTPUT)
    chosen = f"{path} of what the module returns" if path else own.get("output")
    if said := "; ".join(filter(None, (chosen, head_of(canonical).remark))):
        own["output"] = said
    return own
