"""The passes in order: from the canonical graph to the clean one, and on to the perturbed one."""

from __future__ import annotations

from torch import fx

from robnet_fx.passes import (  # noqa: F401  (they enter lowerings)
    lower_attention,
    lower_einsum,
    lower_exponentials,
    lower_extremes,
    lower_statistics,
)
from robnet_fx.passes.drop_softmax import drop_softmax
from robnet_fx.passes.insert_clip import insert_clip
from robnet_fx.passes.insert_field import insert_field
from robnet_fx.passes.insert_layout import insert_layout
from robnet_fx.passes.insert_normalisation import Constants, insert_normalisation
from robnet_fx.passes.lower import lower
from robnet_fx.passes.simplify import simplify
from robnet_fx.perturbation import Perturbation


def clean(canonical: fx.GraphModule, mean: Constants = None, std: Constants = None) -> fx.GraphModule:
    """`image -> logits`: no softmax at the end, composite operations written out; in front the layout that the network
    takes, and the normalisation if it is given."""
    graph = simplify(insert_layout(lower(drop_softmax(canonical))))
    return graph if mean is None and std is None else insert_normalisation(graph, mean, std)


def perturb(clean: fx.GraphModule, perturbation: Perturbation, clip: str | None) -> fx.GraphModule:
    """`(coefficients, image) -> logits`: the clip and then the perturbation in front of the clean graph."""
    return simplify(insert_field(insert_clip(clean, clip), perturbation))
